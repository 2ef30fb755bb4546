//! Gradients are the same bits for any number of threads, however a batch is cut into micro-batches, and whether or
//! not blocks are run again on the way back.

mod common;

use common::{config, tokens, weights};
use puna_core::ModelConfig;
use puna_kernels::{Cpu, Isa};
use puna_ops::Precision;
use puna_train::{Grads, Layout, MicroBatch, Pass};

/// Losses, then gradients, of a batch of `n_seqs` sequences in micro-batches of `micro` sequences.
fn run(
    cpu: &Cpu,
    precision: Precision,
    config: &ModelConfig,
    seq_len: usize,
    micro: usize,
    recompute: bool,
) -> Vec<f32> {
    const N_SEQS: usize = 4;
    let layout = Layout::new(config);
    let weights = weights(&layout);
    let n = N_SEQS * seq_len;
    let (tokens, targets) = (tokens(1, n, config.vocab_size), tokens(2, n, config.vocab_size));
    let scales = vec![1.0 / n as f32; n];
    let mut pass = Pass::new(&layout, micro, seq_len, recompute, precision);
    let mut grads = Grads::new(&layout);
    let mut result = Vec::new();
    for seq in (0..N_SEQS).step_by(micro) {
        let rows = seq * seq_len..(seq + micro) * seq_len;
        let batch = MicroBatch {
            tokens: &tokens[rows.clone()],
            targets: &targets[rows.clone()],
            scales: &scales[rows],
            starts: None,
        };
        result.extend_from_slice(pass.losses_and_grads(cpu, &weights, batch, &mut grads));
    }
    result.extend_from_slice(grads.complete(cpu));
    result
}

#[track_caller]
fn assert_same(what: &str, a: &[f32], b: &[f32]) {
    let same = a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(a.len() == b.len() && same, "{what}");
}

#[test]
fn nothing_but_the_batch_matters() {
    for isa in Isa::available() {
        // 256 tokens are a block of terms: sequences are then summed together.
        for (tied, seq_len, precision) in [
            (false, 37, Precision::F32),
            (true, 9, Precision::F32),
            (true, 256, Precision::F32),
            (false, 37, Precision::Bf16),
            (true, 256, Precision::Bf16),
        ] {
            if !precision.is_available(isa) {
                continue;
            }
            let config = ModelConfig { max_seq_len: 256, ..config(4, 2, tied) };
            let alone = Cpu::with_isa(isa, 1).unwrap();
            let expected = run(&alone, precision, &config, seq_len, 4, false);
            for (micro, n_threads, recompute) in
                [(4, 2, false), (4, 7, true), (2, 2, false), (1, 3, true), (1, 1, false)]
            {
                let cpu = Cpu::with_isa(isa, n_threads).unwrap();
                let found = run(&cpu, precision, &config, seq_len, micro, recompute);
                let what = format!(
                    "{isa}, {precision:?}, tied {tied}, {seq_len} tokens, {micro} at once, {n_threads} threads, {recompute}"
                );
                assert_same(&what, &found, &expected);
            }
        }
    }
}

#[test]
fn losses_alone_are_the_same() {
    let config = config(4, 2, false);
    let layout = Layout::new(&config);
    let weights = weights(&layout);
    let (tokens, targets) = (tokens(1, 20, 29), tokens(2, 20, 29));
    let batch = MicroBatch { tokens: &tokens, targets: &targets, scales: &[0.1; 20], starts: None };
    let cpu = Cpu::new(2).unwrap();
    let mut pass = Pass::new(&layout, 2, 10, true, Precision::F32);
    let alone = pass.losses(&cpu, &weights, batch).to_vec();
    let mut grads = Grads::new(&layout);
    assert_same("losses", &alone, pass.losses_and_grads(&cpu, &weights, batch, &mut grads));
}
