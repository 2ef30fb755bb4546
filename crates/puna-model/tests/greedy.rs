//! Greedy tokens against llama2.c and llama.cpp. `testdata/scripts/{stories,llama_cpp}_golden.py` made the lists.

use std::sync::Arc;

use puna_core::KvType;
use puna_kernels::Cpu;
use puna_model::{Chunk, KvCache, Model, Runner, Wants};
use puna_testkit::{GreedyCase, testdata};

#[test]
fn the_built_in_model_equals_llama2_c() {
    let cases = GreedyCase::read_all(testdata("stories260K.json"));
    for case in &cases {
        assert_eq!(case.tokens.len(), 200);
        check(case);
    }
}

#[test]
fn gguf_files_equal_llama_cpp() {
    GreedyCase::read_all(testdata("llama_cpp.json")).iter().for_each(check);
}

fn check(case: &GreedyCase) {
    let Some(path) = case.path() else { return };
    let source = puna_formats::open(&path).unwrap_or_else(|e| panic!("{e}")).source;
    let ctx = case.prompt_ids.len() + case.tokens.len();
    let model = Model::load(&*source, ctx).unwrap_or_else(|e| panic!("{}: {e}", case.file));
    let n_blocks = KvCache::blocks_for(ctx);
    let blocks: Vec<u32> = (0..n_blocks as u32).collect();
    let mut runner =
        Runner::new(Arc::new(model), Cpu::new(2).expect("a processor"), KvType::F32, n_blocks);

    let mut answer = Vec::new();
    let (mut pos, mut feed) = (0, case.prompt_ids.clone());
    while answer.len() < case.tokens.len() {
        let chunk = Chunk { tokens: &feed, pos, blocks: &blocks, wants: Wants::Last };
        let best = most_likely(runner.forward(&[chunk]).logits);
        pos += feed.len();
        feed = vec![best];
        answer.push(best);
    }
    assert_eq!(answer, case.tokens, "{} after {:?}", case.file, case.prompt_ids);
}

/// The first id with the largest logit.
fn most_likely(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.expect("a vocabulary") as u32
}
