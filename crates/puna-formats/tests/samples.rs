//! Real files: the committed story model, and those of the shared data where it is present.

use std::path::Path;

use puna_core::{DType, LayerWeight, RopeLayout, WeightId};
use puna_formats::Form;
use puna_testkit::{shared_data, workspace_root};

fn f32_at(bytes: &[u8], idx: usize) -> f32 {
    f32::from_le_bytes(bytes[4 * idx..][..4].try_into().unwrap())
}

#[test]
fn stories260k_opens_as_a_file_and_as_bytes() {
    let path = workspace_root().join("models/stories260K.bin");
    let raw = std::fs::read(&path).unwrap();
    let from_file = puna_formats::open(&path).unwrap();
    let bytes = puna_core::SharedBytes::new(raw.clone());
    let from_bytes = puna_formats::open_bytes("stories260K", bytes).unwrap();
    assert_eq!(from_file.files, [path]);
    for checkpoint in [from_file, from_bytes] {
        assert_eq!(checkpoint.form, Form::Llama2c);
        let source = checkpoint.source;
        let config = source.config();
        assert_eq!((config.dim, config.n_layers, config.n_heads), (64, 5, 8));
        assert_eq!((config.n_kv_heads, config.vocab_size, config.max_seq_len), (4, 512, 512));
        assert!(config.tied_output);
        // The first tensor follows the seven numbers of the header; the first norm follows it.
        let embeddings = source.load(WeightId::TokEmbeddings).unwrap();
        assert_eq!(*embeddings.data, raw[28..28 + 512 * 64 * 4]);
        let norm = source.load(WeightId::Layer(0, LayerWeight::AttnNorm)).unwrap();
        assert_eq!(f32_at(&norm.data, 0), f32_at(&raw, 7 + 512 * 64));
        assert!(!source.copies(WeightId::TokEmbeddings));
    }
}

#[test]
fn a_random_gguf_of_llama_2() {
    let Some(data) = shared_data() else { return };
    let path = data.join("weights/llama-2-tiny-random.gguf");
    let checkpoint = puna_formats::open(Path::new(&path)).unwrap();
    assert_eq!(checkpoint.form, Form::Gguf);
    let config = checkpoint.source.config();
    assert_eq!((config.dim, config.hidden_dim, config.n_layers, config.n_heads), (8, 32, 1, 2));
    assert_eq!((config.head_dim, config.vocab_size, config.max_seq_len), (4, 32_000, 4096));
    assert_eq!(config.rope.layout, RopeLayout::Interleaved);
    assert!(!config.tied_output);
    let vocab = checkpoint.vocab.unwrap();
    assert_eq!(vocab.tokens[..4], ["<unk>", "<s>", "</s>", "<0x00>"]);
    assert_eq!((vocab.bos_id, vocab.eos_id, vocab.unk_id), (Some(1), Some(2), Some(0)));
    let wq = checkpoint.source.load(WeightId::Layer(0, LayerWeight::Wq)).unwrap();
    assert_eq!((wq.info.dtype, wq.data.len()), (DType::F16, 128));
}
