//! Packing of factors and the tile of outputs in registers, for one thread and any kind of terms.

use std::ops::Range;

use puna_kernels::simd::{Pairs, Simd, prefetch_slice};

use super::{BLOCK_K, InBf16, InF32, Mat, Out, Task};

/// Terms in the longest block.
const MAX_BLOCK: usize = BLOCK_K * 3 / 2;
/// Blocks of rows that are packed at once, of so many terms as a lane has: a task's then fit a cache of the second level.
const STRETCH_BLOCKS: usize = 4;

/// Columns in the widest tile of outputs.
pub(super) const MAX_TILE_COLS: usize = 32;
/// Rows in the highest tile of outputs.
pub(super) const MAX_TILE_ROWS: usize = 12;

/// What lies in the lanes of packed factors, and how it is multiplied.
pub(crate) trait Terms<S: Simd>: Copy {
    /// Terms in a lane: those of one sum that one instruction adds.
    const PER_LANE: usize;
    /// Lanes of up to `PER_LANE·LANES` terms that are neighbours in memory.
    fn neighbours(self, s: S, x: &[f32]) -> S::F32;
    /// Lane `i` holds `low[i]` and, with two terms in a lane, `high[i]`.
    fn zip(self, s: S, low: S::F32, high: S::F32) -> S::F32;
    /// `sum + a·b`
    fn mul_add(self, s: S, a: S::F32, b: S::F32, sum: S::F32) -> S::F32;
    /// Runs a task in a function of its own, compiled once for all callers.
    fn call(self, s: S, task: impl Task);
}

/// A term a lane, in f32.
#[derive(Clone, Copy)]
pub(crate) struct Floats;

impl<S: Simd> Terms<S> for Floats {
    const PER_LANE: usize = 1;

    #[inline(always)]
    fn neighbours(self, s: S, x: &[f32]) -> S::F32 {
        s.load_partial(x)
    }

    #[inline(always)]
    fn zip(self, _: S, low: S::F32, _: S::F32) -> S::F32 {
        low
    }

    #[inline(always)]
    fn mul_add(self, s: S, a: S::F32, b: S::F32, sum: S::F32) -> S::F32 {
        s.mul_add(a, b, sum)
    }

    #[inline(always)]
    fn call(self, s: S, task: impl Task) {
        s.vectorize(InF32(task));
    }
}

/// Two terms a lane, rounded to bf16.
#[derive(Clone, Copy)]
pub(super) struct Bf16<P>(pub P);

impl<S: Simd, P: Pairs<S>> Terms<S> for Bf16<P> {
    const PER_LANE: usize = 2;

    #[inline(always)]
    fn neighbours(self, s: S, x: &[f32]) -> S::F32 {
        self.0.neighbours(s, x)
    }

    #[inline(always)]
    fn zip(self, s: S, low: S::F32, high: S::F32) -> S::F32 {
        self.0.zip(s, low, high)
    }

    #[inline(always)]
    fn mul_add(self, s: S, a: S::F32, b: S::F32, sum: S::F32) -> S::F32 {
        self.0.dot(s, a, b, sum)
    }

    #[inline(always)]
    fn call(self, _: S, task: impl Task) {
        self.0.run_pairs(InBf16(task));
    }
}

/// Columns of a tile of outputs.
const fn tile_cols<S: Simd>() -> usize {
    2 * S::LANES
}

/// The first columns of a matrix, as [`pack_cols`] wrote them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed<'a> {
    /// Tile by tile, in each as many lanes for a column as hold `n_terms`.
    pub tiles: &'a [f32],
    pub n_terms: usize,
    pub n_cols: usize,
}

/// Floats that columns of a matrix of `n_terms` rows take when they are packed, at most.
pub(crate) fn packed_len(n_terms: usize, n_cols: usize) -> usize {
    n_terms * n_cols.next_multiple_of(MAX_TILE_COLS)
}

/// Floats of working memory that [`multiply`] needs for `n_rows` of `n_terms`.
pub(crate) fn scratch_len(n_rows: usize, n_terms: usize) -> usize {
    let n_blocks = (n_terms.div_ceil(MAX_BLOCK) + 1).min(STRETCH_BLOCKS);
    n_rows.next_multiple_of(MAX_TILE_ROWS) * (n_blocks * MAX_BLOCK + MAX_TILE_COLS)
}

/// Terms of a block of a sum of `n_terms`: about [`BLOCK_K`], in blocks of equal lengths; even, so that pairs stay whole.
fn block_len(n_terms: usize) -> usize {
    let n_blocks = ((n_terms + BLOCK_K / 2) / BLOCK_K).max(1);
    n_terms.div_ceil(n_blocks).next_multiple_of(2)
}

/// Lanes that hold `n_terms`.
const fn units<S: Simd, T: Terms<S>>(n_terms: usize) -> usize {
    n_terms.div_ceil(T::PER_LANE)
}

/// Writes columns `cols` of `b` tile by tile, in each lanes of terms in order, zeros where there is no column.
#[inline(always)]
pub(crate) fn pack_cols<S: Simd, T: Terms<S>>(
    s: S,
    t: T,
    b: Mat<'_>,
    cols: Range<usize>,
    packed: &mut [f32],
) {
    let width = tile_cols::<S>();
    for (i, tile) in packed.chunks_exact_mut(units::<S, T>(b.rows) * width).enumerate() {
        let first = cols.end.min(cols.start + i * width);
        pack_across(s, t, b, first..cols.end.min(first + width), 0..b.rows, width, tile);
    }
}

/// Writes `tile[u·width + i]` from rows `PER_LANE·u…` of `m`, column `cols.start + i`; zeros for what lacks.
#[inline(always)]
fn pack_across<S: Simd, T: Terms<S>>(
    s: S,
    t: T,
    m: Mat<'_>,
    cols: Range<usize>,
    terms: Range<usize>,
    width: usize,
    tile: &mut [f32],
) {
    if cols.len() < width {
        tile.fill(0.0);
    }
    if m.col_step == 1 {
        let row = |k: usize| &m.data[k * m.row_step..][cols.clone()];
        for (out, k) in tile.chunks_exact_mut(width).zip(terms.clone().step_by(T::PER_LANE)) {
            let (low, out) = (row(k), &mut out[..cols.len()]);
            let high = row((k + T::PER_LANE - 1).min(terms.end - 1));
            let has_high = k + T::PER_LANE <= terms.end;
            for i in (0..cols.len()).step_by(S::LANES) {
                let end = cols.len().min(i + S::LANES);
                let high = if has_high { s.load_partial(&high[i..end]) } else { s.splat(0.0) };
                let v = t.zip(s, s.load_partial(&low[i..end]), high);
                s.store_partial(v, &mut out[i..end]);
            }
        }
    } else {
        let mut lanes = [0.0; MAX_TILE_COLS];
        for (i, col) in cols.enumerate() {
            let column = &m.data[col * m.col_step..][terms.clone()];
            let chunks = column.chunks(T::PER_LANE * S::LANES);
            for (terms, outs) in chunks.zip(tile.chunks_mut(S::LANES * width)) {
                s.store(t.neighbours(s, terms), &mut lanes);
                for (out, lane) in outs.chunks_exact_mut(width).zip(lanes) {
                    out[i] = lane;
                }
            }
        }
    }
}

/// How lanes lie in a tile of packed rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// Each row in one piece, [`MAX_BLOCK`] terms apart.
    Whole,
    /// The first lane of every row, then the second of every row, and so on.
    Across,
}

/// `c[m·stride + n] = Σ_k a[m, k]·b[k, n]` or `+=`, on one thread, for the packed columns of `b`; `a` may have fewer
/// columns than `b` has rows, and then only so many are used. `scratch` are [`scratch_len`] floats.
#[inline(always)]
pub(crate) fn multiply<S: Simd, T: Terms<S>>(
    s: S,
    t: T,
    a: Mat<'_>,
    b: Packed<'_>,
    (c, stride): (&mut [f32], usize),
    out: Out,
    scratch: &mut [f32],
) {
    t.call(s, Multiply { a, b, c, stride, out, scratch });
}

/// What [`multiply`] does.
pub(super) struct Multiply<'a> {
    pub a: Mat<'a>,
    pub b: Packed<'a>,
    pub c: &'a mut [f32],
    pub stride: usize,
    pub out: Out,
    pub scratch: &'a mut [f32],
}

impl Task for Multiply<'_> {
    #[inline(always)]
    fn run<S: Simd, T: Terms<S>>(self, s: S, t: T) {
        match (S::N_REGISTERS >= 32, T::PER_LANE) {
            (true, 2) => self.by_tiles::<S, T, MAX_TILE_ROWS, { MAX_BLOCK / 2 }>(s, t),
            (true, _) => self.by_tiles::<S, T, MAX_TILE_ROWS, MAX_BLOCK>(s, t),
            (false, 2) => self.by_tiles::<S, T, 6, { MAX_BLOCK / 2 }>(s, t),
            (false, _) => self.by_tiles::<S, T, 6, MAX_BLOCK>(s, t),
        }
    }
}

impl Multiply<'_> {
    /// In tiles of about equal heights, `ROWS` at most. `LANES` are those of the longest block of terms.
    #[inline(always)]
    fn by_tiles<S: Simd, T: Terms<S>, const ROWS: usize, const LANES: usize>(self, s: S, t: T) {
        let Self { a, b, c, stride, out, scratch } = self;
        let width = tile_cols::<S>();
        let n_tiles = a.rows.div_ceil(ROWS);
        let tile_rows = |i: usize| i * a.rows / n_tiles..(i + 1) * a.rows / n_tiles;
        let kind = if a.col_step == 1 { Rows::Whole } else { Rows::Across };
        let (sums, a_packed) = scratch.split_at_mut(a.rows.next_multiple_of(ROWS) * width);
        let (tile_len, block_len) = (ROWS * LANES, block_len(a.cols));
        let stretch_len = STRETCH_BLOCKS * T::PER_LANE * block_len;
        for stretch in cut(0..a.cols, stretch_len) {
            let mut packed = a_packed.chunks_exact_mut(n_tiles * tile_len);
            for (block, packed) in cut(stretch.clone(), block_len).zip(&mut packed) {
                match kind {
                    Rows::Whole => {
                        for (i, tile) in packed.chunks_exact_mut(tile_len).enumerate() {
                            let a = a.rows(tile_rows(i));
                            pack_whole::<S, T, LANES>(s, t, a, block.clone(), tile);
                        }
                    }
                    Rows::Across => {
                        for (i, tile) in packed.chunks_exact_mut(tile_len).enumerate() {
                            let a = a.rows(tile_rows(i));
                            let height = a.rows.max(ROWS / 2);
                            pack_across(s, t, a.t(), 0..a.rows, block.clone(), height, tile);
                        }
                    }
                }
            }
            let is_set = out == Out::Set && stretch.start == 0;
            for cols in cut(0..b.n_cols, width) {
                let b_tile = &b.tiles[cols.start * units::<S, T>(b.n_terms)..];
                let c = &mut c[cols.start..];
                // Sums of many blocks stay in a cache until all were added; so do those of tiles that are not whole.
                let is_direct = stretch.len() <= 2 * block_len
                    && cols.len().is_multiple_of(S::LANES)
                    && a.rows >= ROWS / 2;
                if !is_direct && !is_set {
                    copy_rows(s, a.rows, cols.len(), (c, stride), (sums, width));
                }
                let mut a_tiles = a_packed.chunks_exact(tile_len);
                for block in cut(stretch.clone(), block_len) {
                    let is_set = is_set && block.start == 0;
                    let of_block = units::<S, T>(block.start)..units::<S, T>(block.end);
                    let b = &b_tile[of_block.start * width..of_block.end * width];
                    for (i, a) in (0..n_tiles).zip(&mut a_tiles) {
                        let rows = tile_rows(i);
                        let (c, stride) = match is_direct {
                            true => (&mut c[rows.start * stride..], stride),
                            false => (&mut sums[rows.start * width..], width),
                        };
                        let shape = (rows.len().max(ROWS / 2), cols.len());
                        tile_of::<S, T, ROWS, LANES>(s, t, shape, (a, kind), b, c, stride, is_set);
                    }
                }
                if !is_direct {
                    copy_rows(s, a.rows, cols.len(), (sums, width), (c, stride));
                }
            }
        }
    }
}

/// Cuts a range into pieces of `len`; the last may be shorter.
fn cut(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(len).map(move |start| start..range.end.min(start + len))
}

/// Copies `n_rows` of `n_cols`, each from one place to the other, where rows are so far apart.
#[inline(always)]
fn copy_rows<S: Simd>(
    s: S,
    n_rows: usize,
    n_cols: usize,
    (from, from_step): (&[f32], usize),
    (to, to_step): (&mut [f32], usize),
) {
    for (from, to) in from.chunks(from_step).zip(to.chunks_mut(to_step)).take(n_rows) {
        for i in (0..n_cols).step_by(S::LANES) {
            let end = n_cols.min(i + S::LANES);
            s.store_partial(s.load_partial(&from[i..end]), &mut to[i..end]);
        }
    }
}

/// Writes lanes of `terms` of each row of `a`, `LANES` apart.
#[inline(always)]
fn pack_whole<S: Simd, T: Terms<S>, const LANES: usize>(
    s: S,
    t: T,
    a: Mat<'_>,
    terms: Range<usize>,
    tile: &mut [f32],
) {
    for (row, out) in (0..a.rows).zip(tile.chunks_exact_mut(LANES)) {
        let row = &a.data[row * a.row_step..][terms.clone()];
        let chunks = row.chunks(T::PER_LANE * S::LANES);
        for (terms, out) in chunks.zip(out.chunks_exact_mut(S::LANES)) {
            s.store(t.neighbours(s, terms), out);
        }
    }
}
/// One tile of outputs, as many rows and columns as `shape` has, of whole vectors where it has fewer.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "factors, outputs and how to compute")]
fn tile_of<S: Simd, T: Terms<S>, const ROWS: usize, const LANES: usize>(
    s: S,
    t: T,
    shape: (usize, usize),
    a: (&[f32], Rows),
    b: &[f32],
    c: &mut [f32],
    stride: usize,
    is_set: bool,
) {
    macro_rules! by_height {
        ($($height:literal)*) => {
            match shape {
                $((rows, cols) if rows == $height && $height <= ROWS && $height >= ROWS / 2 => {
                    if cols > S::LANES {
                        tile::<S, T, $height, 2, LANES>(s, t, a, b, c, stride, is_set);
                    } else {
                        tile::<S, T, $height, 1, LANES>(s, t, a, b, c, stride, is_set);
                    }
                })*
                (rows, _) => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    by_height!(3 4 5 6 7 8 9 10 11 12);
}

/// One tile: the products of packed rows with the first `COLS` vectors of packed columns, in registers, then written to
/// rows of `c` that are `stride` apart.
#[inline(always)]
fn tile<S: Simd, T: Terms<S>, const ROWS: usize, const COLS: usize, const LANES: usize>(
    s: S,
    t: T,
    (a, rows): (&[f32], Rows),
    b: &[f32],
    c: &mut [f32],
    stride: usize,
    is_set: bool,
) {
    for r in 0..ROWS {
        prefetch_slice(&c[r * stride..][..COLS * S::LANES]);
    }
    // Two vectors even where one is used: compilers keep these in registers.
    let mut sums = [[s.splat(0.0); 2]; ROWS];
    match rows {
        Rows::Whole => {
            let rows: &[[f32; LANES]; ROWS] =
                a.as_chunks().0.first_chunk().expect("rows of the tile");
            for (u, b) in b.chunks_exact(tile_cols::<S>()).enumerate() {
                // The least of both changes nothing and spares a check.
                let u = u.min(LANES - 1);
                let b = [s.load(b), if COLS == 2 { s.load(&b[S::LANES..]) } else { s.splat(0.0) }];
                for r in 0..ROWS {
                    let a = s.splat(rows[r][u]);
                    for j in 0..COLS {
                        sums[r][j] = t.mul_add(s, a, b[j], sums[r][j]);
                    }
                }
            }
        }
        Rows::Across => {
            for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(tile_cols::<S>())) {
                let b = [s.load(b), if COLS == 2 { s.load(&b[S::LANES..]) } else { s.splat(0.0) }];
                for r in 0..ROWS {
                    let a = s.splat(a[r]);
                    for j in 0..COLS {
                        sums[r][j] = t.mul_add(s, a, b[j], sums[r][j]);
                    }
                }
            }
        }
    }
    // Row by row without a loop: an array whose place is a variable would leave the registers.
    macro_rules! write_rows {
        ($($r:literal)*) => {
            $(if $r < ROWS {
                write_row::<S, COLS>(s, sums[$r], &mut c[$r * stride..], is_set);
            })*
        };
    }
    write_rows!(0 1 2 3 4 5 6 7 8 9 10 11);
}

/// Writes or adds one row of a tile.
#[inline(always)]
fn write_row<S: Simd, const COLS: usize>(s: S, sums: [S::F32; 2], c: &mut [f32], is_set: bool) {
    let c = &mut c[..COLS * S::LANES];
    for j in 0..COLS {
        let c = &mut c[j * S::LANES..];
        let v = if is_set { sums[j] } else { s.add(s.load(c), sums[j]) };
        s.store(v, c);
    }
}
