//! Logits and hidden states against `transformers` (f32), for every published form of a checkpoint.
//! `testdata/scripts/models_golden.py` made the files.

use std::sync::Arc;

use puna_core::KvType;
use puna_kernels::Cpu;
use puna_model::{Chunk, KvCache, Model, Runner, Wants};
use puna_testkit::{Golden, assert_within_peak, testdata};

/// (checkpoint, golden file, largest |Δ| as a part of the largest |logit|).
///
/// 1e-4 for weights that are used as they are. Where activations are rounded on the way
/// (to bf16, or to 8 bits per block) the bound is that rounding's, which the kernels' own tests derive.
const CASES: &[(&str, &str, f32)] = &[
    ("mha/hf", "mha/golden", 1e-4),
    ("mha/meta", "mha/golden", 1e-4),
    ("mha/gguf/f32.gguf", "mha/golden", 1e-4),
    ("mha/llama2c/legacy.bin", "mha/golden", 1e-4),
    ("mha/llama2c/v1.bin", "mha/golden", 1e-4),
    ("mha/llama2c/v2.bin", "mha/golden-v2", 1e-4),
    ("mha/hf-bin", "mha/golden-f16", 1e-4),
    ("mha/meta-2", "mha/golden-f16", 1e-4),
    ("mha/gguf/f16.gguf", "mha/golden-f16", 1e-4),
    ("mha/gguf/q8_0.gguf", "mha/golden-q8_0", 3e-2),
    ("gqa/gguf/f32-00001-of-00002.gguf", "gqa/golden", 1e-4),
    ("gqa/llama2c/legacy.bin", "gqa/golden", 1e-4),
    ("gqa/hf", "gqa/golden-bf16", 2e-2),
    ("gqa/meta-2", "gqa/golden-bf16", 2e-2),
    ("gqa/gguf/bf16.gguf", "gqa/golden-bf16", 2e-2),
    ("gqa/gguf/mixed.gguf", "gqa/golden-mixed", 3e-2),
    ("k-quants/gguf/k-quants.gguf", "k-quants/golden", 3e-2),
    ("tied/hf", "tied/golden", 1e-4),
    ("tied/gguf/f32.gguf", "tied/golden", 1e-4),
    ("tied/llama2c/legacy.bin", "tied/golden", 1e-4),
    ("odd/hf", "odd/golden", 1e-4),
    ("head-dim/hf", "head-dim/golden", 1e-4),
    ("rope-linear/hf", "rope-linear/golden", 1e-4),
    ("rope-linear-old/hf", "rope-linear-old/golden", 1e-4),
    ("rope-linear/gguf/f32.gguf", "rope-linear/golden", 1e-4),
    ("rope-dynamic/hf", "rope-dynamic/golden", 1e-4),
    ("rope-yarn/hf", "rope-yarn/golden", 1e-4),
    ("rope-yarn/gguf/f32.gguf", "rope-yarn/golden", 1e-4),
];

#[test]
fn logits_and_hidden_states_equal_transformers() {
    for &(checkpoint, golden, bound) in CASES {
        check(checkpoint, golden, bound);
    }
}

/// Every checkpoint in the folder has its line above.
#[test]
fn no_checkpoint_is_forgotten() {
    for case in std::fs::read_dir(testdata("models")).unwrap() {
        let case = case.unwrap();
        let name = case.file_name().into_string().unwrap();
        for form in std::fs::read_dir(case.path()).unwrap() {
            let form = form.unwrap().file_name().into_string().unwrap();
            let listed = CASES.iter().any(|(checkpoint, golden, _)| {
                checkpoint.starts_with(&format!("{name}/{form}"))
                    || format!("{golden}.safetensors") == format!("{name}/{form}")
            });
            assert!(listed, "{name}/{form} is not compared");
        }
    }
}

fn check(checkpoint: &str, golden: &str, bound: f32) {
    let path = testdata("models").join(checkpoint);
    let source = puna_formats::open(&path).unwrap_or_else(|e| panic!("{e}")).source;
    let golden = Golden::open(testdata("models").join(format!("{golden}.safetensors")));
    let ids = golden.ids("ids");

    let model = Model::load(&*source, ids.len()).unwrap_or_else(|e| panic!("{checkpoint}: {e}"));
    let n_blocks = KvCache::blocks_for(ids.len());
    let blocks: Vec<u32> = (0..n_blocks as u32).collect();
    let mut runner = Runner::new(Arc::new(model), Cpu::new(2).unwrap(), KvType::F32, n_blocks);
    let chunk = Chunk { tokens: &ids, pos: 0, blocks: &blocks, wants: Wants::All };
    let out = runner.forward(&[chunk]);

    let within = |what: &str, found: &[f32]| {
        assert_within_peak(&format!("{checkpoint} {what}"), found, &golden.f32(what), bound)
    };
    let (hidden, logits) = (within("hidden", out.hidden), within("logits", out.logits));
    eprintln!("{checkpoint}: hidden {hidden:.1e}, logits {logits:.1e}");
}
