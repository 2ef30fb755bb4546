//! Speed of matrix products of every type, in GOP/s and in GB/s of weights read:
//! `cargo run --release -p puna-kernels --example matmul_speed [THREADS] [TYPES...]`.
//!
//! The matrix is 5632 × 2048, many times over, so that the caches near a core hold no copy. The fastest run counts.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Instant;

use puna_core::DType;
use puna_kernels::{Activations, Cpu, MatRef, matmul};

const ROWS: usize = 5632;
const COLS: usize = 2048;
const TOKENS: [usize; 4] = [1, 4, 48, 384];

fn main() {
    let mut args = std::env::args().skip(1);
    let n_threads = args.next().map_or(2, |n| n.parse().expect("a number of threads"));
    let mut dtypes: Vec<DType> = args.map(|name| name.parse().expect("a type")).collect();
    if dtypes.is_empty() {
        dtypes.extend(DType::ALL);
    }
    let cpu = Cpu::new(n_threads).expect("an instruction set");
    println!("{}, {n_threads} threads, {ROWS} × {COLS}", cpu.isa());
    println!("type   tokens    GOP/s    GB/s");
    for dtype in dtypes {
        for n_tokens in TOKENS {
            let seconds = seconds_per_product(&cpu, dtype, n_tokens);
            let ops = 2.0 * (ROWS * COLS * n_tokens) as f64;
            let bytes = (ROWS * dtype.row_bytes(COLS).expect("whole blocks")) as f64;
            let (gops, gb) = (ops / seconds / 1e9, bytes / seconds / 1e9);
            println!("{dtype:<6} {n_tokens:>6} {gops:>8.1} {gb:>7.2}");
        }
    }
}

/// The fastest of some products, each with another copy of the weights.
fn seconds_per_product(cpu: &Cpu, dtype: DType, n_tokens: usize) -> f64 {
    let n_bytes = ROWS * dtype.row_bytes(COLS).expect("whole blocks");
    let n_copies = (200 << 20) / n_bytes;
    // No byte is zero, so that no float is denormal.
    let data: Vec<u8> = (0..n_copies * n_bytes).map(|i| (i * 7 % 61 + 1) as u8).collect();
    let x: Vec<f32> = (0..n_tokens * COLS).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut y = vec![0.0; n_tokens * ROWS];
    let mut activations = Activations::default();
    let mut times = Vec::new();
    let start = Instant::now();
    for copy in data.chunks_exact(n_bytes).cycle() {
        let begin = Instant::now();
        activations.set(cpu, &x, n_tokens, COLS, &[dtype]);
        matmul(cpu, MatRef::new(dtype, ROWS, COLS, copy), &activations, &mut y);
        times.push(begin.elapsed().as_secs_f64());
        if times.len() >= 7 && start.elapsed().as_secs_f64() > 0.5 {
            break;
        }
    }
    times.into_iter().fold(f64::INFINITY, f64::min)
}
