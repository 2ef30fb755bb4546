//! Products of dense matrices of f32, in every combination of layouts that forward and backward need.
//!
//! # The sum of one output
//! Terms are cut into blocks of [`BLOCK_K`], the last may be shorter. A block's sum starts at zero and adds products
//! in ascending order, each by one fused multiply-add ([scalar](puna_kernels::Isa::Scalar): rounded apart). Blocks'
//! sums are added to the output in ascending order: to what it holds, or, when it is overwritten, the first takes its
//! place. Neither threads, tiles nor the other outputs matter.
//!
//! # How it is computed
//! As in Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): `b` is packed once by all
//! threads into tiles of columns, each task packs its rows of `a`, and a tile of outputs stays in registers while a
//! block of terms passes.

use std::ops::Range;

use puna_kernels::simd::{Op, Simd};
use puna_kernels::{Cpu, with_scratch};

/// Terms that are summed in registers before they are added to the output.
pub const BLOCK_K: usize = 256;
/// Rows of outputs in a task: with a block of terms they fit a cache of the second level.
const TASK_ROWS: usize = 96;
/// Floats of `b` that are packed at once.
const MOST_PACKED: usize = 2 << 20;
/// Columns in the widest tile of outputs.
const MAX_TILE_COLS: usize = 32;
/// Rows in the highest tile of outputs.
const MAX_TILE_ROWS: usize = 12;

/// A matrix `[rows, cols]` of f32 in memory: row by row, or column by column.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// From the first element on.
    data: &'a [f32],
    rows: usize,
    cols: usize,
    /// From a row to the next, and from a column to the next; one of them is 1.
    row_step: usize,
    col_step: usize,
}

impl<'a> Mat<'a> {
    /// The matrix `[rows, cols]` in `data`, row by row.
    ///
    /// # Panics
    /// When `data` has another length.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "elements of a matrix of {rows} x {cols}");
        Self { data, rows, cols, row_step: cols, col_step: 1 }
    }

    /// Its transpose, without moving anything.
    #[must_use]
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_step, col_step } = self;
        Self { data, rows: cols, cols: rows, row_step: col_step, col_step: row_step }
    }

    /// Some of its rows.
    ///
    /// # Panics
    /// When there are no such rows.
    #[must_use]
    pub fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let first = (rows.start * self.row_step).min(self.data.len());
        Self { data: &self.data[first..], rows: rows.len(), ..self }
    }
}

/// What becomes of the numbers that the outputs hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// They are overwritten.
    Set,
    /// The product is added to them.
    Add,
}

/// Working memory of [`gemm`], to be kept from one product to the next.
#[derive(Debug, Default)]
pub struct GemmScratch {
    packed: Vec<f32>,
}

/// `c[m, n] = Σ_k a[m, k]·b[k, n]`, or `c[m, n] += …`; `a` is `[M, K]`, `b` `[K, N]`, `c` `[M, N]`.
///
/// # Panics
/// When shapes do not fit.
pub fn gemm(cpu: &Cpu, scratch: &mut GemmScratch, a: Mat<'_>, b: Mat<'_>, c: &mut [f32], out: Out) {
    let (n_rows, n_terms, n_cols) = (a.rows, a.cols, b.cols);
    assert_eq!(b.rows, n_terms, "terms of both factors");
    assert_eq!(c.len(), n_rows * n_cols, "outputs of {n_rows} x {n_cols}");
    if n_terms == 0 && out == Out::Set {
        c.fill(0.0);
    }
    if c.is_empty() || n_terms == 0 {
        return;
    }
    let most_cols = (MOST_PACKED / n_terms / MAX_TILE_COLS).max(1) * MAX_TILE_COLS;
    let task_rows = task_rows(n_rows, cpu.pool().n_threads());
    for first_col in (0..n_cols).step_by(most_cols) {
        let cols = first_col..n_cols.min(first_col + most_cols);
        let len = packed_len(n_terms, cols.len());
        if scratch.packed.len() < len {
            scratch.packed.resize(len, 0.0);
        }
        let tiles = &mut scratch.packed[..len];
        // Whole tiles of any instruction set lie between multiples of the widest.
        cpu.pool().run_chunks(tiles, n_terms * MAX_TILE_COLS, &|task, packed| {
            let first = cols.start + task * MAX_TILE_COLS;
            let cols = first..cols.end.min(first + MAX_TILE_COLS);
            cpu.dispatch(PackCols { b, cols, packed });
        });
        let packed = Packed { tiles: &*tiles, n_terms, n_cols: cols.len() };
        cpu.pool().run_chunks(c, task_rows * n_cols, &|task, c| {
            let rows = task * task_rows..n_rows.min((task + 1) * task_rows);
            let c = &mut c[cols.start..];
            with_scratch(scratch_len(rows.len(), n_terms), |scratch| {
                cpu.dispatch(Multiply { a, rows, packed, c, stride: n_cols, out, scratch });
            });
        });
    }
}

/// Rows in a task: few enough for every thread to have several, else [`TASK_ROWS`].
fn task_rows(n_rows: usize, n_threads: usize) -> usize {
    let share = n_rows.div_ceil(4 * n_threads).next_multiple_of(MAX_TILE_ROWS);
    share.min(TASK_ROWS)
}

/// Columns of a tile of outputs.
const fn tile_cols<S: Simd>() -> usize {
    2 * S::LANES
}

/// Packs some columns of `b`: see [`pack_cols`].
struct PackCols<'a> {
    b: Mat<'a>,
    cols: Range<usize>,
    packed: &'a mut [f32],
}

impl Op for PackCols<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        pack_cols(s, self.b, self.cols, self.packed);
    }
}

/// Writes columns `cols` of `b` tile by tile, in each term by term, zeros where there is no column.
#[inline(always)]
pub(crate) fn pack_cols<S: Simd>(_: S, b: Mat<'_>, cols: Range<usize>, packed: &mut [f32]) {
    let tile_cols = tile_cols::<S>();
    for (i, tile) in packed.chunks_exact_mut(b.rows * tile_cols).enumerate() {
        let first = cols.end.min(cols.start + i * tile_cols);
        pack(b, first..cols.end.min(first + tile_cols), 0..b.rows, tile_cols, tile);
    }
}

/// Writes `tile[k·width + i] = m[k, cols.start + i]` for the rows `k` of `terms`, zeros beyond `cols`.
#[inline(always)]
fn pack(m: Mat<'_>, cols: Range<usize>, terms: Range<usize>, width: usize, tile: &mut [f32]) {
    if cols.len() < width {
        tile.fill(0.0);
    }
    if m.col_step == 1 {
        for (out, k) in tile.chunks_exact_mut(width).zip(terms) {
            out[..cols.len()].copy_from_slice(&m.data[k * m.row_step..][cols.clone()]);
        }
    } else {
        for (i, col) in cols.enumerate() {
            let column = &m.data[col * m.col_step..][terms.clone()];
            for (out, &v) in tile.chunks_exact_mut(width).zip(column) {
                out[i] = v;
            }
        }
    }
}

/// A task: some rows of `a` with all packed columns.
struct Multiply<'a> {
    a: Mat<'a>,
    rows: Range<usize>,
    packed: Packed<'a>,
    /// The task's rows, `stride` apart, of the outputs.
    c: &'a mut [f32],
    stride: usize,
    out: Out,
    scratch: &'a mut [f32],
}

impl Op for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { a, rows, packed, c, stride, out, scratch } = self;
        multiply(s, a.rows(rows), packed, c, stride, out, scratch);
    }
}

/// The first columns of a matrix, as [`pack_cols`] wrote them.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    /// Tile by tile, in each `n_terms` times as many numbers as it has columns.
    pub tiles: &'a [f32],
    pub n_terms: usize,
    pub n_cols: usize,
}

/// Floats that columns of a matrix of `n_terms` rows take when they are packed.
pub(crate) fn packed_len(n_terms: usize, n_cols: usize) -> usize {
    n_terms * n_cols.next_multiple_of(MAX_TILE_COLS)
}

/// Floats of working memory that [`multiply`] needs.
pub(crate) fn scratch_len(n_rows: usize, n_terms: usize) -> usize {
    n_rows.next_multiple_of(MAX_TILE_ROWS) * n_terms.min(BLOCK_K)
}

/// `c[m·stride + n] = Σ_k a[m, k]·b[k, n]` or `+=`, on one thread, for the packed columns of `b`; `a` may have fewer
/// columns than `b` has rows, and then only so many are used.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(
    s: S,
    a: Mat<'_>,
    packed: Packed<'_>,
    c: &mut [f32],
    stride: usize,
    out: Out,
    scratch: &mut [f32],
) {
    if S::N_REGISTERS >= 32 {
        multiply_by_tiles::<S, MAX_TILE_ROWS>(s, a, packed, c, stride, out, scratch);
    } else {
        multiply_by_tiles::<S, 6>(s, a, packed, c, stride, out, scratch);
    }
}

#[inline(always)]
fn multiply_by_tiles<S: Simd, const TILE_ROWS: usize>(
    s: S,
    a: Mat<'_>,
    packed: Packed<'_>,
    c: &mut [f32],
    stride: usize,
    out: Out,
    scratch: &mut [f32],
) {
    let tile_cols = tile_cols::<S>();
    for k in (0..a.cols).step_by(BLOCK_K) {
        let terms = k..a.cols.min(k + BLOCK_K);
        let is_set = out == Out::Set && k == 0;
        let a_len = TILE_ROWS * terms.len();
        let a_tiles = &mut scratch[..a.rows.div_ceil(TILE_ROWS) * a_len];
        for (i, tile) in a_tiles.chunks_exact_mut(a_len).enumerate() {
            let row = i * TILE_ROWS;
            // Rows of `a` are columns of its transpose.
            pack(a.t(), row..a.rows.min(row + TILE_ROWS), terms.clone(), TILE_ROWS, tile);
        }
        for col in (0..packed.n_cols).step_by(tile_cols) {
            let b = &packed.tiles[col * packed.n_terms..][..tile_cols * packed.n_terms];
            let b = &b[terms.start * tile_cols..terms.end * tile_cols];
            let width = tile_cols.min(packed.n_cols - col);
            for (i, a_tile) in a_tiles.chunks_exact(a_len).enumerate() {
                let row = i * TILE_ROWS;
                let height = TILE_ROWS.min(a.rows - row);
                let c = &mut c[row * stride + col..];
                if height == TILE_ROWS && width == tile_cols {
                    tile::<S, TILE_ROWS>(s, a_tile, b, c, stride, is_set);
                    continue;
                }
                // Part of a tile: all of it is computed aside, and what exists is moved.
                let mut whole = [0.0; MAX_TILE_ROWS * MAX_TILE_COLS];
                tile::<S, TILE_ROWS>(s, a_tile, b, &mut whole, tile_cols, true);
                for (r, sums) in whole.chunks_exact(tile_cols).take(height).enumerate() {
                    for (c, sum) in c[r * stride..][..width].iter_mut().zip(sums) {
                        *c = if is_set { *sum } else { *c + sum };
                    }
                }
            }
        }
    }
}

/// One tile: the products of packed rows with packed columns, in registers, then written to rows of `c` that are
/// `stride` apart.
#[inline(always)]
fn tile<S: Simd, const TILE_ROWS: usize>(
    s: S,
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    stride: usize,
    is_set: bool,
) {
    let mut sums = [[s.splat(0.0); 2]; TILE_ROWS];
    for (a, b) in a.chunks_exact(TILE_ROWS).zip(b.chunks_exact(tile_cols::<S>())) {
        let b = [s.load(b), s.load(&b[S::LANES..])];
        for r in 0..TILE_ROWS {
            let a = s.splat(a[r]);
            for j in 0..2 {
                sums[r][j] = s.mul_add(a, b[j], sums[r][j]);
            }
        }
    }
    for r in 0..TILE_ROWS {
        let c = &mut c[r * stride..][..tile_cols::<S>()];
        for j in 0..2 {
            let c = &mut c[j * S::LANES..];
            let v = if is_set { sums[r][j] } else { s.add(s.load(c), sums[r][j]) };
            s.store(v, c);
        }
    }
}

#[cfg(test)]
mod tests {
    use puna_testkit::assert_dot_within;

    use super::*;
    use crate::testing::{N_THREADS, assert_same_bits, cpus, random};

    /// Sizes around the tiles of every instruction set, and around a block of terms.
    const SHAPES: [(usize, usize, usize); 9] = [
        (1, 1, 1),
        (5, 3, 7),
        (6, 17, 16),
        (7, 255, 33),
        (12, 256, 32),
        (13, 257, 9),
        (97, 40, 31),
        (200, 5, 65),
        (3, 700, 130),
    ];

    fn transpose(data: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| data[i % rows * cols + i / rows]).collect()
    }

    #[test]
    fn products_equal_the_formula_in_every_layout() {
        for cpu in cpus() {
            let mut scratch = GemmScratch::default();
            for (m, k, n) in SHAPES {
                let (a, bt) = (random(1, m * k), random(2, n * k));
                let (at, b) = (transpose(&a, m, k), transpose(&bt, n, k));
                let mut first = vec![f32::NAN; m * n];
                for (i, (a_given, b_given)) in [
                    (Mat::new(&a, m, k), Mat::new(&b, k, n)),
                    (Mat::new(&at, k, m).t(), Mat::new(&b, k, n)),
                    (Mat::new(&a, m, k), Mat::new(&bt, n, k).t()),
                    (Mat::new(&at, k, m).t(), Mat::new(&bt, n, k).t()),
                ]
                .into_iter()
                .enumerate()
                {
                    let mut c = vec![f32::NAN; m * n];
                    gemm(&cpu, &mut scratch, a_given, b_given, &mut c, Out::Set);
                    if i > 0 {
                        assert_same_bits("layouts", &c, &first);
                        continue;
                    }
                    for (i, &c) in c.iter().enumerate() {
                        let what = format!("{} {m} {k} {n} at {i}", cpu.isa());
                        assert_dot_within(&what, c, &a[i / n * k..][..k], &bt[i % n * k..][..k]);
                    }
                    first = c;
                }
            }
        }
    }

    #[test]
    fn blocks_of_terms_may_be_added_one_by_one() {
        let (m, k, n) = (29, 3 * BLOCK_K, 40);
        let (at, b) = (random(1, k * m), random(2, k * n));
        for cpu in cpus() {
            let mut scratch = GemmScratch::default();
            let start = random(3, m * n);
            let mut whole = start.clone();
            let (a_all, b_all) = (Mat::new(&at, k, m).t(), Mat::new(&b, k, n));
            gemm(&cpu, &mut scratch, a_all, b_all, &mut whole, Out::Add);
            let mut parts = start;
            for (a, b) in at.chunks(BLOCK_K * m).zip(b.chunks(BLOCK_K * n)) {
                let (a, b) = (Mat::new(a, BLOCK_K, m).t(), Mat::new(b, BLOCK_K, n));
                gemm(&cpu, &mut scratch, a, b, &mut parts, Out::Add);
            }
            assert_same_bits("parts", &parts, &whole);
        }
    }

    #[test]
    fn threads_and_company_change_no_bit() {
        let (m, k, n) = (211, 300, 70);
        let (a, b) = (random(1, m * k), random(2, k * n));
        for isa in puna_kernels::Isa::available() {
            let alone = Cpu::with_isa(isa, 1).unwrap();
            let mut scratch = GemmScratch::default();
            let mut expected = vec![0.0; m * n];
            for (a, c) in a.chunks(k).zip(expected.chunks_mut(n)) {
                gemm(&alone, &mut scratch, Mat::new(a, 1, k), Mat::new(&b, k, n), c, Out::Set);
            }
            for n_threads in N_THREADS {
                let cpu = Cpu::with_isa(isa, n_threads).unwrap();
                let mut c = vec![0.0; m * n];
                gemm(&cpu, &mut scratch, Mat::new(&a, m, k), Mat::new(&b, k, n), &mut c, Out::Set);
                assert_same_bits("gemm", &c, &expected);
            }
        }
    }

    #[test]
    fn nothing_to_sum_gives_zeros_or_changes_nothing() {
        for cpu in cpus() {
            let mut scratch = GemmScratch::default();
            let (a, b) = (Mat::new(&[], 2, 0), Mat::new(&[], 0, 2));
            let mut c = [1.0; 4];
            gemm(&cpu, &mut scratch, a, b, &mut c, Out::Add);
            assert_eq!(c, [1.0; 4]);
            gemm(&cpu, &mut scratch, a, b, &mut c, Out::Set);
            assert_eq!(c, [0.0; 4]);
        }
    }
}
