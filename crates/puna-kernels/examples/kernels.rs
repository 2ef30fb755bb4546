//! Speeds of the pool and of attention beside this machine's peaks, for one instruction set.
//!
//! `cargo run --release -p puna-kernels --example kernels [ISA] [N_THREADS]`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::hint::black_box;
use std::time::Instant;

use puna_core::KvType;
use puna_kernels::{
    Cpu, Isa, KV_BLOCK_LEN, KvLayout, LayerKv, LayerKvMut, Span, attention, kv_store, peak,
};

fn main() {
    let mut args = std::env::args().skip(1);
    let isa = args.next().map_or_else(
        || Isa::best().expect("an instruction set"),
        |name| name.parse().expect("an instruction set"),
    );
    let n_threads = args.next().map_or(2, |n| n.parse().expect("a number of threads"));
    let cpu = Cpu::with_isa(isa, n_threads).expect("an instruction set of this CPU");
    println!("{isa}, {n_threads} threads");
    println!("{:.1?}", peak::measure(&cpu));

    let empty = best_secs(200_000, || cpu.pool().run(n_threads, &|i| _ = black_box(i)));
    println!("pool: {:.0} ns for an operation without work", empty * 1e9);

    // (what, N, K, H, tokens, cached before). Short runs, so that some are undisturbed on a busy machine.
    let cases = [
        ("32 heads of 64 on 4, prefill 16 after 0", 32, 4, 64, 16, 0),
        ("32 heads of 64 on 4, prefill 16 after 2048", 32, 4, 64, 16, 2048),
        ("4 heads of 128, prefill 64 after 512", 4, 4, 128, 64, 512),
        ("32 heads of 64 on 4, decode after 2048", 32, 4, 64, 1, 2048),
        ("32 heads of 128, decode after 2048", 32, 32, 128, 1, 2048),
        ("12 heads of 64, decode after 512", 12, 12, 64, 1, 512),
    ];
    for kv_type in [KvType::F16, KvType::Q8_0] {
        for (what, n_heads, n_kv_heads, head_dim, n_tokens, pos) in cases {
            let layout = KvLayout { kv_type, n_kv_heads, head_dim };
            measure(&cpu, &format!("{what} {kv_type}"), layout, n_heads, n_tokens, pos);
        }
    }
}

fn measure(cpu: &Cpu, what: &str, layout: KvLayout, n_heads: usize, n_tokens: usize, pos: usize) {
    let n = pos + n_tokens;
    let blocks: Vec<u32> = (0..n.div_ceil(KV_BLOCK_LEN) as u32).collect();
    let mut k = vec![0; blocks.len() * layout.block_bytes()];
    let mut v = k.clone();
    let rows = values(n * layout.n_kv_heads * layout.head_dim);
    let all = Span { first_row: 0, n_tokens: n, pos: 0, blocks: &blocks };
    let store = best_secs(5, || {
        kv_store(cpu, LayerKvMut { layout, k: &mut k, v: &mut v }, &rows, &rows, &[all]);
    });

    let q = values(n_tokens * n_heads * layout.head_dim);
    let mut out = vec![0.0; q.len()];
    let span = Span { first_row: 0, n_tokens, pos, blocks: &blocks };
    let secs = best_secs(200, || {
        attention(cpu, &q, n_heads, LayerKv { layout, k: &k, v: &v }, &[span], 0.125, &mut out);
    });
    let n_pairs: usize = (pos + 1..=n).sum();
    let gflops = (4 * n_pairs * n_heads * layout.head_dim) as f64 / secs * 1e-9;
    let gb_s = (2 * blocks.len() * layout.block_bytes()) as f64 / secs * 1e-9;
    println!(
        "{what}: {:.1} us, {gflops:.0} GFLOP/s, {gb_s:.1} GB/s; storing {:.0} ns a token",
        secs * 1e6,
        store / n as f64 * 1e9
    );
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// The shortest of `n` runs, or their mean when each is too short to time.
fn best_secs(n: usize, mut run: impl FnMut()) -> f64 {
    if n >= 10_000 {
        let start = Instant::now();
        (0..n).for_each(|_| run());
        return start.elapsed().as_secs_f64() / n as f64;
    }
    let once = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..n).map(once).fold(f64::INFINITY, f64::min)
}
