//! How fast products are, by type of weights and number of tokens, beside the peaks of this machine.
//!
//! `cargo run --release -p puna-kernels --example products -- [TYPES [TOKENS [THREADS [ROWS COLS [MB]]]]]`, lists
//! with commas, such as `q4_0,q8_0 1,8,128 2`. Weights are read anew for every product, as in a network, from MB
//! megabytes of copies: fewer than the caches hold show what computing alone costs.

#![expect(clippy::print_stdout, reason = "an example that prints what it measures")]

use std::time::Instant;

use puna_core::{DType, Rng};
use puna_kernels::{Activations, Cpu, MatRef, matmul, peak, quantize};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).map_or(default, String::as_str).to_owned();
    let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let types = list(arg(0, "q4_0,q8_0,q4_k,q5_k,q6_k,bf16,f16,f32"));
    let tokens = list(arg(1, "1,2,4,8,16,128"));
    let cpu = Cpu::new(number(&arg(2, "2"))).expect("an instruction set");
    let (rows, cols) = (number(&arg(3, "2048")), number(&arg(4, "2048")));
    let n_bytes = number(&arg(5, "256")) << 20;
    let peaks = peak::measure(&cpu);
    println!("{} on {} threads: {peaks:?}", cpu.isa(), cpu.pool().n_threads());
    for name in types {
        let dtype: DType = name.parse().expect("a type");
        let weights = Weights::new(&cpu, dtype, rows, cols, n_bytes);
        for n_tokens in &tokens {
            weights.measure(&cpu, number(n_tokens), peaks.read_gb_s);
        }
    }
}

/// Copies of one matrix.
struct Weights {
    dtype: DType,
    rows: usize,
    cols: usize,
    copies: Vec<Vec<u8>>,
}

impl Weights {
    fn new(cpu: &Cpu, dtype: DType, rows: usize, cols: usize, n_bytes: usize) -> Self {
        let row_bytes = dtype.row_bytes(cols).expect("whole blocks");
        let mut rng = Rng::new(1, 0);
        let values: Vec<f32> =
            (0..cols).map(|_| (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 0.1).collect();
        let mut row = vec![0; row_bytes];
        quantize(cpu, dtype, cols, &values, None, &mut row);
        let matrix = row.repeat(rows);
        let n_copies = (n_bytes / matrix.len()).max(1);
        Self { dtype, rows, cols, copies: vec![matrix; n_copies] }
    }

    fn measure(&self, cpu: &Cpu, n_tokens: usize, read_gb_s: f64) {
        let Self { dtype, rows, cols, ref copies } = *self;
        let x: Vec<f32> = (0..n_tokens * cols).map(|i| (i as f32).sin()).collect();
        let mut acts = Activations::default();
        let mut y = vec![0.0; n_tokens * rows];
        let mut secs = Vec::new();
        let started = Instant::now();
        for data in copies.iter().cycle() {
            acts.set(cpu, &x, n_tokens, cols, &[dtype]);
            let start = Instant::now();
            matmul(cpu, MatRef::new(dtype, rows, cols, data), &acts, &mut y);
            secs.push(start.elapsed().as_secs_f64());
            if started.elapsed().as_secs_f64() > 0.5 && secs.len() > 20 {
                break;
            }
        }
        secs.sort_by(f64::total_cmp);
        let secs = secs[secs.len() / 4];
        let gb_s = copies[0].len() as f64 / secs / 1e9;
        println!(
            "{dtype:>5} x {n_tokens:<4} {:8.1} GOP/s {gb_s:8.1} GB/s, {:3.0} % of reading",
            2.0 * (rows * cols * n_tokens) as f64 / secs / 1e9,
            100.0 * gb_s / read_gb_s,
        );
    }
}
