//! Eight groups of values side by side, and the sums over them that every search is made of.
//!
//! A group is what shares one scale: a block of 32, or 16 or 32 of the 256 elements of a K-quant. Element `i`
//! of eight groups lies in one array, so a plain loop over the eight is a vector operation wherever there are
//! vectors, and no sum ever crosses lanes: a group's sums run over its elements in ascending order, each
//! product and sum rounded by itself. That is why every instruction set gives the same bytes.

use super::weights::Weights;
use crate::simd::Simd;

/// Groups side by side.
pub(super) const LANES: usize = 8;

/// One number of each group.
pub(super) type V = [f32; LANES];

/// Eight groups of `LEN` elements.
#[derive(Clone, Copy)]
pub(super) struct Lanes<const LEN: usize> {
    /// The values; 0 where one is not finite.
    pub(super) x: [V; LEN],
    /// How much the square of each one's error counts; positive.
    pub(super) w: [V; LEN],
}

/// Numbers `scale·q + offset`, for integers `q` from `low` to `high`.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) scale: V,
    pub(super) offset: V,
    pub(super) low: f32,
    pub(super) high: f32,
}

/// Weighted sums over the elements of each group, `q` being the levels nearest to them.
pub(super) struct Sums {
    /// `Σ w·q`
    pub(super) q: V,
    /// `Σ w·q²`
    pub(super) qq: V,
    /// `Σ w·q·x`
    pub(super) qx: V,
}

/// 1.5·2²³: adding and subtracting it rounds to the nearest integer, ties to even, in the same way on every
/// CPU. Beyond ±2²² the result is about as large as what was rounded.
const ROUND: f32 = 12_582_912.0;

/// The integer from `low` to `high` that is nearest to `t`.
#[inline(always)]
pub(super) fn level(t: f32, low: f32, high: f32) -> f32 {
    let q = (t + ROUND) - ROUND;
    let q = if q > low { q } else { low };
    if q < high { q } else { high }
}

/// `1/x`, and 0 where that would be too large for anything.
#[inline(always)]
pub(super) fn inverse(x: f32) -> f32 {
    if x.abs() < 1e-30 { 0.0 } else { 1.0 / x }
}

/// `a` in the lanes where `choose`, else `b`.
#[inline(always)]
pub(super) fn select(choose: [bool; LANES], a: V, b: V) -> V {
    std::array::from_fn(|l| if choose[l] { a[l] } else { b[l] })
}

/// `x`, and 0 when it is not finite.
#[inline(always)]
pub(super) fn finite(x: f32) -> f32 {
    if x.abs() <= f32::MAX { x } else { 0.0 }
}

impl<const LEN: usize> Lanes<LEN> {
    /// Zeros, and all weights 1.
    pub(super) const EMPTY: Self = Self { x: [[0.0; LANES]; LEN], w: [[1.0; LANES]; LEN] };

    /// Takes group `l` from `values[l·LEN..]`, as many as there are.
    #[inline(always)]
    pub(super) fn load(&mut self, values: &[f32]) {
        for (l, group) in values.chunks_exact(LEN).enumerate() {
            for (x, &value) in self.x.iter_mut().zip(group) {
                x[l] = finite(value);
            }
        }
    }

    /// Multiplies each group by a number.
    #[inline(always)]
    pub(super) fn scale_by(&mut self, factor: V) {
        for x in &mut self.x {
            for l in 0..LANES {
                x[l] *= factor[l];
            }
        }
    }

    /// Subtracts a number from each group.
    #[inline(always)]
    pub(super) fn shift_by(&mut self, offset: V) {
        for x in &mut self.x {
            for l in 0..LANES {
                x[l] -= offset[l];
            }
        }
    }

    /// Weighs the values, which were multiplied by `factor`, as the importance of their columns asks.
    #[inline(always)]
    pub(super) fn weigh(&mut self, weights: Weights, factor: V) {
        let Some(columns) = weights.columns() else { return };
        for (l, group) in columns.chunks_exact(LEN).take(LANES).enumerate() {
            for (w, &importance) in self.w.iter_mut().zip(group) {
                w[l] = importance;
            }
        }
        let mean_square = factor.map(|factor| weights.mean_square(factor));
        for (x, w) in self.x.iter().zip(&mut self.w) {
            for l in 0..LANES {
                w[l] = weights.of(w[l], mean_square[l], x[l]);
            }
        }
    }

    /// The least and the greatest value of each group.
    #[inline(always)]
    pub(super) fn range(&self) -> (V, V) {
        let (mut least, mut greatest) = (self.x[0], self.x[0]);
        for x in &self.x {
            for l in 0..LANES {
                least[l] = if x[l] < least[l] { x[l] } else { least[l] };
                greatest[l] = if x[l] > greatest[l] { x[l] } else { greatest[l] };
            }
        }
        (least, greatest)
    }

    /// The value of each group whose weighted square is greatest.
    #[inline(always)]
    pub(super) fn heaviest(&self) -> V {
        let (mut heaviest, mut most) = ([0.0; LANES], [-1.0; LANES]);
        for (x, w) in self.x.iter().zip(&self.w) {
            for l in 0..LANES {
                let square = w[l] * (x[l] * x[l]);
                heaviest[l] = if square > most[l] { x[l] } else { heaviest[l] };
                most[l] = if square > most[l] { square } else { most[l] };
            }
        }
        heaviest
    }

    /// `Σ w` and `Σ w·x`.
    #[inline(always)]
    pub(super) fn totals<S: Simd>(&self, simd: S) -> (V, V) {
        let (mut sum_w, mut sum_wx) = ([0.0; LANES], [0.0; LANES]);
        for lane in (0..LANES).step_by(S::LANES) {
            let (mut w_total, mut wx_total) = (simd.splat(0.0), simd.splat(0.0));
            for (x, w) in self.x.iter().zip(&self.w) {
                let w = simd.load(&w[lane..]);
                w_total = simd.add(w_total, w);
                wx_total = simd.add(wx_total, simd.mul(w, simd.load(&x[lane..])));
            }
            simd.store(w_total, &mut sum_w[lane..]);
            simd.store(wx_total, &mut sum_wx[lane..]);
        }
        (sum_w, sum_wx)
    }

    /// The sums with the nearest levels of `grid`.
    #[inline(always)]
    pub(super) fn sums<S: Simd>(&self, simd: S, grid: &Grid) -> Sums {
        let inverse = grid.scale.map(inverse);
        let mut sums = Sums { q: [0.0; LANES], qq: [0.0; LANES], qx: [0.0; LANES] };
        for lane in (0..LANES).step_by(S::LANES) {
            let nearest = Nearest::new(simd, grid, &inverse, lane);
            let (mut q_sum, mut qq_sum, mut qx_sum) =
                (simd.splat(0.0), simd.splat(0.0), simd.splat(0.0));
            for (x, w) in self.x.iter().zip(&self.w) {
                let x = simd.load(&x[lane..]);
                let q = nearest.level(simd, simd.sub(x, nearest.offset));
                let wq = simd.mul(simd.load(&w[lane..]), q);
                q_sum = simd.add(q_sum, wq);
                qq_sum = simd.add(qq_sum, simd.mul(wq, q));
                qx_sum = simd.add(qx_sum, simd.mul(wq, x));
            }
            simd.store(q_sum, &mut sums.q[lane..]);
            simd.store(qq_sum, &mut sums.qq[lane..]);
            simd.store(qx_sum, &mut sums.qx[lane..]);
        }
        sums
    }

    /// `Σ w·(x − (scale·q + offset))²` with the nearest levels.
    #[inline(always)]
    pub(super) fn error<S: Simd>(&self, simd: S, grid: &Grid) -> V {
        let inverse = grid.scale.map(inverse);
        let mut error = [0.0; LANES];
        for lane in (0..LANES).step_by(S::LANES) {
            let nearest = Nearest::new(simd, grid, &inverse, lane);
            let scale = simd.load(&grid.scale[lane..]);
            let mut sum = simd.splat(0.0);
            for (x, w) in self.x.iter().zip(&self.w) {
                let shifted = simd.sub(simd.load(&x[lane..]), nearest.offset);
                let e = simd.sub(shifted, simd.mul(scale, nearest.level(simd, shifted)));
                sum = simd.add(sum, simd.mul(simd.load(&w[lane..]), simd.mul(e, e)));
            }
            simd.store(sum, &mut error[lane..]);
        }
        error
    }

    /// The nearest levels of `grid`, counted from its lowest.
    #[inline(always)]
    pub(super) fn levels<S: Simd>(&self, simd: S, grid: &Grid) -> [[u8; LEN]; LANES] {
        let inverse = grid.scale.map(inverse);
        let mut levels = [[0; LEN]; LANES];
        for lane in (0..LANES).step_by(S::LANES) {
            let nearest = Nearest::new(simd, grid, &inverse, lane);
            for (i, x) in self.x.iter().enumerate() {
                let q = nearest.level(simd, simd.sub(simd.load(&x[lane..]), nearest.offset));
                let mut counted = [0.0; LANES];
                simd.store(simd.sub(q, nearest.low), &mut counted);
                for l in 0..S::LANES {
                    levels[lane + l][i] = counted[l] as u8;
                }
            }
        }
        levels
    }
}

/// A grid in vectors, some of its lanes.
struct Nearest<S: Simd> {
    offset: S::F32,
    inverse: S::F32,
    low: S::F32,
    high: S::F32,
    round: S::F32,
}

impl<S: Simd> Nearest<S> {
    #[inline(always)]
    fn new(simd: S, grid: &Grid, inverse: &V, lane: usize) -> Self {
        Self {
            offset: simd.load(&grid.offset[lane..]),
            inverse: simd.load(&inverse[lane..]),
            low: simd.splat(grid.low),
            high: simd.splat(grid.high),
            round: simd.splat(ROUND),
        }
    }

    /// The level nearest to `shifted`, which is finite and has its offset subtracted: [`level`] of it.
    #[inline(always)]
    fn level(&self, simd: S, shifted: S::F32) -> S::F32 {
        let t = simd.mul(shifted, self.inverse);
        let q = simd.sub(simd.add(t, self.round), self.round);
        simd.min(self.high, simd.max(self.low, q))
    }
}
