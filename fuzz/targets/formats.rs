//! What the fuzz targets of `puna-formats` do with an input. The crate's own tests include this file to
//! replay the seeds.
#![allow(dead_code, reason = "each user takes one function or all")]

use puna_core::{SharedBytes, WeightId};
use puna_formats::Checkpoint;

/// A GGUF or llama2.c file, opened and read to its end.
pub(crate) fn model(data: &[u8]) {
    if let Ok(checkpoint) = puna_formats::open_bytes("fuzz", SharedBytes::new(data.to_vec())) {
        read_all(&checkpoint);
    }
}

/// Whatever opens keeps its promises: a sound configuration, tensors of the sizes it names.
fn read_all(checkpoint: &Checkpoint) {
    let source = &checkpoint.source;
    let config = source.config();
    config.validate().expect("an opened model has a sound configuration");
    for id in WeightId::all(config) {
        let info = source.info(id).expect("an opened model has every tensor");
        assert_eq!(info.shape, id.shape(config));
        let tensor = source.load(id).expect("bytes in memory can be read");
        assert_eq!(Some(tensor.data.len()), info.n_bytes());
    }
}
