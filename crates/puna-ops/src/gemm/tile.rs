//! Products of some rows with packed columns on one thread: blocks of terms, and the tile of outputs in registers.

use puna_kernels::simd::{Simd, prefetch_slice};

use super::pack::{MAX_TILE_COLS, pack_across, pack_whole, tile_cols, units};
use super::{BLOCK_K, Mat, Out, Packed, Task, Terms, cut};

/// Terms in the longest block.
const MAX_BLOCK: usize = BLOCK_K * 3 / 2;
/// Blocks of rows that are packed at once, of so many terms as a lane has: a task's then fit a cache of the second level.
const STRETCH_BLOCKS: usize = 4;

/// Rows in the highest tile of outputs.
pub(super) const MAX_TILE_ROWS: usize = 12;

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
            let n_packed = stretch.len().div_ceil(block_len) * n_tiles;
            let tiles = a_packed[..n_packed * tile_len].chunks_exact_mut(n_tiles * tile_len);
            for (block, tiles) in cut(stretch.clone(), block_len).zip(tiles) {
                for (i, tile) in tiles.chunks_exact_mut(tile_len).enumerate() {
                    let a = a.rows(tile_rows(i));
                    match kind {
                        Rows::Whole => pack_whole::<S, T, LANES>(s, t, a, block.clone(), tile),
                        // Rows of `a` are columns of its transpose.
                        Rows::Across => {
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
