//! How fast a network is trained on this machine, beside its peak: steps of one micro-batch with update, as JSON.
//!
//! `cargo run --release -p puna-train --example speed -- DIM LAYERS HEADS KV_HEADS HIDDEN VOCAB T B [THREADS [STEPS [bf16]]]`

#![expect(clippy::print_stdout, reason = "an example that prints what it measures")]

use std::time::Instant;

use puna_core::{ModelConfig, Rng, Rope, RopeLayout, RopeScaling};
use puna_kernels::{Cpu, peak};
use puna_ops::Precision;
use puna_train::{
    Grads, Layout, MemoryNeeds, MicroBatch, Optimizer, OptimizerConfig, Pass, flops_per_token,
    grad_norm,
};

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let precision = match args.pop_if(|last| last == "bf16") {
        Some(_) => Precision::Bf16,
        None => Precision::F32,
    };
    let args: Vec<usize> = args.iter().map(|arg| arg.parse().expect("a number")).collect();
    let &[
        dim,
        n_layers,
        n_heads,
        n_kv_heads,
        hidden_dim,
        vocab_size,
        seq_len,
        n_seqs,
        ref rest @ ..,
    ] = &args[..]
    else {
        panic!("eight numbers or more");
    };
    let config = ModelConfig {
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim: dim / n_heads,
        vocab_size,
        max_seq_len: seq_len,
        norm_eps: 1e-5,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
        tied_output: true,
    };
    let cpu = Cpu::new(rest.first().copied().unwrap_or(2)).expect("an instruction set");
    let n_steps = rest.get(1).copied().unwrap_or(5).max(3);
    let peak = match precision {
        Precision::F32 => peak::f32_gflops(&cpu),
        Precision::Bf16 => peak::bf16_gflops(&cpu).expect("an instruction set with bf16"),
    };
    let layout = Layout::new(&config);
    let mut weights = layout.init(1);
    let (mut optimizer, numbers) = (Optimizer::new(layout.len()), OptimizerConfig::default());
    let mut grads = Grads::new(&layout);
    let mut pass = Pass::new(&layout, n_seqs, seq_len, false, precision);
    let n = n_seqs * seq_len;
    let mut rng = Rng::new(1, 0);
    let tokens: Vec<u32> = (0..=n).map(|_| rng.next_u32() % vocab_size as u32).collect();
    let scales = vec![1.0 / n as f32; n];
    let batch =
        MicroBatch { tokens: &tokens[..n], targets: &tokens[1..], scales: &scales, starts: None };
    let (mut all_secs, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..n_steps {
        let start = Instant::now();
        grads.clear();
        let found = pass.losses_and_grads(&cpu, &weights, batch, &mut grads);
        losses.push(found.iter().sum::<f32>() / n as f32);
        let grads = grads.complete(&cpu);
        let norm = grad_norm(&cpu, grads);
        optimizer.update(&cpu, layout.parts(), &numbers, |_| 1e-4, &mut weights, grads, norm);
        all_secs.push(start.elapsed().as_secs_f64());
    }
    // The first steps meet memory that was never touched.
    let secs = all_secs.split_off(2);
    let best = secs.iter().copied().fold(f64::INFINITY, f64::min);
    let gflops = flops_per_token(&config, seq_len) * n as f64 / best * 1e-9;
    let planned = MemoryNeeds::new(&config, n_seqs, seq_len, false).total() as f64 / 1e6;
    let memory = peak_rss_mb().unwrap_or(planned);
    let peak_share = gflops / peak;
    println!(
        "{{\"secs\": {secs:?}, \"losses\": {losses:?}, \"memory_mb\": {memory:.1}, \"planned_mb\": {planned:.1}, \"peak_gflops\": {peak:.1}, \"peak_share\": {peak_share:.4}, \"gflops\": {gflops:.1}}}"
    );
}

/// The most memory that this process held, where the system tells.
fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib * 1.024e-3)
}
