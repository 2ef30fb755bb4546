//! What the fuzz targets of `puna-formats` do with an input. The crate's own tests include this file to
//! replay the seeds.
#![allow(dead_code, reason = "each user takes one function or all")]

use puna_core::{SharedBytes, WeightId};
use puna_formats::{Checkpoint, Imatrix, Index, hf, meta, safetensors, torch};

/// A GGUF or llama2.c file, opened and read to its end.
pub(crate) fn model(data: &[u8]) -> bool {
    match puna_formats::open_bytes("fuzz", SharedBytes::new(data.to_vec())) {
        Ok(checkpoint) => read_all(&checkpoint),
        Err(_) => false,
    }
}

/// Whatever opens keeps its promises: a sound configuration, tensors of the sizes it names.
fn read_all(checkpoint: &Checkpoint) -> bool {
    let source = &checkpoint.source;
    let config = source.config();
    config.validate().expect("an opened model has a sound configuration");
    for id in WeightId::all(config) {
        let info = source.info(id).expect("an opened model has every tensor");
        assert_eq!(info.shape, id.shape(config));
        let tensor = source.load(id).expect("bytes in memory can be read");
        assert_eq!(Some(tensor.data.len()), info.n_bytes());
    }
    true
}

/// A safetensors file.
pub(crate) fn safetensors(data: &[u8]) -> bool {
    safetensors::check("fuzz", &SharedBytes::new(data.to_vec())).is_ok()
}

/// `model.safetensors.index.json`.
pub(crate) fn index(data: &[u8]) -> bool {
    Index::parse("fuzz", data).is_ok()
}

/// A file of `torch.save`, of either form.
pub(crate) fn torch(data: &[u8]) -> bool {
    torch::check("fuzz", &SharedBytes::new(data.to_vec())).is_ok()
}

/// The pickle inside such a file.
pub(crate) fn pickle(data: &[u8]) -> bool {
    torch::check_pickle("fuzz", data).is_ok()
}

/// `config.json`.
pub(crate) fn hf_config(data: &[u8]) -> bool {
    match hf::parse_config("fuzz", data) {
        // Sound or not, to say which must not fail.
        Ok(config) => config.validate().is_ok(),
        Err(_) => false,
    }
}

/// `params.json`.
pub(crate) fn params(data: &[u8]) -> bool {
    match meta::parse_params("fuzz", data, 32_000) {
        Ok(config) => config.validate().is_ok(),
        Err(_) => false,
    }
}

/// An importance matrix of either form.
pub(crate) fn imatrix(data: &[u8]) -> bool {
    Imatrix::parse("fuzz", &SharedBytes::new(data.to_vec())).is_ok()
}
