//! Attention over the cache: the split into tasks, and what one task does.

use super::product::Product;
use super::tile::{read_keys, read_values};
use super::{KV_BLOCK_LEN, KvLayout, LayerKv, Span, check_spans};
use crate::math::exp;
use crate::scratch::with_scratch;
use crate::simd::{Op, Simd, prefetch_slice};
use crate::{Cpu, DisjointMut};

/// Query rows that one task aims to have: enough that reading a tile is a small part of the work, few
/// enough that they stay in the second-level cache.
const TASK_ROWS: usize = 64;
/// Below this many multiply-adds the pool is not worth its barrier.
const MIN_SHARED: usize = 64 * 1024;

/// Causal attention of the spans' queries over their sequences' cached positions.
///
/// `q` and `out` are `[T, N, H]`; head `n` reads KV head `n / (N / K)`. The spans' own keys and values must be
/// stored already. `scale` is usually `1/√H`. Rows of `out` that no span covers are left as they are. The
/// formula, and the order of its sums, are at the top of the module.
///
/// # Panics
/// When `K` does not divide `n_heads`, the rows are not whole, two spans share a row, or a span leaves the
/// batch, its block table or the cache.
pub fn attention(
    cpu: &Cpu,
    q: &[f32],
    n_heads: usize,
    cache: LayerKv<'_>,
    spans: &[Span<'_>],
    scale: f32,
    out: &mut [f32],
) {
    let KvLayout { n_kv_heads, head_dim, .. } = cache.layout;
    assert_eq!(q.len(), out.len(), "attention: elements of q and of out");
    assert_eq!(cache.k.len(), cache.v.len(), "attention: bytes of keys and of values");
    if q.is_empty() {
        return;
    }
    assert!(
        n_heads.is_multiple_of(n_kv_heads),
        "attention: {n_heads} heads, {n_kv_heads} KV heads"
    );
    assert!(q.len().is_multiple_of(n_heads * head_dim), "attention: {n_heads} heads of {head_dim}");
    check_spans(&cache.layout, spans, q.len() / (n_heads * head_dim), cache.k.len());
    check_rows_disjoint(spans);

    let heads_per_kv = n_heads / n_kv_heads;
    let tokens_per_task = (TASK_ROWS / heads_per_kv).max(1);
    let tasks_of = |span: &Span<'_>| span.n_tokens.div_ceil(tokens_per_task) * n_kv_heads;
    let n_tasks: usize = spans.iter().map(tasks_of).sum();
    let token = cpu.token();
    let out = DisjointMut::new(out);

    let task = |task: usize| {
        // Later queries see more positions: the longest tasks are handed out first.
        let mut rest = n_tasks - 1 - task;
        let mut remaining = spans.iter();
        let span = loop {
            let span = remaining.next().expect("tasks were counted over the same spans");
            match rest.checked_sub(tasks_of(span)) {
                Some(less) => rest = less,
                None => break span,
            }
        };
        let (kv_head, first_token) = (rest % n_kv_heads, rest / n_kv_heads * tokens_per_task);
        let group = Group {
            cache,
            span,
            kv_head,
            heads_per_kv,
            first_token,
            n_tokens: tokens_per_task.min(span.n_tokens - first_token),
        };
        with_scratch(group.scratch_len(), |scratch| {
            let len = heads_per_kv * head_dim;
            let start = |t: usize| {
                let row = span.first_row + first_token + t;
                (row * n_heads + kv_head * heads_per_kv) * head_dim
            };
            let mut work = group.carve(scratch);
            for (t, rows) in work.q.chunks_exact_mut(len).enumerate() {
                let q = &q[start(t)..][..len];
                rows.iter_mut().zip(q).for_each(|(scaled, q)| *scaled = q * scale);
            }
            token.dispatch(Attend { group: &group, work: &mut work });
            for t in 0..group.n_tokens {
                // SAFETY: each (row, KV head) belongs to one task, for no two spans share a row.
                let out = unsafe { out.part(start(t)..start(t) + len) };
                let rows = work.acc[t * heads_per_kv * work.stride..].chunks_exact(work.stride);
                for (out, row) in out.chunks_exact_mut(head_dim).zip(rows) {
                    out.copy_from_slice(&row[..head_dim]);
                }
            }
        });
    };
    let n_positions: usize = spans.iter().map(|s| s.n_tokens * (s.pos + s.n_tokens)).sum();
    if n_positions * n_heads * head_dim < MIN_SHARED {
        (0..n_tasks).for_each(task);
    } else {
        cpu.pool().run(n_tasks, &task);
    }
}

/// Asserts that no row belongs to two spans. Spans usually come in ascending order, which is quick to see.
fn check_rows_disjoint(spans: &[Span<'_>]) {
    let end = |s: &Span<'_>| s.first_row + s.n_tokens;
    if spans.is_sorted_by(|a, b| end(a) <= b.first_row) {
        return;
    }
    for (i, a) in spans.iter().enumerate() {
        for b in &spans[..i] {
            let apart = end(a) <= b.first_row || end(b) <= a.first_row;
            assert!(apart, "attention: spans at rows {} and {} overlap", a.first_row, b.first_row);
        }
    }
}

/// Consecutive tokens of one span, and the query heads of one KV head: what one task computes.
struct Group<'a> {
    cache: LayerKv<'a>,
    span: &'a Span<'a>,
    kv_head: usize,
    heads_per_kv: usize,
    /// The first token, counted within the span.
    first_token: usize,
    n_tokens: usize,
}

/// A task's memory. Rows are (token, head), token by token.
struct Work<'a> {
    /// Queries times scale: `[rows][H]`.
    q: &'a mut [f32],
    /// `Σ p·v`: `[rows][stride]`.
    acc: &'a mut [f32],
    /// The greatest score so far, by row.
    max: &'a mut [f32],
    /// `Σ p`, by row.
    sum: &'a mut [f32],
    /// The tile's keys: `[H][32]`.
    keys: &'a mut [f32],
    /// The tile's values: `[32][stride]`.
    values: &'a mut [f32],
    /// `H` rounded up to whole vectors.
    stride: usize,
}

/// Lanes of the widest instruction set: rows of values and accumulators are padded to a multiple of it.
const MAX_LANES: usize = 16;

impl Group<'_> {
    fn n_rows(&self) -> usize {
        self.n_tokens * self.heads_per_kv
    }

    fn stride(&self) -> usize {
        self.cache.layout.head_dim.next_multiple_of(MAX_LANES)
    }

    fn scratch_len(&self) -> usize {
        let (rows, head_dim) = (self.n_rows(), self.cache.layout.head_dim);
        (rows + KV_BLOCK_LEN) * (self.stride() + head_dim) + 2 * rows
    }

    /// Divides scratch memory, and sets what must start at zero.
    fn carve<'a>(&self, scratch: &'a mut [f32]) -> Work<'a> {
        let (rows, stride) = (self.n_rows(), self.stride());
        let head_dim = self.cache.layout.head_dim;
        let (keys, rest) = scratch.split_at_mut(KV_BLOCK_LEN * head_dim);
        let (values, rest) = rest.split_at_mut(KV_BLOCK_LEN * stride);
        let (acc, rest) = rest.split_at_mut(rows * stride);
        let (q, rest) = rest.split_at_mut(rows * head_dim);
        let (max, sum) = rest.split_at_mut(rows);
        if stride > head_dim {
            values.fill(0.0);
        }
        acc.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        Work { q, acc, max, sum, keys, values, stride }
    }

    /// Position of a row's token.
    fn pos(&self, row: usize) -> usize {
        self.span.pos + self.first_token + row / self.heads_per_kv
    }
}

/// Carries out one task; leaves the result in `work.acc`.
struct Attend<'a, 'b> {
    group: &'a Group<'a>,
    work: &'a mut Work<'b>,
}

impl Op for Attend<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { group, work } = self;
        let LayerKv { layout, k, v } = group.cache;
        let n_rows = group.n_rows();
        let last_pos = group.pos(n_rows - 1);
        let bytes_of = |block: u32| {
            let start = layout.tile_start(block, group.kv_head);
            start..start + layout.tile_bytes()
        };
        let blocks = &group.span.blocks[..=last_pos / KV_BLOCK_LEN];
        for (i, &block) in blocks.iter().enumerate() {
            let first_pos = i * KV_BLOCK_LEN;
            let n_valid = KV_BLOCK_LEN.min(last_pos + 1 - first_pos);
            let bytes = bytes_of(block);
            // A head's tiles lie apart, each for itself too short for hardware to foresee the next.
            if let Some(&next) = blocks.get(i + 1) {
                prefetch_slice(&k[bytes_of(next)]);
                prefetch_slice(&v[bytes_of(next)]);
            }
            read_keys(simd, &layout, &k[bytes.clone()], work.keys);
            read_values(simd, &layout, &v[bytes], n_valid, work.stride, work.values);

            // Rows before this one are of tokens before the tile.
            let mut row = first_pos.saturating_sub(group.pos(0)) * group.heads_per_kv;
            while row < n_rows {
                row += match n_rows - row {
                    8.. if S::N_REGISTERS >= 32 => {
                        attend_rows::<S, 8>(simd, group, work, row, first_pos)
                    }
                    4.. => attend_rows::<S, 4>(simd, group, work, row, first_pos),
                    2.. => attend_rows::<S, 2>(simd, group, work, row, first_pos),
                    _ => attend_rows::<S, 1>(simd, group, work, row, first_pos),
                };
            }
        }
        for (acc, sum) in work.acc.chunks_exact_mut(work.stride).zip(&*work.sum) {
            let inverse = 1.0 / sum;
            for x in acc {
                *x *= inverse;
            }
        }
    }
}

/// Takes `M` rows from `row` on through the tile whose first position is `first_pos`; returns `M`.
#[inline(always)]
fn attend_rows<S: Simd, const M: usize>(
    simd: S,
    group: &Group<'_>,
    work: &mut Work<'_>,
    row: usize,
    first_pos: usize,
) -> usize {
    let head_dim = group.cache.layout.head_dim;
    let mut n_valid = [0; M];
    for (i, n) in n_valid.iter_mut().enumerate() {
        *n = KV_BLOCK_LEN.min(group.pos(row + i) + 1 - first_pos);
    }

    let mut scores = [[0.0; KV_BLOCK_LEN]; M];
    Product::<M> {
        a: &work.q[row * head_dim..],
        a_stride: head_dim,
        n_terms: head_dim,
        b: work.keys,
        stride: KV_BLOCK_LEN,
        start: None,
    }
    .run(simd, scores.as_flattened_mut());

    let (max, sum) = (&mut work.max[row..][..M], &mut work.sum[row..][..M]);
    let mut alpha = [0.0; M];
    for i in 0..M {
        scores[i][n_valid[i]..].fill(f32::NEG_INFINITY);
        let new = greatest(simd, &scores[i]).max(max[i]);
        alpha[i] = max[i] - new;
        max[i] = new;
    }
    for chunk in alpha.chunks_mut(S::LANES) {
        simd.store_partial(exp(simd, simd.load_partial(chunk)), chunk);
    }
    for i in 0..M {
        sum[i] = sum[i] * alpha[i] + soften(simd, &mut scores[i], max[i]);
    }

    // Rows are in the order of their tokens: what the first one sees, all see.
    let (common, stride) = (n_valid[0], work.stride);
    let acc = &mut work.acc[row * stride..][..M * stride];
    let (a, b) = (scores.as_flattened(), &*work.values);
    Product::<M> { a, a_stride: KV_BLOCK_LEN, n_terms: common, b, stride, start: Some(alpha) }
        .run(simd, acc);
    for i in 1..M {
        if n_valid[i] > common {
            Product::<1> {
                a: &scores[i][common..],
                a_stride: 0,
                n_terms: n_valid[i] - common,
                b: &work.values[common * stride..],
                stride,
                start: Some([1.0]),
            }
            .run(simd, &mut acc[i * stride..][..stride]);
        }
    }
    M
}

/// The greatest score of a row.
#[inline(always)]
fn greatest<S: Simd>(simd: S, scores: &[f32; KV_BLOCK_LEN]) -> f32 {
    let mut max = simd.load(scores);
    for i in (S::LANES..KV_BLOCK_LEN).step_by(S::LANES) {
        max = simd.max(max, simd.load(&scores[i..]));
    }
    simd.max_lane(max)
}

/// Turns scores `s` into `e^(s − max)`; returns their sum.
#[inline(always)]
fn soften<S: Simd>(simd: S, scores: &mut [f32; KV_BLOCK_LEN], max: f32) -> f32 {
    let max = simd.splat(max);
    let mut sum = simd.splat(0.0);
    for i in (0..KV_BLOCK_LEN).step_by(S::LANES) {
        let p = exp(simd, simd.sub(simd.load(&scores[i..]), max));
        simd.store(p, &mut scores[i..]);
        sum = simd.add(sum, p);
    }
    simd.sum(sum)
}
