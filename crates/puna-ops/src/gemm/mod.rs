//! Products of dense matrices of f32, in every combination of layouts that forward and backward need, in f32 or with
//! factors rounded to bf16.
//!
//! # The sum of one output
//! `K` terms are cut into `n = ⌊K/256 + ½⌋` blocks, at least one, of `⌈K/n⌉` terms, one more where that is odd; the last may
//! be shorter. So a multiple of [`BLOCK_K`] is cut into that, however long. A block's sum starts at zero and adds products
//! in ascending order, each by one fused multiply-add ([scalar](puna_kernels::Isa::Scalar): rounded apart). Blocks'
//! sums are added to the output in ascending order: to what it holds, or, when it is overwritten, the first takes its
//! place. Neither threads, tiles nor the other outputs matter.
//!
//! With [`Precision::Bf16`] terms are added in pairs, `2i + 1` and then `2i`, as [`Pairs::dot`](puna_kernels::simd::Pairs)
//! says; where their number is odd, a zero takes part.
//!
//! # How it is computed
//! As in Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): `b` is packed once by all
//! threads into tiles of columns, each task packs its rows of `a`, and a tile of outputs stays in registers while a
//! block of terms passes.

use std::ops::Range;

use puna_kernels::simd::{Op, Pairs, PairsOp, Simd};
use puna_kernels::{Buffer, Cpu, Isa, with_scratch};

mod pack;
mod tile;

use pack::{Bf16, Floats, MAX_TILE_COLS};
pub(crate) use pack::{Packed, Terms, pack_cols, packed_len};
use tile::{MAX_TILE_ROWS, Multiply};
pub(crate) use tile::{multiply, scratch_len};

/// Terms that are summed in registers before they are added to the output, where they divide the terms.
pub const BLOCK_K: usize = 256;
/// The most rows of outputs in a task: with what is packed of them at once they fit a cache of the second level.
const TASK_ROWS: usize = 96;
/// The least tasks of a thread, for others to take when it is slow.
const TASKS_PER_THREAD: usize = 4;
/// Floats of `b` that are packed at once.
const MOST_PACKED: usize = 2 << 20;

/// Elements of a matrix.
#[derive(Clone, Copy, Debug)]
enum Elements<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

/// A matrix `[rows, cols]` in memory: row by row, or column by column.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// From the first element on.
    data: Elements<'a>,
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
        Self { data: Elements::F32(data), rows, cols, row_step: cols, col_step: 1 }
    }

    /// The matrix `[rows, cols]` of rows that [`round_row`] wrote one after the other: a left factor of products whose factors
    /// are rounded to bf16.
    ///
    /// # Panics
    /// When `data` has another length.
    #[must_use]
    pub fn rounded(data: &'a [f32], rows: usize, cols: usize) -> Self {
        let lanes = rounded_len(cols);
        assert_eq!(data.len(), rows * lanes, "pairs of a matrix of {rows} x {cols}");
        let data = Elements::Bf16(bytemuck::cast_slice(data));
        Self { data, rows, cols, row_step: 2 * lanes, col_step: 1 }
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
        let first = rows.start * self.row_step;
        let data = match self.data {
            Elements::F32(data) => Elements::F32(&data[first.min(data.len())..]),
            Elements::Bf16(data) => Elements::Bf16(&data[first.min(data.len())..]),
        };
        Self { data, rows: rows.len(), ..self }
    }

    /// Some of its columns.
    ///
    /// # Panics
    /// When there are no such columns.
    #[must_use]
    pub fn cols(self, cols: Range<usize>) -> Self {
        self.t().rows(cols).t()
    }
}

/// Floats that a row of `n` elements takes when it is rounded: two bf16 in the place of each.
#[must_use]
pub const fn rounded_len(n: usize) -> usize {
    n.div_ceil(2)
}

/// Rounds a row to bf16, as products would, into [`rounded_len`] floats; see [`Mat::rounded`].
///
/// # Panics
/// When `out` has another length, or the instruction set has no bf16.
pub fn round_row(cpu: &Cpu, row: &[f32], out: &mut [f32]) {
    assert_eq!(out.len(), rounded_len(row.len()), "rounded pairs of {} elements", row.len());
    cpu.dispatch_pairs(RoundRow { row, out });
}

struct RoundRow<'a> {
    row: &'a [f32],
    out: &'a mut [f32],
}

impl PairsOp for RoundRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, P: Pairs<S>>(self, s: S, pairs: P) {
        for (row, out) in self.row.chunks(2 * S::LANES).zip(self.out.chunks_mut(S::LANES)) {
            s.store_partial(pairs.neighbours(s, row), out);
        }
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

/// How factors of products are rounded. Sums are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Not at all.
    F32,
    /// To bf16, to nearest even: with instructions for it about twice as fast.
    Bf16,
}

impl Precision {
    /// The faster on an instruction set of this CPU.
    #[must_use]
    pub fn best(isa: Isa) -> Self {
        if isa.has_fast_bf16() { Self::Bf16 } else { Self::F32 }
    }

    /// Whether products of this precision can be had: bf16 also by [`Isa::Scalar`], for reference.
    #[must_use]
    pub fn is_available(self, isa: Isa) -> bool {
        self == Self::F32 || isa.has_bf16() || isa == Isa::Scalar
    }

    /// The name that configurations use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// A right factor of products, packed once for all of them.
#[derive(Debug)]
pub struct Factor {
    precision: Precision,
    n_terms: usize,
    n_cols: usize,
    tiles: Buffer,
}

impl Factor {
    /// An empty one, whose products' factors will be rounded to `precision`.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        Self { precision, n_terms: 0, n_cols: 0, tiles: Buffer::default() }
    }

    /// Becomes `b`, `[K, N]`.
    ///
    /// # Panics
    /// When the instruction set lacks the precision.
    pub fn pack(&mut self, cpu: &Cpu, b: Mat<'_>) {
        let precision = self.precision;
        (self.n_terms, self.n_cols) = (b.rows, b.cols);
        // Whole tiles of any instruction set lie between multiples of the widest.
        let tile_len = self.n_units() * MAX_TILE_COLS;
        let len = b.cols.div_ceil(MAX_TILE_COLS) * tile_len;
        if self.tiles.len() < len {
            self.tiles = Buffer::zeros(len);
        }
        if len == 0 {
            return;
        }
        cpu.pool().run_chunks(&mut self.tiles[..len], tile_len, &|task, packed| {
            let first = task * MAX_TILE_COLS;
            let cols = first..b.cols.min(first + MAX_TILE_COLS);
            dispatch(cpu, precision, PackCols { b, cols, packed });
        });
    }

    /// Lanes that hold the terms of a column.
    fn n_units(&self) -> usize {
        match self.precision {
            Precision::F32 => self.n_terms,
            Precision::Bf16 => self.n_terms.div_ceil(2),
        }
    }

    /// `c[m, n] = Σ_k a[m, k]·b[k, n]`, or `c[m, n] += …`, on the caller's thread: what a task does with its rows.
    ///
    /// # Panics
    /// When shapes do not fit, or the instruction set lacks the precision.
    pub fn product(&self, cpu: &Cpu, a: Mat<'_>, c: &mut [f32], out: Out) {
        assert_eq!(a.cols, self.n_terms, "terms of both factors");
        assert_eq!(c.len(), a.rows * self.n_cols, "outputs of {} x {}", a.rows, self.n_cols);
        if self.n_terms == 0 {
            if out == Out::Set {
                c.fill(0.0);
            }
            return;
        }
        for rows in (0..a.rows).step_by(TASK_ROWS) {
            let rows = rows..a.rows.min(rows + TASK_ROWS);
            let c = &mut c[rows.start * self.n_cols..rows.end * self.n_cols];
            self.multiply(cpu, a.rows(rows), c, self.n_cols, out);
        }
    }

    /// The same for few rows of outputs that are `stride` apart.
    fn multiply(&self, cpu: &Cpu, a: Mat<'_>, c: &mut [f32], stride: usize, out: Out) {
        let &Self { precision, n_terms, n_cols, .. } = self;
        let b = Packed { tiles: &self.tiles, n_terms, n_cols };
        with_scratch(scratch_len(a.rows, a.cols), |scratch| {
            dispatch(cpu, precision, Multiply { a, b, c, stride, out, scratch });
        });
    }
}

/// Products of one precision, with the working memory that they pass on to each other.
#[derive(Debug)]
pub struct Products {
    packed: Factor,
}

impl Products {
    /// Products whose factors are rounded to `precision`.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        Self { packed: Factor::new(precision) }
    }

    /// `c[m, n] = Σ_k a[m, k]·b[k, n]`, or `c[m, n] += …`; `a` is `[M, K]`, `b` `[K, N]`, `c` `[M, N]`.
    ///
    /// # Panics
    /// When shapes do not fit, or the instruction set lacks the precision.
    pub fn gemm(&mut self, cpu: &Cpu, a: Mat<'_>, b: Mat<'_>, c: &mut [f32], out: Out) {
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
            self.packed.pack(cpu, b.cols(first_col..n_cols.min(first_col + most_cols)));
            let packed = &self.packed;
            cpu.pool().run_chunks(c, task_rows * n_cols, &|task, c| {
                let rows = task * task_rows..n_rows.min((task + 1) * task_rows);
                packed.multiply(cpu, a.rows(rows), &mut c[first_col..], n_cols, out);
            });
        }
    }
}

/// Rows in a task: as many as fit a cache of the second level, or so few that every thread has several tasks; all
/// threads have equally many of them.
#[must_use]
pub fn task_rows(n_rows: usize, n_threads: usize) -> usize {
    let n_tasks = n_rows.div_ceil(TASK_ROWS).max(TASKS_PER_THREAD * n_threads);
    n_rows.div_ceil(n_tasks.next_multiple_of(n_threads)).max(MAX_TILE_ROWS)
}

/// Cuts a range into pieces of `len`; the last may be shorter.
pub fn cut(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(len).map(move |start| start..range.end.min(start + len))
}

/// A task over any kind of terms.
pub(crate) trait Task {
    /// `run` must be `#[inline(always)]`.
    fn run<S: Simd, T: Terms<S>>(self, s: S, t: T);
}

/// Runs a task on the caller's thread.
pub(crate) fn dispatch(cpu: &Cpu, precision: Precision, task: impl Task) {
    match precision {
        Precision::F32 => cpu.dispatch(InF32(task)),
        Precision::Bf16 => cpu.dispatch_pairs(InBf16(task)),
    }
}

struct InF32<T>(T);

impl<T: Task> Op for InF32<T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.0.run(s, Floats);
    }
}

struct InBf16<T>(T);

impl<T: Task> PairsOp for InBf16<T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, P: Pairs<S>>(self, s: S, pairs: P) {
        self.0.run(s, Bf16(pairs));
    }
}

/// Packs some columns of `b`: see [`pack_cols`].
struct PackCols<'a> {
    b: Mat<'a>,
    cols: Range<usize>,
    packed: &'a mut [f32],
}

impl Task for PackCols<'_> {
    #[inline(always)]
    fn run<S: Simd, T: Terms<S>>(self, s: S, t: T) {
        pack_cols(s, t, self.b, self.cols, self.packed);
    }
}

#[cfg(test)]
mod tests;
