//! How fast dense products are beside the peak of this machine.
//!
//! `cargo run --release -p puna-ops --example gemm -- [THREADS [M K N]]`

#![expect(clippy::print_stdout, reason = "an example that prints what it measures")]

use std::time::Instant;

use puna_kernels::{Cpu, peak};
use puna_ops::{Mat, Out, Precision, Products};

fn main() {
    let args: Vec<usize> =
        std::env::args().skip(1).map(|arg| arg.parse().expect("a number")).collect();
    let arg = |i: usize, default| args.get(i).copied().unwrap_or(default);
    let cpu = Cpu::new(arg(0, 2)).expect("an instruction set");
    let (m, k, n) = (arg(1, 1024), arg(2, 768), arg(3, 768));
    let peaks = peak::measure(&cpu);
    let (a, b) = (vec![1.0; m * k], vec![1.0; k * n]);
    let mut c = vec![0.0; m * n];
    let f32_peak = Some(peaks.f32_gflops);
    for (precision, peak) in [(Precision::F32, f32_peak), (Precision::Bf16, peaks.bf16_gflops)] {
        let Some(peak) = peak else { continue };
        let mut products = Products::new(precision);
        for (name, a, b) in [
            ("a b", Mat::new(&a, m, k), Mat::new(&b, k, n)),
            ("a bT", Mat::new(&a, m, k), Mat::new(&b, n, k).t()),
            ("aT b", Mat::new(&a, k, m).t(), Mat::new(&b, k, n)),
        ] {
            let mut best = f64::INFINITY;
            for _ in 0..9 {
                let start = Instant::now();
                products.gemm(&cpu, a, b, &mut c, Out::Add);
                best = best.min(start.elapsed().as_secs_f64());
            }
            let gflops = 2e-9 * (m * k * n) as f64 / best;
            println!(
                "{:>4} {name:>4}  {m} {k} {n}  {gflops:.1} GFLOP/s, {:.0} % of {peak:.0}",
                precision.name(),
                100.0 * gflops / peak
            );
        }
    }
}
