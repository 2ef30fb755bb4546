//! A layer at a time gives the bits that [`Runner`] gives.

use std::sync::Arc;

use puna_core::{DType, KvType, Rng, WeightId};
use puna_kernels::Cpu;
use puna_model::{Chunk, KvCache, Layerwise, Model, Runner, Wants};
use puna_testkit::{TinySource, tiny_config};

const CTX: usize = 600;

fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed, 0);
    (0..n).map(|_| rng.next_u32() % tiny_config().vocab_size as u32).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// Sequences of these lengths, in a context of `ctx`.
fn check(lens: &[usize], ctx: usize, dtype: DType) {
    let source = TinySource::new(tiny_config(), dtype, 3);
    let sequences: Vec<Vec<u32>> =
        lens.iter().zip(1..).map(|(&len, seed)| tokens(len, seed)).collect();

    let cpu = Cpu::new(2).unwrap();
    let mut layerwise = Layerwise::new(&source, &cpu, KvType::F16, ctx).unwrap();
    // What an earlier text left behind does not count.
    layerwise.begin(&[&sequences[0]]);
    layerwise.begin(&sequences.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut n_watched = 0;
    for idx in 0..tiny_config().n_layers {
        layerwise
            .layer(idx, &mut |weights, rows| {
                let cols = WeightId::Layer(idx, weights[0]).shape(&tiny_config())[1];
                n_watched += weights.len() * rows.len() / cols;
            })
            .unwrap();
    }
    layerwise.finish();
    let n_tokens: usize = lens.iter().sum();
    assert_eq!(n_watched, n_tokens * 7 * tiny_config().n_layers, "rows of inputs watched");
    let found = bits(layerwise.logits(0, n_tokens));

    let model = Arc::new(Model::load(&source, ctx).unwrap());
    let n_blocks = KvCache::blocks_for(ctx);
    let mut runner = Runner::new(model, Cpu::new(1).unwrap(), KvType::F16, n_blocks);
    let blocks: Vec<u32> = (0..n_blocks as u32).collect();
    let mut expected = Vec::new();
    for tokens in &sequences {
        let chunk = Chunk { tokens, pos: 0, blocks: &blocks, wants: Wants::All };
        expected.extend(bits(runner.forward(&[chunk]).logits));
    }
    assert!(found == expected, "{lens:?} in {ctx}, {dtype}");
}

#[test]
fn the_bits_are_those_of_the_runner() {
    check(&[40, 64, 1, 33, 64], 64, DType::F32);
    check(&[64; 20], 64, DType::Q4_K);
    check(&[CTX, 7, CTX - 1], CTX, DType::BF16);
    check(&[512, 300], 512, DType::Q8_0);
}
