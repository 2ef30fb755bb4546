//! Bits do not depend on company: the same logits for any number of threads, any chunking of the prompt, any
//! batch, any place in the cache, on each instruction set of the machine.

use std::sync::Arc;

use puna_core::{DType, KvType, ModelConfig, Rng, RopeLayout};
use puna_kernels::{Cpu, Isa};
use puna_model::{Chunk, KvCache, Model, Runner, Wants};
use puna_testkit::{TinySource, tiny_config};

/// A prompt that fills two cache blocks and part of a third.
const N_TOKENS: usize = 75;

struct Case {
    model: Arc<Model>,
    isa: Isa,
    kv_type: KvType,
    tokens: Vec<u32>,
}

impl Case {
    fn new(config: ModelConfig, dtype: DType, isa: Isa, kv_type: KvType) -> Self {
        let mut rng = Rng::new(11, 0);
        let vocab_size = config.vocab_size as u32;
        let tokens = (0..N_TOKENS).map(|_| rng.next_u32() % vocab_size).collect();
        let model = Model::load(&TinySource::new(config, dtype, 5), 128).unwrap();
        Self { model: Arc::new(model), isa, kv_type, tokens }
    }

    fn runner(&self, n_threads: usize) -> Runner {
        let cpu = Cpu::with_isa(self.isa, n_threads).unwrap();
        Runner::new(Arc::clone(&self.model), cpu, self.kv_type, 16)
    }

    /// Logits of every position, the prompt being given in chunks of `sizes` (repeated), with
    /// `neighbours` other sequences in each pass.
    fn logits(
        &self,
        n_threads: usize,
        sizes: &[usize],
        blocks: &[u32],
        neighbours: usize,
    ) -> Vec<u32> {
        let mut runner = self.runner(n_threads);
        let others: Vec<Vec<u32>> = (0..neighbours as u32).map(|i| vec![10 + i, 14 - i]).collect();
        let other_tokens: Vec<u32> = self.tokens.iter().rev().copied().collect();
        let mut bits = Vec::new();
        let (mut pos, mut turn) = (0, 0);
        while pos < self.tokens.len() {
            let n = sizes[turn % sizes.len()].min(self.tokens.len() - pos);
            let mut batch: Vec<Chunk<'_>> = others
                .iter()
                .map(|blocks| Chunk {
                    tokens: &other_tokens[..turn % 3 + 1],
                    pos: 0,
                    blocks,
                    wants: Wants::Last,
                })
                .collect();
            let tokens = &self.tokens[pos..pos + n];
            batch.insert(neighbours / 2, Chunk { tokens, pos, blocks, wants: Wants::All });
            let vocab_size = self.model.config().vocab_size;
            let out = runner.forward(&batch);
            let start = neighbours / 2 * vocab_size;
            bits.extend(out.logits[start..start + n * vocab_size].iter().map(|x| x.to_bits()));
            (pos, turn) = (pos + n, turn + 1);
        }
        bits
    }
}

fn check(case: &Case, what: &str) {
    let in_order = [0, 1, 2];
    let expected = case.logits(1, &[N_TOKENS], &in_order, 0);
    let finite = expected.iter().all(|&bits| f32::from_bits(bits).is_finite());
    assert!(finite, "{what}: logits are finite");
    let same = |found: Vec<u32>, how: &str| assert!(found == expected, "{what}: {how} differs");
    same(case.logits(2, &[N_TOKENS], &in_order, 0), "2 threads");
    same(case.logits(7, &[N_TOKENS], &in_order, 0), "7 threads");
    same(case.logits(2, &[1], &in_order, 0), "token by token");
    same(case.logits(2, &[33, 7, 1], &in_order, 0), "uneven chunks");
    same(case.logits(2, &[16], &[9, 3, 7], 0), "another place in the cache");
    same(case.logits(2, &[20, 1, 5], &[8, 0, 2], 2), "company");
}

#[test]
fn every_weight_type_on_every_instruction_set() {
    for isa in Isa::available() {
        for dtype in DType::ALL {
            let config =
                ModelConfig { n_layers: 1, hidden_dim: 256, vocab_size: 70, ..tiny_config() };
            let case = Case::new(config, dtype, isa, KvType::F16);
            check(&case, &format!("{dtype} on {}", isa.name()));
        }
    }
}

#[test]
fn every_cache_type() {
    for kv_type in KvType::ALL {
        let case = Case::new(tiny_config(), DType::Q8_0, Isa::best().unwrap(), kv_type);
        check(&case, &format!("cache of {kv_type}"));
    }
}

#[test]
fn sizes_that_fit_no_vector() {
    let mut config = tiny_config();
    (config.dim, config.hidden_dim, config.vocab_size) = (42, 77, 131);
    (config.n_heads, config.n_kv_heads, config.head_dim) = (6, 3, 14);
    config.tied_output = true;
    config.rope.layout = RopeLayout::Halves;
    for isa in Isa::available() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for kv_type in KvType::ALL {
                let case = Case::new(config.clone(), dtype, isa, kv_type);
                check(&case, &format!("odd sizes, {dtype} on {}, cache of {kv_type}", isa.name()));
            }
        }
    }
}

/// The last row and no row, as prefill asks for them, equal the rows asked for one by one.
#[test]
fn wanted_rows_are_the_same_rows() {
    let case = Case::new(tiny_config(), DType::Q4_0, Isa::best().unwrap(), KvType::F16);
    let all = case.logits(2, &[N_TOKENS], &[0, 1, 2], 0);
    let mut runner = case.runner(2);
    let blocks = [0, 1, 2];
    let (head, tail) = case.tokens.split_at(40);
    let silent = Chunk { tokens: head, pos: 0, blocks: &blocks, wants: Wants::Nothing };
    assert!(runner.forward(&[silent]).logits.is_empty());
    let last = Chunk { tokens: tail, pos: 40, blocks: &blocks, wants: Wants::Last };
    let out = runner.forward(&[last]);
    let bits: Vec<u32> = out.logits.iter().map(|x| x.to_bits()).collect();
    assert!(bits[..] == all[all.len() - bits.len()..]);
    assert_eq!(out.hidden.len(), case.model.config().dim);
}

#[test]
fn blocks_for_positions() {
    assert_eq!([1, 32, 33].map(KvCache::blocks_for), [1, 1, 2]);
}
