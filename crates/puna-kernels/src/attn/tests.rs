//! Attention against a plain f64 computation, and bit for bit against itself.

use half::{bf16, f16};
use puna_core::KvType;
use puna_testkit::{U_F32, gamma};

use super::*;
use crate::testing::{N_THREADS, assert_same_bits, cpus, random};
use crate::{Cpu, Isa};

/// A layer's cache and the queries, keys and values of one sequence.
struct Case {
    layout: KvLayout,
    n_heads: usize,
    n_tokens: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new(kv_type: KvType, n_heads: usize, n_kv_heads: usize, head_dim: usize, n: usize) -> Self {
        let layout = KvLayout { kv_type, n_kv_heads, head_dim };
        let q = random(1, n * n_heads * head_dim).iter().map(|x| x * 3.0).collect();
        let k = random(2, n * n_kv_heads * head_dim).iter().map(|x| x * 3.0).collect();
        let v = random(3, n * n_kv_heads * head_dim);
        Self { layout, n_heads, n_tokens: n, q, k, v }
    }

    fn q_len(&self) -> usize {
        self.n_heads * self.layout.head_dim
    }

    fn kv_len(&self) -> usize {
        self.layout.n_kv_heads * self.layout.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.layout.head_dim as f32).sqrt()
    }

    /// The whole sequence in chunks of the given lengths, its blocks scattered over a cache that first holds
    /// infinities and NaNs.
    fn run(&self, cpu: &Cpu, chunks: impl IntoIterator<Item = usize>) -> Vec<f32> {
        let n_blocks = self.n_tokens.div_ceil(KV_BLOCK_LEN);
        let blocks: Vec<u32> = (0..n_blocks as u32).rev().map(|b| b * 2 + 1).collect();
        let mut k = vec![0xff; 2 * n_blocks * self.layout.block_bytes()];
        let mut v = k.clone();
        let mut out = vec![f32::NAN; self.q.len()];
        let mut pos = 0;
        for n_tokens in chunks {
            let n_tokens = n_tokens.min(self.n_tokens - pos);
            let span = Span { first_row: 0, n_tokens, pos, blocks: &blocks };
            let kv = pos * self.kv_len()..(pos + n_tokens) * self.kv_len();
            let q = pos * self.q_len()..(pos + n_tokens) * self.q_len();
            let cache = LayerKvMut { layout: self.layout, k: &mut k, v: &mut v };
            kv_store(cpu, cache, &self.k[kv.clone()], &self.v[kv], &[span]);
            let cache = LayerKv { layout: self.layout, k: &k, v: &v };
            let out = &mut out[q.clone()];
            attention(cpu, &self.q[q], self.n_heads, cache, &[span], self.scale(), out);
            pos += n_tokens;
            if pos == self.n_tokens {
                break;
            }
        }
        assert_eq!(pos, self.n_tokens, "the chunks cover the sequence");
        out
    }

    /// Asserts that `out` is attention over the rounded keys and values, within the error of f32.
    fn check(&self, what: &str, out: &[f32]) {
        let KvLayout { kv_type, n_kv_heads, head_dim } = self.layout;
        let (k, v) =
            (round_rows(kv_type, head_dim, &self.k), round_rows(kv_type, head_dim, &self.v));
        let row = |x: &[f32], n: usize, pos: usize, head: usize| -> Vec<f64> {
            x[(pos * n + head) * head_dim..][..head_dim].iter().map(|&x| f64::from(x)).collect()
        };
        for pos in 0..self.n_tokens {
            for head in 0..self.n_heads {
                let kv_head = head / (self.n_heads / n_kv_heads);
                let q = row(&self.q, self.n_heads, pos, head);
                let mut scores = Vec::new();
                let mut worst_score_error = 0f64;
                for j in 0..=pos {
                    let k = row(&k, n_kv_heads, j, kv_head);
                    let terms = q.iter().zip(&k).map(|(q, k)| q * k * f64::from(self.scale()));
                    scores.push(terms.clone().sum::<f64>());
                    let magnitude: f64 = terms.map(f64::abs).sum();
                    worst_score_error =
                        worst_score_error.max(gamma(head_dim + 2, U_F32) * magnitude);
                }
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let total: f64 = p.iter().sum();
                // A score off by e changes p by e relatively, and there is p above and below the line;
                // subtracting the maximum rounds; then sums of `pos + 1` terms and some tens of factors.
                let n_tiles = pos / KV_BLOCK_LEN + 1;
                let relative = 2.0 * (worst_score_error + 2.0 * max.abs().max(30.0) * U_F32)
                    + 2.0 * gamma(pos + 4 * n_tiles + 10, U_F32);
                for h in 0..head_dim {
                    let terms =
                        (0..=pos).map(|j| p[j] * row(&v, n_kv_heads, j, kv_head)[h] / total);
                    let expected: f64 = terms.clone().sum();
                    let bound = relative * terms.map(f64::abs).sum::<f64>();
                    let actual = f64::from(out[pos * self.q_len() + head * head_dim + h]);
                    let error = (actual - expected).abs();
                    assert!(
                        error <= bound,
                        "{what} pos {pos} head {head} element {h}: {actual}, expected {expected}, \
                         error {error:e} > {bound:e}"
                    );
                }
            }
        }
    }
}

/// What the cache keeps of rows of heads, by another way than the cache's.
fn round_rows(kv_type: KvType, head_dim: usize, rows: &[f32]) -> Vec<f32> {
    let heads = rows.chunks(head_dim);
    match kv_type {
        KvType::F32 => rows.to_vec(),
        KvType::F16 => rows.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
        KvType::BF16 => rows.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
        KvType::Q8_0 => heads.flat_map(|head| head.chunks(32).flat_map(round_q8_0)).collect(),
    }
}

fn round_q8_0(block: &[f32]) -> Vec<f32> {
    let d = block.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
    let stored = f16::from_f32(d).to_f32();
    block
        .iter()
        .map(|x| if d == 0.0 { 0.0 } else { (x * (1.0 / d)).round_ties_even() * stored })
        .collect()
}

#[test]
fn attention_equals_the_formula_for_every_cache_type() {
    for cpu in cpus() {
        for kv_type in KvType::ALL {
            let case = Case::new(kv_type, 4, 2, 48, 70);
            let out = case.run(&cpu, [70]);
            case.check(&format!("{} {kv_type}", cpu.isa()), &out);
        }
    }
}

#[test]
fn attention_equals_the_formula_for_every_shape() {
    let shapes =
        [(1, 1, 2), (2, 1, 8), (3, 3, 10), (5, 1, 16), (9, 3, 20), (8, 1, 64), (2, 2, 128)];
    for cpu in cpus() {
        for (n_heads, n_kv_heads, head_dim) in shapes {
            for kv_type in [KvType::F16, KvType::Q8_0] {
                for n_tokens in [1, 31, 33] {
                    let case = Case::new(kv_type, n_heads, n_kv_heads, head_dim, n_tokens);
                    let what = format!("{} {n_heads}/{n_kv_heads} of {head_dim}", cpu.isa());
                    case.check(&what, &case.run(&cpu, [n_tokens]));
                }
            }
        }
    }
}

#[test]
fn chunks_threads_and_company_change_no_bit() {
    for isa in Isa::available() {
        for (kv_type, n_heads, n_kv_heads, head_dim) in
            [(KvType::F16, 8, 1, 64), (KvType::Q8_0, 3, 3, 40), (KvType::F32, 6, 2, 10)]
        {
            let case = Case::new(kv_type, n_heads, n_kv_heads, head_dim, 150);
            let one_by_one = case.run(&Cpu::with_isa(isa, 1).unwrap(), [1; 150]);
            for n_threads in N_THREADS {
                let cpu = Cpu::with_isa(isa, n_threads).unwrap();
                for chunks in [vec![150], vec![32; 5], vec![7; 22], vec![1, 64, 2, 83]] {
                    let what = format!("{isa} {kv_type} {n_threads} threads, chunks {chunks:?}");
                    assert_same_bits(&what, &case.run(&cpu, chunks), &one_by_one);
                }
            }
        }
    }
}

#[test]
fn sequences_in_one_batch_do_not_touch_each_other() {
    let layout = KvLayout { kv_type: KvType::F16, n_kv_heads: 2, head_dim: 16 };
    let (n_heads, q_len, kv_len) = (4, 64, 32);
    // Rows of three sequences, the last with a row of nobody between them.
    let tables: [&[u32]; 3] = [&[4, 0], &[2], &[1, 3]];
    let spans: Vec<Span<'_>> = [(0, 40, 0), (40, 1, 0), (42, 50, 0)]
        .iter()
        .zip(tables)
        .map(|(&(first_row, n_tokens, pos), blocks)| Span { first_row, n_tokens, pos, blocks })
        .collect();
    let n_rows = 92;
    let (q, k, v) =
        (random(1, n_rows * q_len), random(2, n_rows * kv_len), random(3, n_rows * kv_len));
    for isa in Isa::available() {
        let run = |n_threads: usize, batches: &[&[Span<'_>]]| {
            let cpu = Cpu::with_isa(isa, n_threads).unwrap();
            let mut keys = vec![0; 5 * layout.block_bytes()];
            let mut values = keys.clone();
            let mut out = vec![7.0; q.len()];
            for spans in batches {
                let cache = LayerKvMut { layout, k: &mut keys, v: &mut values };
                kv_store(&cpu, cache, &k, &v, spans);
                let cache = LayerKv { layout, k: &keys, v: &values };
                attention(&cpu, &q, n_heads, cache, spans, 0.25, &mut out);
            }
            out
        };
        let alone = run(1, &[&spans[..1], &spans[1..2], &spans[2..]]);
        assert_eq!(alone[41 * q_len..42 * q_len], [7.0; 64], "a row of no span is left alone");
        for n_threads in N_THREADS {
            assert_same_bits("batch", &run(n_threads, &[&spans]), &alone);
        }
    }
}

#[test]
fn an_infinite_value_reaches_only_those_who_see_it() {
    for cpu in cpus() {
        let mut case = Case::new(KvType::F32, 2, 1, 8, 40);
        let n_before = 35 * case.q_len();
        let expected = case.run(&cpu, [40]);
        case.v[35 * 8] = f32::INFINITY;
        case.k[36 * 8] = f32::NAN;
        let out = case.run(&cpu, [40]);
        assert_same_bits("before", &out[..n_before], &expected[..n_before]);
        assert_eq!(out[n_before], f32::INFINITY);
        assert!(out[36 * case.q_len()..].iter().all(|x| x.is_nan()));
    }
}

#[test]
fn distant_scores_do_not_overflow() {
    for cpu in cpus() {
        let mut case = Case::new(KvType::F32, 1, 1, 2, 64);
        for x in case.q.iter_mut().chain(&mut case.k) {
            *x *= 1e4;
        }
        let out = case.run(&cpu, [64]);
        assert!(out.iter().all(|x| x.abs() <= 1.0), "{}: {out:?}", cpu.isa());
    }
}

#[test]
#[should_panic(expected = "block 3 of 2")]
fn blocks_beyond_the_cache_are_refused() {
    let layout = KvLayout { kv_type: KvType::F32, n_kv_heads: 1, head_dim: 2 };
    let (mut k, mut v) = (vec![0; 2 * layout.block_bytes()], vec![0; 2 * layout.block_bytes()]);
    let span = Span { first_row: 0, n_tokens: 1, pos: 0, blocks: &[3] };
    let cache = LayerKvMut { layout, k: &mut k, v: &mut v };
    kv_store(&Cpu::with_isa(Isa::Scalar, 1).unwrap(), cache, &[0.0; 2], &[0.0; 2], &[span]);
}

#[test]
#[should_panic(expected = "overlap")]
fn spans_that_share_rows_are_refused() {
    let layout = KvLayout { kv_type: KvType::F32, n_kv_heads: 1, head_dim: 2 };
    let bytes = vec![0; 2 * layout.block_bytes()];
    let cache = LayerKv { layout, k: &bytes, v: &bytes };
    let span = |first_row| Span { first_row, n_tokens: 2, pos: 0, blocks: &[0] };
    let cpu = Cpu::with_isa(Isa::Scalar, 1).unwrap();
    attention(&cpu, &[0.0; 6], 1, cache, &[span(0), span(1)], 1.0, &mut [0.0; 6]);
}
