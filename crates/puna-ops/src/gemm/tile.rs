//! Packing of factors and the tile of outputs in registers, for one thread and any kind of terms.

use std::ops::Range;

use puna_kernels::simd::{Pairs, Simd, prefetch_slice};

use super::{BLOCK_K, Mat, Out};

/// Terms in the longest block.
pub(super) const MAX_BLOCK: usize = BLOCK_K * 3 / 2;

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
}

/// Columns of a tile of outputs.
const fn tile_cols<S: Simd>() -> usize {
    2 * S::LANES
}

/// The first columns of a matrix, as [`pack_cols`] wrote them.
#[derive(Clone, Copy)]
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

/// Floats of working memory that [`multiply`] needs.
pub(crate) fn scratch_len(n_rows: usize) -> usize {
    n_rows.next_multiple_of(MAX_TILE_ROWS) * MAX_BLOCK
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
    /// Each row in one piece, [`MAX_BLOCK`] apart.
    Whole,
    /// The first lane of every row, then the second of every row, and so on.
    Across,
}

/// `c[m·stride + n] = Σ_k a[m, k]·b[k, n]` or `+=`, on one thread, for the packed columns of `b`; `a` may have fewer
/// columns than `b` has rows, and then only so many are used.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "factors, outputs, working memory and how to compute"
)]
pub(crate) fn multiply<S: Simd, T: Terms<S>>(
    s: S,
    t: T,
    a: Mat<'_>,
    packed: Packed<'_>,
    c: &mut [f32],
    stride: usize,
    out: Out,
    scratch: &mut [f32],
) {
    if S::N_REGISTERS >= 32 {
        multiply_by_tiles::<S, T, MAX_TILE_ROWS>(s, t, a, packed, c, stride, out, scratch);
    } else {
        multiply_by_tiles::<S, T, 6>(s, t, a, packed, c, stride, out, scratch);
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "those of `multiply`")]
fn multiply_by_tiles<S: Simd, T: Terms<S>, const ROWS: usize>(
    s: S,
    t: T,
    a: Mat<'_>,
    packed: Packed<'_>,
    c: &mut [f32],
    stride: usize,
    out: Out,
    scratch: &mut [f32],
) {
    let width = tile_cols::<S>();
    let rows = if a.col_step == 1 { Rows::Whole } else { Rows::Across };
    let block_len = block_len(a.cols);
    for k in (0..a.cols).step_by(block_len) {
        let terms = k..a.cols.min(k + block_len);
        let n_units = units::<S, T>(terms.len());
        let is_set = out == Out::Set && k == 0;
        let tile_len = match rows {
            Rows::Whole => ROWS * MAX_BLOCK,
            Rows::Across => ROWS * n_units,
        };
        let a_tiles = &mut scratch[..a.rows.div_ceil(ROWS) * tile_len];
        for (i, tile) in a_tiles.chunks_exact_mut(tile_len).enumerate() {
            let of_tile = i * ROWS..a.rows.min((i + 1) * ROWS);
            match rows {
                Rows::Whole => pack_whole(s, t, a.rows(of_tile), terms.clone(), tile),
                // Rows of `a` are columns of its transpose.
                Rows::Across => pack_across(s, t, a.t(), of_tile, terms.clone(), ROWS, tile),
            }
        }
        let first_unit = units::<S, T>(terms.start);
        for col in (0..packed.n_cols).step_by(width) {
            let b = &packed.tiles[col * units::<S, T>(packed.n_terms)..];
            let b = &b[first_unit * width..(first_unit + n_units) * width];
            let n_cols = width.min(packed.n_cols - col);
            for (i, a_tile) in a_tiles.chunks_exact(tile_len).enumerate() {
                let row = i * ROWS;
                let n_rows = ROWS.min(a.rows - row);
                let c = &mut c[row * stride + col..];
                if n_rows == ROWS && n_cols == width {
                    tile::<S, T, ROWS, 2>(s, t, (a_tile, rows), b, c, stride, is_set);
                    continue;
                }
                if n_rows == ROWS && n_cols == S::LANES {
                    tile::<S, T, ROWS, 1>(s, t, (a_tile, rows), b, c, stride, is_set);
                    continue;
                }
                // Part of a tile: all of it is computed aside, and what exists is moved.
                let mut whole = [0.0; MAX_TILE_ROWS * MAX_TILE_COLS];
                tile::<S, T, ROWS, 2>(s, t, (a_tile, rows), b, &mut whole, width, true);
                for (r, sums) in whole.chunks_exact(width).take(n_rows).enumerate() {
                    for (c, sum) in c[r * stride..][..n_cols].iter_mut().zip(sums) {
                        *c = if is_set { *sum } else { *c + sum };
                    }
                }
            }
        }
    }
}

/// Writes lanes of `terms` of each row of `a`, [`MAX_BLOCK`] apart; rows that lack keep what was there.
#[inline(always)]
fn pack_whole<S: Simd, T: Terms<S>>(s: S, t: T, a: Mat<'_>, terms: Range<usize>, tile: &mut [f32]) {
    for (row, out) in (0..a.rows).zip(tile.chunks_exact_mut(MAX_BLOCK)) {
        let row = &a.data[row * a.row_step..][terms.clone()];
        let chunks = row.chunks(T::PER_LANE * S::LANES);
        for (terms, out) in chunks.zip(out.chunks_exact_mut(S::LANES)) {
            s.store(t.neighbours(s, terms), out);
        }
    }
}

/// One tile: the products of packed rows with the first `COLS` vectors of packed columns, in registers, then written to
/// rows of `c` that are `stride` apart.
#[inline(always)]
fn tile<S: Simd, T: Terms<S>, const ROWS: usize, const COLS: usize>(
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
            let rows: &[[f32; MAX_BLOCK]; ROWS] = a.as_chunks().0.try_into().expect("a whole tile");
            for (u, b) in b.chunks_exact(tile_cols::<S>()).enumerate() {
                // The least of both changes nothing and spares a check.
                let u = u.min(MAX_BLOCK - 1);
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
