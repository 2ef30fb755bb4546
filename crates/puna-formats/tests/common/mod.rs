//! A model of one layer, small enough to be written out by the tests, and copies of golden models to change.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

use puna_core::{DType, ModelConfig, Rope, RopeLayout, RopeScaling, TensorInfo, WeightId};
use puna_formats::gguf::{self, Value, Writer};
use puna_testkit::testdata;

/// Dimensions of which no two are equal, so that a mix-up shows.
pub(crate) fn tiny_config() -> ModelConfig {
    ModelConfig {
        dim: 32,
        hidden_dim: 48,
        n_layers: 1,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        vocab_size: 5,
        max_seq_len: 64,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
        tied_output: false,
    }
}

/// Bytes that differ from tensor to tensor and from place to place.
pub(crate) fn bytes_of(id: WeightId, len: usize) -> Vec<u8> {
    let seed = id.to_string().bytes().fold(17u32, |h, b| h.wrapping_mul(31) + u32::from(b));
    (0..len as u32)
        .map(|i| (seed.wrapping_add(i).wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

pub(crate) fn tiny_tensors() -> Vec<(String, TensorInfo, Vec<u8>)> {
    let config = tiny_config();
    let one = |id: WeightId| {
        let info = TensorInfo { dtype: DType::F32, shape: id.shape(&config) };
        let data = bytes_of(id, info.n_bytes().unwrap());
        (gguf::name(id), info, data)
    };
    WeightId::all(&config).map(one).collect()
}

pub(crate) fn tiny_metadata() -> Vec<(String, Value)> {
    let text = |s: &str| Value::String(s.into());
    [
        ("general.architecture", text("llama")),
        ("general.type", text("model")),
        ("general.name", text("tiny")),
        ("llama.context_length", Value::U32(64)),
        ("llama.embedding_length", Value::U32(32)),
        ("llama.block_count", Value::U32(1)),
        ("llama.feed_forward_length", Value::U32(48)),
        ("llama.attention.head_count", Value::U32(4)),
        ("llama.attention.head_count_kv", Value::U32(2)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", Value::strings(["<unk>", "<s>", "</s>", "▁a", "b"])),
        ("tokenizer.ggml.scores", Value::f32s(&[0.0, 0.0, 0.0, -1.0, -2.0])),
        ("tokenizer.ggml.token_type", Value::i32s(&[2, 3, 3, 1, 1])),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.chat_template", text("{{ messages }}")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

pub(crate) fn tiny_gguf(
    metadata: &[(String, Value)],
    tensors: &[(String, TensorInfo, Vec<u8>)],
) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let infos: Vec<_> = tensors.iter().map(|(n, i, _)| (n.clone(), i.clone())).collect();
    let mut writer = Writer::create(&path, metadata, &infos).unwrap();
    for (name, _, data) in tensors {
        writer.write(name, data).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(&path).unwrap()
}

/// A copy of a golden model's folder.
pub(crate) struct ModelCopy(tempfile::TempDir);

impl ModelCopy {
    pub(crate) fn of(model: &str) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(testdata("models").join(model)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        Self(copy)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn replace(&self, name: &str, from: &str, to: &str) {
        let text = self.text(name);
        assert!(text.contains(from), "{text}");
        std::fs::write(self.path(name), text.replacen(from, to, 1)).unwrap();
    }

    pub(crate) fn truncate(&self, name: &str, less: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(self.path(name)).unwrap();
        file.set_len(file.metadata().unwrap().len() - less).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }
}
