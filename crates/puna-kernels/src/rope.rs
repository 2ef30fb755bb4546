//! Rotary position embedding (arXiv 2104.09864): element pairs of each head turn by an angle that grows with
//! the position.

use puna_core::RopeLayout;

use crate::Cpu;
use crate::simd::{Op, Simd};

/// Heads' elements per task.
const TASK_LEN: usize = 16 * 1024;

/// Cosines and sines of every position and frequency: `[n_positions, H/2]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    half: usize,
    n_positions: usize,
    /// By position, the `H/2` cosines, then the `H/2` sines.
    turns: Vec<f32>,
}

impl RopeTable {
    /// Computes `cos(p·fᵢ)·magnitude` and `sin(p·fᵢ)·magnitude` in f64 for `p` below `n_positions`, rounded once.
    ///
    /// `freqs` are the `H/2` frequencies in radians per position, context scaling included; `magnitude` is
    /// 1, or YaRN's attention factor.
    #[must_use]
    pub fn new(freqs: &[f64], n_positions: usize, magnitude: f32) -> Self {
        let half = freqs.len();
        let mut turns = vec![0.0; n_positions * 2 * half];
        if half > 0 {
            for (p, turn) in turns.chunks_exact_mut(2 * half).enumerate() {
                for (i, freq) in freqs.iter().enumerate() {
                    let (sin, cos) = (p as f64 * freq).sin_cos();
                    turn[i] = (cos * f64::from(magnitude)) as f32;
                    turn[half + i] = (sin * f64::from(magnitude)) as f32;
                }
            }
        }
        Self { half, n_positions, turns }
    }

    /// Width of the heads that the table turns, `H`.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        2 * self.half
    }

    /// Positions in the table.
    #[must_use]
    pub fn n_positions(&self) -> usize {
        self.n_positions
    }

    /// The `H/2` cosines and sines of one position.
    ///
    /// # Panics
    /// When the table has no such position.
    #[must_use]
    pub fn turn(&self, position: usize) -> (&[f32], &[f32]) {
        let n = self.n_positions;
        assert!(position < n, "position {position} in a table of {n}");
        self.turns[position * 2 * self.half..][..2 * self.half].split_at(self.half)
    }
}

/// Turns every head of `x`, which is `[T, n_heads, H]`: pair `(a, b)` number `i` of row `t` becomes
/// `(a·c − b·s, a·s + b·c)` with `c`, `s` of `positions[t]` and frequency `i`. `layout` says which elements
/// are a pair. Both layouts round alike.
///
/// # Panics
/// When `x` is not `positions.len()` rows of `n_heads` heads of the table's width, or a position is beyond
/// the table.
pub fn rope(
    cpu: &Cpu,
    x: &mut [f32],
    n_heads: usize,
    positions: &[usize],
    table: &RopeTable,
    layout: RopeLayout,
) {
    let row_len = n_heads * table.head_dim();
    assert_eq!(x.len(), positions.len() * row_len, "rope: elements of x");
    if x.is_empty() {
        return;
    }
    let rows_per_task = TASK_LEN.div_ceil(row_len);
    let token = cpu.token();
    cpu.pool().run_chunks(x, rows_per_task * row_len, &|task, rows| {
        let positions = &positions[task * rows_per_task..];
        for (row, &position) in rows.chunks_exact_mut(row_len).zip(positions) {
            let (cos, sin) = table.turn(position);
            token.dispatch(Turn { row, cos, sin, layout });
        }
    });
}

/// Turns all heads of one row. The loops are plain: compilers put them into vectors well.
struct Turn<'a> {
    row: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    layout: RopeLayout,
}

impl Op for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let half = self.cos.len();
        for head in self.row.chunks_exact_mut(2 * half) {
            match self.layout {
                RopeLayout::Interleaved => {
                    let (pairs, _) = head.as_chunks_mut::<2>();
                    for ((pair, &c), &s) in pairs.iter_mut().zip(self.cos).zip(self.sin) {
                        let [a, b] = *pair;
                        *pair = [a * c - b * s, a * s + b * c];
                    }
                }
                RopeLayout::Halves => {
                    let (low, high) = head.split_at_mut(half);
                    let pairs = low.iter_mut().zip(high);
                    for (((a, b), &c), &s) in pairs.zip(self.cos).zip(self.sin) {
                        (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{N_THREADS, assert_same_bits, cpus, random};

    fn freqs(head_dim: usize) -> Vec<f64> {
        (0..head_dim / 2).map(|i| 10_000f64.powf(-2.0 * i as f64 / head_dim as f64)).collect()
    }

    #[test]
    fn pairs_turn_by_the_angle_of_their_position() {
        for cpu in cpus() {
            for head_dim in [2, 10, 32, 64, 128] {
                let n_heads = 3;
                let positions = [0, 5, 4095];
                let table = RopeTable::new(&freqs(head_dim), 4096, 1.25);
                assert_eq!((table.head_dim(), table.n_positions()), (head_dim, 4096));
                let x = random(1, positions.len() * n_heads * head_dim);
                let mut y = x.clone();
                rope(&cpu, &mut y, n_heads, &positions, &table, RopeLayout::Interleaved);
                for (i, (x, y)) in x.chunks(2).zip(y.chunks(2)).enumerate() {
                    let (pair, row) = (i % (head_dim / 2), i / (head_dim / 2) / n_heads);
                    let angle = positions[row] as f64 * freqs(head_dim)[pair];
                    let (a, b) = (f64::from(x[0]), f64::from(x[1]));
                    let (s, c) = angle.sin_cos();
                    let expected = [1.25 * (a * c - b * s), 1.25 * (a * s + b * c)];
                    let bound = 3.0 * f64::from(f32::EPSILON) * 1.25 * (a.abs() + b.abs());
                    for k in 0..2 {
                        let error = (f64::from(y[k]) - expected[k]).abs();
                        assert!(error <= bound, "{} pair {i}: {y:?}, {expected:?}", cpu.isa());
                    }
                }
            }
        }
    }

    #[test]
    fn both_layouts_give_the_same_bits_in_their_own_order() {
        let (head_dim, half) = (10, 5);
        let table = RopeTable::new(&freqs(head_dim), 100, 1.0);
        for cpu in cpus() {
            let mut interleaved = random(2, head_dim);
            let mut halves: Vec<f32> =
                (0..head_dim).map(|i| interleaved[i % half * 2 + i / half]).collect();
            rope(&cpu, &mut interleaved, 1, &[77], &table, RopeLayout::Interleaved);
            rope(&cpu, &mut halves, 1, &[77], &table, RopeLayout::Halves);
            let back: Vec<f32> = (0..head_dim).map(|i| halves[i % 2 * half + i / 2]).collect();
            assert_same_bits("rope", &interleaved, &back);
        }
    }

    #[test]
    fn threads_and_company_change_no_bit() {
        let (n_heads, head_dim, n_rows) = (7, 96, 90);
        let table = RopeTable::new(&freqs(head_dim), 200, 1.0);
        let positions: Vec<usize> = (0..n_rows).map(|t| (t * 31) % 200).collect();
        let x = random(3, n_rows * n_heads * head_dim);
        for isa in Isa::available() {
            let mut expected = x.clone();
            let alone = Cpu::with_isa(isa, 1).unwrap();
            for (row, p) in expected.chunks_mut(n_heads * head_dim).zip(&positions) {
                rope(&alone, row, n_heads, &[*p], &table, RopeLayout::Halves);
            }
            for n_threads in N_THREADS {
                let cpu = Cpu::with_isa(isa, n_threads).unwrap();
                let mut y = x.clone();
                rope(&cpu, &mut y, n_heads, &positions, &table, RopeLayout::Halves);
                assert_same_bits("rope", &y, &expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "position 8 in a table of 8")]
    fn positions_beyond_the_table_are_refused() {
        let table = RopeTable::new(&freqs(4), 8, 1.0);
        let cpu = Cpu::with_isa(Isa::Scalar, 1).unwrap();
        rope(&cpu, &mut [0.0; 4], 1, &[8], &table, RopeLayout::Halves);
    }
}
