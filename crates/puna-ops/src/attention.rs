//! Causal attention of whole sequences and its backward pass, in blocks of queries: weights of a block are in memory,
//! never those of all queries. Grouped queries read the keys of their group (arXiv 2305.13245).
//!
//! # The sums
//! Scores, outputs and gradients are sums of [`super::gemm`]'s order, over elements of a head, over keys from the first
//! on, or over queries of a block. Gradients of keys and values add those of blocks in ascending order, query head by
//! query head. A row's exponentials are summed key `j` in lane `j mod L`, then lanes, halves first. Masked weights
//! are zeros that take part.

use std::ops::Range;

use puna_kernels::simd::{Simd, exp};
use puna_kernels::{Cpu, with_scratch};

use crate::gemm::{
    Mat, Out, Packed, Precision, Task, Terms, dispatch, multiply, pack_cols, packed_len,
    scratch_len,
};
use crate::heads::HeadShape;
use crate::max::max;

/// Queries in a block; a multiple of the rows of every instruction set's tile.
const BLOCK: usize = 48;

/// For each token of `[B, T]`, the first token of its sequence that it sees, itself at the latest; with packed documents
/// the beginning of its own. `None` lets each see its whole past.
pub type Starts<'a> = Option<&'a [u32]>;

/// `out[t] = Σ_j p[t,j]·v[j]`, `p[t,j] = e^(q[t]·k[j]/√H) / Σ…` over the `j ≤ t` that `t` sees.
///
/// `groups` `[B, K, N/K + 2, T, H]` are queries, keys and values as [`super::rows_to_groups`] leaves them; `out` is
/// `[B, N, T, H]`; `log_sums` `[B, N, T]` receives the logarithms of the denominators.
///
/// # Panics
/// When lengths do not fit.
pub fn attention(
    cpu: &Cpu,
    precision: Precision,
    shape: HeadShape,
    groups: &[f32],
    starts: Starts<'_>,
    out: &mut [f32],
    log_sums: &mut [f32],
) {
    let group_len = check(shape, groups, starts, out, log_sums);
    let (n, t) = (shape.group_size(), shape.seq_len);
    cpu.pool().run_zip(
        [(out, n * shape.head_len()), (log_sums, n * t)],
        &|task, [out, log_sums]| {
            let group = Group::new(shape, groups, group_len, starts, task);
            with_scratch(Forward::scratch_len(shape), |scratch| {
                dispatch(cpu, precision, Forward { group, out, log_sums, scratch });
            });
        },
    );
}

/// Gradients of [`attention`]: `d_groups` `[B, K, N/K + 2, T, H]` from `d_out` `[B, N, T, H]`, recomputing weights from
/// `log_sums`: `dv[j] = Σ p·d_out`, `ds = p·(d_out·v[j] − d_out·out)/√H`, `dq = Σ_j ds·k`, `dk = Σ_t ds·q`
/// (arXiv 2205.14135, appendix B).
///
/// # Panics
/// When lengths do not fit.
#[expect(clippy::too_many_arguments, reason = "what forward read and wrote, and gradients")]
pub fn attention_backward(
    cpu: &Cpu,
    precision: Precision,
    shape: HeadShape,
    groups: &[f32],
    starts: Starts<'_>,
    out: &[f32],
    log_sums: &[f32],
    d_out: &[f32],
    d_groups: &mut [f32],
) {
    let group_len = check(shape, groups, starts, out, log_sums);
    assert_eq!(d_out.len(), out.len(), "attention_backward: elements of d_out");
    assert_eq!(d_groups.len(), groups.len(), "attention_backward: elements of d_groups");
    cpu.pool().run_chunks(d_groups, group_len, &|task, d_group| {
        let group = Group::new(shape, groups, group_len, starts, task);
        let n = shape.group_size();
        let heads = task * n * shape.head_len()..(task + 1) * n * shape.head_len();
        let log_sums = &log_sums[task * n * shape.seq_len..][..n * shape.seq_len];
        let (out, d_out) = (&out[heads.clone()], &d_out[heads]);
        with_scratch(Backward::scratch_len(shape), |scratch| {
            dispatch(cpu, precision, Backward { group, out, log_sums, d_out, d_group, scratch });
        });
    });
}

/// Asserts the lengths, and returns that of a group.
fn check(
    shape: HeadShape,
    groups: &[f32],
    starts: Starts<'_>,
    out: &[f32],
    log_sums: &[f32],
) -> usize {
    let n_rows = shape.n_rows();
    assert_eq!(groups.len(), n_rows * shape.row_len(), "attention: elements of groups");
    assert_eq!(out.len(), n_rows * shape.n_heads * shape.head_dim, "attention: elements of out");
    assert_eq!(log_sums.len(), n_rows * shape.n_heads, "attention: denominators");
    assert!(
        starts.is_none_or(|starts| starts.len() == n_rows),
        "attention: a start for each token"
    );
    (shape.group_size() + 2) * shape.head_len()
}

/// One key head of one sequence, with the queries that share it.
#[derive(Clone, Copy)]
struct Group<'a> {
    shape: HeadShape,
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    starts: Starts<'a>,
}

impl<'a> Group<'a> {
    fn new(shape: HeadShape, groups: &'a [f32], len: usize, starts: Starts<'a>, i: usize) -> Self {
        let (queries, rest) = groups[i * len..(i + 1) * len].split_at(len - 2 * shape.head_len());
        let (keys, values) = rest.split_at(shape.head_len());
        let seq = i / shape.n_kv_heads;
        let starts = starts.map(|starts| &starts[seq * shape.seq_len..][..shape.seq_len]);
        Self { shape, queries, keys, values, starts }
    }

    /// The keys that query `t` sees.
    fn seen(&self, t: usize) -> Range<usize> {
        self.starts.map_or(0, |starts| starts[t] as usize)..t + 1
    }

    /// `[T, H]`
    fn mat<'b>(&self, head: &'b [f32]) -> Mat<'b> {
        Mat::new(head, self.shape.seq_len, self.shape.head_dim)
    }
}

/// Blocks of queries.
fn blocks(seq_len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..seq_len).step_by(BLOCK).map(move |first| first..seq_len.min(first + BLOCK))
}

/// Columns of a product whose terms are a head's elements: one for each key.
fn by_elements<'a>(shape: HeadShape, tiles: &'a [f32], n_cols: usize) -> Packed<'a> {
    Packed { tiles, n_terms: shape.head_dim, n_cols }
}

/// Columns of a product whose terms are keys: one for each element of a head.
fn by_keys(shape: HeadShape, tiles: &[f32]) -> Packed<'_> {
    Packed { tiles, n_terms: shape.seq_len, n_cols: shape.head_dim }
}

struct Forward<'a> {
    group: Group<'a>,
    out: &'a mut [f32],
    log_sums: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Forward<'_> {
    fn scratch_len(shape: HeadShape) -> usize {
        let (t, h) = (shape.seq_len, shape.head_dim);
        packed_len(h, t) + packed_len(t, h) + BLOCK * t + scratch_len(BLOCK, h.max(t))
    }
}

impl Task for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd, T: Terms<S>>(self, s: S, terms: T) {
        let Self { group, out, log_sums, scratch } = self;
        let shape = group.shape;
        let (t, h) = (shape.seq_len, shape.head_dim);
        let (keys, scratch) = scratch.split_at_mut(packed_len(h, t));
        let (values, scratch) = scratch.split_at_mut(packed_len(t, h));
        let (weights, scratch) = scratch.split_at_mut(BLOCK * t);
        pack_cols(s, terms, group.mat(group.keys).t(), 0..t, keys);
        pack_cols(s, terms, group.mat(group.values), 0..h, values);
        for (head, queries) in group.queries.chunks_exact(t * h).enumerate() {
            for block in blocks(t) {
                let n_keys = block.end;
                let weights = &mut weights[..block.len() * n_keys];
                let q = group.mat(queries).rows(block.clone());
                multiply(
                    s,
                    terms,
                    q,
                    by_elements(shape, keys, n_keys),
                    (weights, n_keys),
                    Out::Set,
                    scratch,
                );
                for (row, t) in weights.chunks_exact_mut(n_keys).zip(block.clone()) {
                    log_sums[head * shape.seq_len + t] = softmax(s, row, group.seen(t), scale(h));
                }
                let p = Mat::new(weights, block.len(), n_keys);
                let out = &mut out[head * t * h..][block.start * h..block.end * h];
                multiply(s, terms, p, by_keys(shape, values), (out, h), Out::Set, scratch);
            }
        }
    }
}

/// `1/√H`
fn scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

/// Turns scores into weights: `e^(scale·x)` over their sum where `seen`, zero elsewhere. Returns the logarithm of the
/// sum.
#[inline(always)]
fn softmax<S: Simd>(s: S, row: &mut [f32], seen: Range<usize>, scale: f32) -> f32 {
    row[..seen.start].fill(0.0);
    row[seen.end..].fill(0.0);
    let row = &mut row[..seen.end];
    let max = max(s, &row[seen.start..]);
    let shift = s.splat(-max * scale);
    // Lanes are those of the whole row, so that they do not depend on where it begins to be seen.
    let mut sum = s.splat(0.0);
    for i in (seen.start / S::LANES * S::LANES..seen.end).step_by(S::LANES) {
        let end = seen.end.min(i + S::LANES);
        let v = exp(s, s.mul_add(s.load_partial(&row[i..end]), s.splat(scale), shift));
        s.store_partial(v, &mut row[i..end]);
        row[i..end.min(seen.start.max(i))].fill(0.0);
        sum = s.add(sum, s.load_partial(&row[i..end]));
    }
    let sum = s.sum(sum);
    let part = s.splat(1.0 / sum);
    for weights in row[seen.start..].chunks_mut(S::LANES) {
        s.store_partial(s.mul(s.load_partial(weights), part), weights);
    }
    max * scale + sum.ln()
}

struct Backward<'a> {
    group: Group<'a>,
    out: &'a [f32],
    log_sums: &'a [f32],
    d_out: &'a [f32],
    d_group: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Backward<'_> {
    fn scratch_len(shape: HeadShape) -> usize {
        let (t, h) = (shape.seq_len, shape.head_dim);
        2 * packed_len(h, t)
            + packed_len(t, h)
            + 2 * packed_len(BLOCK, h)
            + 2 * BLOCK * t
            + scratch_len(BLOCK, h.max(t)).max(scratch_len(t, BLOCK))
    }
}

impl Task for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd, T: Terms<S>>(self, s: S, terms: T) {
        let Self { group, out, log_sums, d_out, d_group, scratch } = self;
        let shape = group.shape;
        let (t, h) = (shape.seq_len, shape.head_dim);
        let (keys, scratch) = scratch.split_at_mut(packed_len(h, t));
        let (values, scratch) = scratch.split_at_mut(packed_len(h, t));
        let (keys_by_key, scratch) = scratch.split_at_mut(packed_len(t, h));
        let (q_packed, scratch) = scratch.split_at_mut(packed_len(BLOCK, h));
        let (d_out_packed, scratch) = scratch.split_at_mut(packed_len(BLOCK, h));
        let (weights, scratch) = scratch.split_at_mut(BLOCK * t);
        let (d_scores, scratch) = scratch.split_at_mut(BLOCK * t);
        pack_cols(s, terms, group.mat(group.keys).t(), 0..t, keys);
        pack_cols(s, terms, group.mat(group.values).t(), 0..t, values);
        pack_cols(s, terms, group.mat(group.keys), 0..h, keys_by_key);
        let (d_queries, d_rest) = d_group.split_at_mut(group.queries.len());
        d_rest.fill(0.0);
        let (d_keys, d_values) = d_rest.split_at_mut(t * h);
        for (head, queries) in group.queries.chunks_exact(t * h).enumerate() {
            let of_head = head * t * h..(head + 1) * t * h;
            let (out, d_out) = (&out[of_head.clone()], &d_out[of_head.clone()]);
            let d_queries = &mut d_queries[of_head];
            for block in blocks(t) {
                let (n_rows, n_keys) = (block.len(), block.end);
                let weights = &mut weights[..n_rows * n_keys];
                let d_scores = &mut d_scores[..n_rows * n_keys];
                let q = group.mat(queries).rows(block.clone());
                let d = group.mat(d_out).rows(block.clone());
                multiply(
                    s,
                    terms,
                    q,
                    by_elements(shape, keys, n_keys),
                    (weights, n_keys),
                    Out::Set,
                    scratch,
                );
                multiply(
                    s,
                    terms,
                    d,
                    by_elements(shape, values, n_keys),
                    (d_scores, n_keys),
                    Out::Set,
                    scratch,
                );
                for (i, t) in block.clone().enumerate() {
                    let row = i * n_keys..(i + 1) * n_keys;
                    let of_token = t * h..(t + 1) * h;
                    let pull = dot(s, &out[of_token.clone()], &d_out[of_token]);
                    let (p, ds) = (&mut weights[row.clone()], &mut d_scores[row]);
                    let log_sum = log_sums[head * shape.seq_len + t];
                    softmax_backward(s, p, ds, group.seen(t), scale(h), log_sum, pull);
                }
                let p = Mat::new(weights, n_rows, n_keys);
                let ds = Mat::new(d_scores, n_rows, n_keys);
                let dq = &mut d_queries[block.start * h..block.end * h];
                multiply(s, terms, ds, by_keys(shape, keys_by_key), (dq, h), Out::Set, scratch);
                // A block's packed tiles have as many terms as it has queries.
                let packed = |tiles| Packed { tiles, n_terms: n_rows, n_cols: h };
                pack_cols(s, terms, q, 0..h, &mut q_packed[..packed_len(n_rows, h)]);
                pack_cols(s, terms, d, 0..h, &mut d_out_packed[..packed_len(n_rows, h)]);
                multiply(s, terms, ds.t(), packed(q_packed), (d_keys, h), Out::Add, scratch);
                multiply(s, terms, p.t(), packed(d_out_packed), (d_values, h), Out::Add, scratch);
            }
        }
    }
}

/// From scores and `d_out·v` to weights and the gradient of the scores, where `seen`; zeros elsewhere.
#[inline(always)]
fn softmax_backward<S: Simd>(
    s: S,
    p: &mut [f32],
    ds: &mut [f32],
    seen: Range<usize>,
    scale: f32,
    log_sum: f32,
    pull: f32,
) {
    for i in (0..seen.end).step_by(S::LANES) {
        let end = seen.end.min(i + S::LANES);
        let scores = s.load_partial(&p[i..end]);
        let weights = exp(s, s.mul_add(scores, s.splat(scale), s.splat(-log_sum)));
        let d = s.sub(s.load_partial(&ds[i..end]), s.splat(pull));
        let d = s.mul(s.mul(weights, d), s.splat(scale));
        s.store_partial(weights, &mut p[i..end]);
        s.store_partial(d, &mut ds[i..end]);
    }
    for v in [p, ds] {
        v[..seen.start].fill(0.0);
        v[seen.end..].fill(0.0);
    }
}

/// `Σ x[i]·y[i]`, element `i` in lane `i mod L`, then lanes, halves first.
#[inline(always)]
fn dot<S: Simd>(s: S, x: &[f32], y: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (x, y) in x.chunks(S::LANES).zip(y.chunks(S::LANES)) {
        sum = s.mul_add(s.load_partial(x), s.load_partial(y), sum);
    }
    s.sum(sum)
}

#[cfg(test)]
mod tests {
    use puna_kernels::Isa;

    use super::*;
    use crate::testing::{
        assert_gradient, assert_same_for_any_threads, cpus, finite_differences, random,
    };

    const F32: Precision = Precision::F32;

    fn shape(seq_len: usize, n_heads: usize, n_kv_heads: usize, head_dim: usize) -> HeadShape {
        HeadShape { n_seqs: 2, seq_len, n_heads, n_kv_heads, head_dim }
    }

    /// Every token sees from the last multiple of `len` of its sequence on.
    fn documents(shape: HeadShape, len: usize) -> Vec<u32> {
        (0..shape.n_rows()).map(|row| (row % shape.seq_len / len * len) as u32).collect()
    }

    /// The formula in f64.
    fn formula(shape: HeadShape, groups: &[f64], starts: Starts<'_>) -> Vec<f64> {
        let (n, t_len, h) = (shape.group_size(), shape.seq_len, shape.head_dim);
        let mut out = Vec::new();
        for (i, group) in groups.chunks((n + 2) * t_len * h).enumerate() {
            let seq = i / shape.n_kv_heads;
            let (keys, values) = (&group[n * t_len * h..], &group[(n + 1) * t_len * h..]);
            for t in 0..n * t_len {
                let q = &group[t * h..][..h];
                let t = t % t_len;
                let start = starts.map_or(0, |starts| starts[seq * t_len + t] as usize);
                let dot = |j: usize| q.iter().zip(&keys[j * h..]).map(|(a, b)| a * b).sum::<f64>();
                let p: Vec<f64> = (start..=t).map(|j| (dot(j) / (h as f64).sqrt()).exp()).collect();
                let sum: f64 = p.iter().sum();
                for e in 0..h {
                    let terms = p.iter().zip(start..).map(|(p, j)| p / sum * values[j * h + e]);
                    out.push(terms.sum());
                }
            }
        }
        out
    }

    fn run(
        cpu: &Cpu,
        precision: Precision,
        shape: HeadShape,
        groups: &[f32],
        starts: Starts<'_>,
    ) -> (Vec<f32>, Vec<f32>) {
        let n = shape.n_rows() * shape.n_heads;
        let (mut out, mut log_sums) = (vec![f32::NAN; n * shape.head_dim], vec![f32::NAN; n]);
        attention(cpu, precision, shape, groups, starts, &mut out, &mut log_sums);
        (out, log_sums)
    }

    #[test]
    fn outputs_and_gradients_equal_the_formula() {
        for (shape, doc_len) in [
            (shape(5, 2, 2, 4), 0),
            (shape(9, 4, 2, 6), 4),
            (shape(1, 1, 1, 2), 0),
            (shape(7, 3, 1, 8), 3),
        ] {
            let groups: Vec<f32> =
                random(1, shape.n_rows() * shape.row_len()).iter().map(|v| v * 2.0).collect();
            let all: Vec<f64> = groups.iter().map(|&v| f64::from(v)).collect();
            let documents = (doc_len > 0).then(|| documents(shape, doc_len));
            let starts = documents.as_deref();
            let d_out = random(2, shape.n_rows() * shape.n_heads * shape.head_dim);
            let expected = formula(shape, &all, starts);
            let gradient = finite_differences(&all, |all| {
                let out = formula(shape, all, starts);
                out.iter().zip(&d_out).map(|(o, &d)| o * f64::from(d)).sum()
            });
            for cpu in cpus() {
                let (out, log_sums) = run(&cpu, F32, shape, &groups, starts);
                assert_gradient("out", &out, &expected);
                let mut d = vec![f32::NAN; groups.len()];
                attention_backward(
                    &cpu, F32, shape, &groups, starts, &out, &log_sums, &d_out, &mut d,
                );
                assert_gradient("d_groups", &d, &gradient);
            }
        }
    }

    #[test]
    fn blocks_of_queries_join_without_a_seam() {
        let shape = shape(2 * BLOCK + 5, 2, 1, 10);
        let groups = random(1, shape.n_rows() * shape.row_len());
        let all: Vec<f64> = groups.iter().map(|&v| f64::from(v)).collect();
        let documents = documents(shape, 31);
        for starts in [None, Some(&documents[..])] {
            for cpu in cpus() {
                let (out, log_sums) = run(&cpu, F32, shape, &groups, starts);
                assert_gradient("out", &out, &formula(shape, &all, starts));
                // The gradient along one direction.
                let (d_out, direction) = (random(2, out.len()), random(3, groups.len()));
                let mut d = vec![f32::NAN; groups.len()];
                attention_backward(
                    &cpu, F32, shape, &groups, starts, &out, &log_sums, &d_out, &mut d,
                );
                let slope: f64 = d.iter().zip(&direction).map(|(&a, &b)| f64::from(a * b)).sum();
                let along = |step: &[f64]| {
                    let moved: Vec<f64> = all
                        .iter()
                        .zip(&direction)
                        .map(|(v, &d)| v + step[0] * f64::from(d))
                        .collect();
                    let out = formula(shape, &moved, starts);
                    out.iter().zip(&d_out).map(|(o, &d)| o * f64::from(d)).sum()
                };
                let expected = finite_differences(&[0.0], along)[0];
                assert!(
                    (slope - expected).abs() < 1e-4 * expected.abs().max(1.0),
                    "{slope}, {expected}"
                );
            }
        }
    }

    #[test]
    fn bf16_is_near_f32_and_threads_change_no_bit() {
        let shape = shape(BLOCK + 5, 4, 2, 10);
        let groups = random(1, shape.n_rows() * shape.row_len());
        let d_out = random(2, shape.n_rows() * shape.n_heads * shape.head_dim);
        for isa in Isa::available().into_iter().filter(|&isa| Precision::Bf16.is_available(isa)) {
            let both = |n_threads, precision| {
                let cpu = Cpu::with_isa(isa, n_threads).unwrap();
                let (out, log_sums) = run(&cpu, precision, shape, &groups, None);
                let mut d = vec![0.0; groups.len()];
                attention_backward(
                    &cpu, precision, shape, &groups, None, &out, &log_sums, &d_out, &mut d,
                );
                [out, d]
            };
            let found = both(1, Precision::Bf16);
            for (found, exact) in found.iter().zip(both(1, F32)) {
                let largest = exact.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                for (i, (f, e)) in found.iter().zip(&exact).enumerate() {
                    assert!((f - e).abs() < 0.02 * largest, "{isa}: {f} at {i}, in f32 {e}");
                }
            }
            for (a, b) in both(7, Precision::Bf16).iter().zip(&found) {
                crate::testing::assert_same_bits("threads", a, b);
            }
        }
    }

    #[test]
    fn threads_and_company_change_no_bit() {
        let shape = shape(100, 4, 2, 16);
        let groups = random(1, shape.n_rows() * shape.row_len());
        let d_out = random(2, shape.n_rows() * shape.n_heads * shape.head_dim);
        let backward = |cpu: &Cpu, precision, shape: HeadShape, groups: &[f32], d_out: &[f32]| {
            let (out, log_sums) = run(cpu, precision, shape, groups, None);
            let mut d = vec![0.0; groups.len()];
            attention_backward(cpu, precision, shape, groups, None, &out, &log_sums, d_out, &mut d);
            [out, d].concat()
        };
        assert_same_for_any_threads(|cpu| backward(cpu, F32, shape, &groups, &d_out));
        for cpu in cpus() {
            let together = backward(&cpu, F32, shape, &groups, &d_out);
            let one = HeadShape { n_seqs: 1, ..shape };
            let second =
                backward(&cpu, F32, one, &groups[groups.len() / 2..], &d_out[d_out.len() / 2..]);
            let n_out = d_out.len();
            crate::testing::assert_same_bits(
                "out",
                &together[n_out / 2..n_out],
                &second[..n_out / 2],
            );
            crate::testing::assert_same_bits(
                "d",
                &together[n_out + groups.len() / 2..],
                &second[n_out / 2..],
            );
        }
    }
}
