//! Factors as products read them: terms in lanes, lanes in the order of a tile.

use std::ops::Range;

use puna_kernels::simd::{Pairs, Simd};

use super::{Elements, InBf16, InF32, Mat, Task};

/// Columns in the widest tile of outputs.
pub(super) const MAX_TILE_COLS: usize = 32;

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
pub(super) const fn tile_cols<S: Simd>() -> usize {
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

/// Lanes that hold `n_terms`.
pub(super) const fn units<S: Simd, T: Terms<S>>(n_terms: usize) -> usize {
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
pub(super) fn pack_across<S: Simd, T: Terms<S>>(
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
    match m.data {
        Elements::F32(data) if m.col_step == 1 => {
            let row = |k: usize| &data[k * m.row_step..][cols.clone()];
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
        }
        Elements::F32(data) => {
            let mut lanes = [0.0; MAX_TILE_COLS];
            for (i, col) in cols.enumerate() {
                let column = &data[col * m.col_step..][terms.clone()];
                let chunks = column.chunks(T::PER_LANE * S::LANES);
                for (terms, outs) in chunks.zip(tile.chunks_mut(S::LANES * width)) {
                    s.store(t.neighbours(s, terms), &mut lanes);
                    for (out, lane) in outs.chunks_exact_mut(width).zip(lanes) {
                        out[i] = lane;
                    }
                }
            }
        }
        Elements::Bf16(data) => {
            assert!(T::PER_LANE == 2 && m.col_step == 1, "rounded factors on the left alone");
            for (out, k) in tile.chunks_exact_mut(width).zip(terms.clone().step_by(2)) {
                for i in (0..cols.len()).step_by(S::LANES) {
                    let end = cols.len().min(i + S::LANES);
                    let low = window(data, k * m.row_step + cols.start + i, end - i);
                    // Zeros where the last pair lacks a term.
                    let high = match k + 1 < terms.end {
                        true => window(data, (k + 1) * m.row_step + cols.start + i, end - i),
                        false => [0; WINDOW],
                    };
                    let lanes: [f32; WINDOW] = std::array::from_fn(|i| {
                        f32::from_bits(u32::from(low[i]) | u32::from(high[i]) << 16)
                    });
                    s.store_partial(s.load(&lanes), &mut out[i..end]);
                }
            }
        }
    }
}

/// Elements in the lanes of the widest vector.
const WINDOW: usize = 16;

/// As many elements from `first` on, `n` of which are asked for and there: one move, but at the very end.
#[inline(always)]
fn window(data: &[u16], first: usize, n: usize) -> [u16; WINDOW] {
    match data[first..].first_chunk() {
        Some(window) => *window,
        None => {
            let mut window = [0; WINDOW];
            window[..n].copy_from_slice(&data[first..][..n]);
            window
        }
    }
}

/// Writes lanes of `terms` of each row of `a`, `LANES` apart.
#[inline(always)]
pub(super) fn pack_whole<S: Simd, T: Terms<S>, const LANES: usize>(
    s: S,
    t: T,
    a: Mat<'_>,
    terms: Range<usize>,
    tile: &mut [f32],
) {
    for (row, out) in (0..a.rows).zip(tile.chunks_exact_mut(LANES)) {
        match a.data {
            Elements::F32(data) => {
                let row = &data[row * a.row_step..][terms.clone()];
                let chunks = row.chunks(T::PER_LANE * S::LANES);
                for (terms, out) in chunks.zip(out.chunks_exact_mut(S::LANES)) {
                    s.store(t.neighbours(s, terms), out);
                }
            }
            Elements::Bf16(data) => {
                assert_eq!(T::PER_LANE, 2, "rounded factors in products of bf16 alone");
                // Rows are of whole pairs, and blocks begin with one.
                let pairs = terms.start..terms.end.next_multiple_of(2);
                let row = bytemuck::cast_slice(&data[row * a.row_step..][pairs]);
                out[..row.len()].copy_from_slice(row);
            }
        }
    }
}
