//! Between rows of tokens, as dense products have them, and heads, as attention has them.
//!
//! In *rows* `[B, T, (N + 2K)·H]` a token's queries lie head after head, then its keys, then its values: one product with
//! `wq`, `wk`, `wv` below each other. In *groups* `[B, K, N/K + 2, T, H]` each key head has the queries that share it, then
//! itself, then its values, each `[T, H]` in one piece. Going there, queries and keys turn by their position (RoPE,
//! arXiv 2104.09864, pairs interleaved); gradients on their way back turn back.

use puna_kernels::{Cpu, RopeTable};

/// Sequences and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Sequences, `B`.
    pub n_seqs: usize,
    /// Tokens of each, `T`.
    pub seq_len: usize,
    /// Query heads, `N`.
    pub n_heads: usize,
    /// Key and value heads, `K`, a divisor of `N`.
    pub n_kv_heads: usize,
    /// Width of a head, `H`.
    pub head_dim: usize,
}

impl HeadShape {
    /// Query heads that share keys and values.
    #[must_use]
    pub fn group_size(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Elements of one head of one sequence, `T·H`.
    #[must_use]
    pub fn head_len(&self) -> usize {
        self.seq_len * self.head_dim
    }

    /// Width of a row of queries, keys and values.
    #[must_use]
    pub fn row_len(&self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
    }

    /// Rows of tokens, `B·T`.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_seqs * self.seq_len
    }

    /// Where head `slot` of a group (queries, then keys, then values) starts in a row.
    fn column(&self, kv_head: usize, slot: usize) -> usize {
        let group = self.group_size();
        let head = match slot.checked_sub(group) {
            None => kv_head * group + slot,
            Some(kind) => self.n_heads + kind * self.n_kv_heads + kv_head,
        };
        head * self.head_dim
    }
}

/// Gathers groups from rows of queries, keys and values, and turns queries and keys.
///
/// # Panics
/// When lengths do not fit, or the table lacks a position.
pub fn rows_to_groups(
    cpu: &Cpu,
    shape: HeadShape,
    table: &RopeTable,
    rows: &[f32],
    groups: &mut [f32],
) {
    check(shape, table, rows.len(), groups.len());
    let (n_slots, row_len) = (shape.group_size() + 2, shape.row_len());
    cpu.pool().run_chunks(groups, shape.head_len(), &|task, head| {
        let (seq, kv_head, slot) = place(shape, n_slots, task);
        let column = shape.column(kv_head, slot);
        for (t, out) in head.chunks_exact_mut(shape.head_dim).enumerate() {
            let start = (seq * shape.seq_len + t) * row_len + column;
            out.copy_from_slice(&rows[start..start + shape.head_dim]);
            if slot < n_slots - 1 {
                turn(out, table.turn(t), 1.0);
            }
        }
    });
}

/// Puts gradients of groups into rows, turning those of queries and keys back.
///
/// # Panics
/// When lengths do not fit, or the table lacks a position.
pub fn groups_to_rows(
    cpu: &Cpu,
    shape: HeadShape,
    table: &RopeTable,
    groups: &[f32],
    rows: &mut [f32],
) {
    check(shape, table, rows.len(), groups.len());
    let n_slots = shape.group_size() + 2;
    cpu.pool().run_chunks(rows, shape.row_len(), &|task, row| {
        let (seq, t) = (task / shape.seq_len, task % shape.seq_len);
        for kv_head in 0..shape.n_kv_heads {
            for slot in 0..n_slots {
                let head = (seq * shape.n_kv_heads + kv_head) * n_slots + slot;
                let start = head * shape.head_len() + t * shape.head_dim;
                let out = &mut row[shape.column(kv_head, slot)..][..shape.head_dim];
                out.copy_from_slice(&groups[start..start + shape.head_dim]);
                if slot < n_slots - 1 {
                    turn(out, table.turn(t), -1.0);
                }
            }
        }
    });
}

/// Puts outputs of attention `[B, N, T, H]` into rows `[B, T, N·H]`.
///
/// # Panics
/// When lengths do not fit.
pub fn heads_to_rows(cpu: &Cpu, shape: HeadShape, heads: &[f32], rows: &mut [f32]) {
    let width = shape.n_heads * shape.head_dim;
    assert_eq!(rows.len(), shape.n_rows() * width, "heads_to_rows: elements of rows");
    assert_eq!(heads.len(), rows.len(), "heads_to_rows: elements of heads");
    cpu.pool().run_chunks(rows, width, &|task, row| {
        let (seq, t) = (task / shape.seq_len, task % shape.seq_len);
        for (head, out) in row.chunks_exact_mut(shape.head_dim).enumerate() {
            let start = (seq * shape.n_heads + head) * shape.head_len() + t * shape.head_dim;
            out.copy_from_slice(&heads[start..start + shape.head_dim]);
        }
    });
}

/// The way back of [`heads_to_rows`], for gradients.
///
/// # Panics
/// When lengths do not fit.
pub fn rows_to_heads(cpu: &Cpu, shape: HeadShape, rows: &[f32], heads: &mut [f32]) {
    let width = shape.n_heads * shape.head_dim;
    assert_eq!(rows.len(), shape.n_rows() * width, "rows_to_heads: elements of rows");
    assert_eq!(heads.len(), rows.len(), "rows_to_heads: elements of heads");
    cpu.pool().run_chunks(heads, shape.head_len(), &|task, out| {
        let (seq, head) = (task / shape.n_heads, task % shape.n_heads);
        for (t, out) in out.chunks_exact_mut(shape.head_dim).enumerate() {
            let start = (seq * shape.seq_len + t) * width + head * shape.head_dim;
            out.copy_from_slice(&rows[start..start + shape.head_dim]);
        }
    });
}

fn check(shape: HeadShape, table: &RopeTable, rows: usize, groups: usize) {
    assert_eq!(rows, shape.n_rows() * shape.row_len(), "elements of rows");
    assert_eq!(groups, rows, "elements of groups");
    assert_eq!(table.head_dim(), shape.head_dim, "width of the table's heads");
}

/// Sequence, key head and slot of a head of the groups.
fn place(shape: HeadShape, n_slots: usize, task: usize) -> (usize, usize, usize) {
    let group = task / n_slots;
    (group / shape.n_kv_heads, group % shape.n_kv_heads, task % n_slots)
}

/// Turns the pairs of one head; `direction` −1 turns back.
fn turn(head: &mut [f32], (cos, sin): (&[f32], &[f32]), direction: f32) {
    for ((pair, &c), &s) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
        let ([a, b], s) = (*pair, direction * s);
        *pair = [a * c - b * s, a * s + b * c];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, assert_same_for_any_threads, cpus, random};

    const SHAPE: HeadShape =
        HeadShape { n_seqs: 2, seq_len: 5, n_heads: 6, n_kv_heads: 2, head_dim: 4 };

    fn table() -> RopeTable {
        RopeTable::new(&[1.0, 0.01], 5, 1.0)
    }

    #[test]
    fn every_head_comes_to_its_place_and_turns_as_in_inference() {
        let rows = random(1, SHAPE.n_rows() * SHAPE.row_len());
        for cpu in cpus() {
            let mut groups = vec![f32::NAN; rows.len()];
            rows_to_groups(&cpu, SHAPE, &table(), &rows, &mut groups);
            let mut turned = rows.clone();
            let positions: Vec<usize> = (0..10).map(|row| row % 5).collect();
            // Queries and keys are heads 0..8 of a row, values 8..10.
            let mut values = Vec::new();
            let mut others = Vec::new();
            for row in turned.chunks(40) {
                others.extend_from_slice(&row[..32]);
                values.extend_from_slice(&row[32..]);
            }
            let layout = puna_core::RopeLayout::Interleaved;
            puna_kernels::rope(&cpu, &mut others, 8, &positions, &table(), layout);
            for (t, row) in turned.chunks_mut(40).enumerate() {
                row[..32].copy_from_slice(&others[t * 32..][..32]);
            }
            for (i, &found) in groups.iter().enumerate() {
                let (h, t, slot) = (i % 4, i / 4 % 5, i / 20 % 5);
                let (kv_head, seq) = (i / 100 % 2, i / 200);
                let head =
                    [3 * kv_head, 3 * kv_head + 1, 3 * kv_head + 2, 6 + kv_head, 8 + kv_head];
                let expected = turned[(seq * 5 + t) * 40 + head[slot] * 4 + h];
                assert!((found - expected).abs() <= 1e-6, "{found}, expected {expected} at {i}");
            }
        }
    }

    #[test]
    fn the_way_back_undoes_the_way_there() {
        let rows = random(1, SHAPE.n_rows() * SHAPE.row_len());
        for cpu in cpus() {
            let mut groups = vec![f32::NAN; rows.len()];
            rows_to_groups(&cpu, SHAPE, &table(), &rows, &mut groups);
            let mut back = vec![f32::NAN; rows.len()];
            groups_to_rows(&cpu, SHAPE, &table(), &groups, &mut back);
            for (a, b) in back.iter().zip(&rows) {
                assert!((a - b).abs() <= 1e-6, "{a}, expected {b}");
            }
            let rows = &rows[..SHAPE.n_rows() * 24];
            let (mut heads, mut back) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
            rows_to_heads(&cpu, SHAPE, rows, &mut heads);
            assert_eq!(heads[4..8], rows[24..28], "second token of the first head");
            heads_to_rows(&cpu, SHAPE, &heads, &mut back);
            assert_same_bits("heads", &back, rows);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let rows = random(1, SHAPE.n_rows() * SHAPE.row_len());
        assert_same_for_any_threads(|cpu| {
            let (mut groups, mut back) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
            rows_to_groups(cpu, SHAPE, &table(), &rows, &mut groups);
            groups_to_rows(cpu, SHAPE, &table(), &groups, &mut back);
            [groups, back].concat()
        });
    }
}
