//! Damage of every sample: truncations, flipped bytes, extreme numbers. Nothing may panic, and what still
//! opens has to keep its promises (see the fuzz targets, which this shares).

#[path = "../../../fuzz/targets/formats.rs"]
mod targets;

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use puna_testkit::{testdata, workspace_root};

type Run = fn(&[u8]) -> bool;

/// Whole files of every form, with the parser that reads them.
static SAMPLES: LazyLock<Vec<(Vec<u8>, Run)>> = LazyLock::new(|| {
    let model = |path: &str| testdata("models").join(path);
    let samples: [(PathBuf, Run); 12] = [
        (workspace_root().join("models/stories260K.bin"), targets::model),
        (model("mha/gguf/q8_0.gguf"), targets::model),
        (model("k-quants/gguf/k-quants.gguf"), targets::model),
        (model("rope-yarn/gguf/f32.gguf"), targets::model),
        (model("mha/llama2c/v1.bin"), targets::model),
        (model("mha/llama2c/v2.bin"), targets::model),
        (model("mha/hf/model.safetensors"), targets::safetensors),
        (model("gqa/hf/model.safetensors.index.json"), targets::index),
        (model("mha/hf-bin/pytorch_model-00001-of-00002.bin"), targets::torch),
        (model("gqa/meta-2/consolidated.00.pth"), targets::torch),
        (model("rope-yarn/hf/config.json"), targets::hf_config),
        (model("gqa/meta-2/params.json"), targets::params),
    ];
    samples.into_iter().map(|(path, run)| (std::fs::read(path).unwrap(), run)).collect()
});

#[test]
fn samples_are_sound() {
    for (idx, (bytes, run)) in SAMPLES.iter().enumerate() {
        assert!(run(bytes), "sample {idx}");
    }
}

/// Where the parsers look: near the beginning, near the end, or anywhere.
fn place() -> impl Strategy<Value = (u8, prop::sample::Index)> {
    (0..3u8, any::<prop::sample::Index>())
}

fn at(len: usize, (region, index): (u8, prop::sample::Index)) -> usize {
    const HEADER: usize = 4096;
    match region {
        0 => index.index(len.min(HEADER)),
        1 => len - 1 - index.index(len.min(HEADER)),
        _ => index.index(len),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn truncated(sample in 0..12usize, cut in place()) {
        let (bytes, run) = &SAMPLES[sample];
        run(&bytes[..at(bytes.len(), cut)]);
    }

    #[test]
    fn flipped(sample in 0..12usize, flips in prop::collection::vec((place(), 1..=255u8), 1..4)) {
        let (bytes, run) = &SAMPLES[sample];
        let mut bytes = bytes.clone();
        for (place, bits) in flips {
            let at = at(bytes.len(), place);
            bytes[at] ^= bits;
        }
        run(&bytes);
    }

    #[test]
    fn with_extreme_numbers(
        sample in 0..12usize,
        place in place(),
        number in prop::sample::select(vec![0, 1, u64::MAX, u64::MAX / 2, 1 << 32, u64::from(u32::MAX)]),
        n_bytes in prop::sample::select(vec![1, 2, 4, 8usize]),
    ) {
        let (bytes, run) = &SAMPLES[sample];
        let mut bytes = bytes.clone();
        let at = at(bytes.len() - 8, place);
        bytes[at..at + n_bytes].copy_from_slice(&number.to_le_bytes()[..n_bytes]);
        run(&bytes);
    }
}

/// Every proper beginning of a small sound file is refused, but for the padding after its last tensor.
#[test]
fn no_beginning_of_a_file_is_a_file() {
    let cases: [(&str, Run, usize); 7] = [
        ("gguf/sound-whole", targets::model, 31),
        ("llama2c/sound-legacy", targets::model, 0),
        ("llama2c/sound-version-1", targets::model, 0),
        ("llama2c/sound-version-2", targets::model, 0),
        ("safetensors/sound-types", targets::safetensors, 0),
        ("torch/sound-zip", targets::torch, 0),
        ("torch/sound-legacy", targets::torch, 0),
    ];
    for (seed, run, padding) in cases {
        let bytes = std::fs::read(workspace_root().join("fuzz/seeds").join(seed)).unwrap();
        assert!(run(&bytes), "{seed}");
        for len in 0..bytes.len() - padding {
            assert!(!run(&bytes[..len]), "{seed}: {len} of {} bytes", bytes.len());
        }
    }
}
