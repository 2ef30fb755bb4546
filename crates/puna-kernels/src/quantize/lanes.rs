//! Eight groups of values side by side, and the sums over them that every search is made of.
//!
//! A group is what shares one scale: a block of 32, or 16 or 32 of the 256 elements of a K-quant. Element `i`
//! of eight groups lies in one array, so a plain loop over the eight is a vector operation wherever there are
//! vectors, and no sum ever crosses lanes: a group's sums run over its elements in ascending order, each
//! product and sum rounded by itself. That is why every instruction set gives the same bytes.

use super::weights::Weights;

/// Groups side by side.
pub(super) const LANES: usize = 8;

/// One number of each group.
pub(super) type V = [f32; LANES];

/// Eight groups of `LEN` elements.
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

/// The integer from `low` to `high` that is nearest to `t`; `low` for a NaN.
///
/// Adding and subtracting 1.5·2²³ rounds to the nearest integer, ties to even, without an instruction that
/// not every CPU has. Beyond ±2²² the result is about as large as `t`, and the bounds catch it.
#[inline(always)]
pub(super) fn level(t: f32, low: f32, high: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let q = (t + ROUND) - ROUND;
    // Not `clamp`: these are one instruction each.
    let q = if q > low { q } else { low };
    if q < high { q } else { high }
}

/// `1/x`, and 0 for 0.
#[inline(always)]
pub(super) fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
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
    /// Group `l` from `values[l·LEN..]`, zeros where there are no more, all weights 1.
    #[inline(always)]
    pub(super) fn load(values: &[f32]) -> Self {
        let mut x = [[0.0; LANES]; LEN];
        for (l, group) in values.chunks_exact(LEN).enumerate() {
            for (x, &value) in x.iter_mut().zip(group) {
                x[l] = finite(value);
            }
        }
        Self { x, w: [[1.0; LANES]; LEN] }
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

    /// `Σ w` and `Σ w·x`.
    #[inline(always)]
    pub(super) fn totals(&self) -> (V, V) {
        let (mut sum_w, mut sum_wx) = ([0.0; LANES], [0.0; LANES]);
        for (x, w) in self.x.iter().zip(&self.w) {
            for l in 0..LANES {
                sum_w[l] += w[l];
                sum_wx[l] += w[l] * x[l];
            }
        }
        (sum_w, sum_wx)
    }

    /// The sums with the nearest levels of `grid`.
    #[inline(always)]
    pub(super) fn sums(&self, grid: &Grid) -> Sums {
        let inverse = grid.scale.map(inverse);
        let mut sums = Sums { q: [0.0; LANES], qq: [0.0; LANES], qx: [0.0; LANES] };
        for (x, w) in self.x.iter().zip(&self.w) {
            for l in 0..LANES {
                let q = level((x[l] - grid.offset[l]) * inverse[l], grid.low, grid.high);
                let wq = w[l] * q;
                sums.q[l] += wq;
                sums.qq[l] += wq * q;
                sums.qx[l] += wq * x[l];
            }
        }
        sums
    }

    /// `Σ w·(x − (scale·q + offset))²` with the nearest levels.
    #[inline(always)]
    pub(super) fn error(&self, grid: &Grid) -> V {
        let inverse = grid.scale.map(inverse);
        let mut error = [0.0; LANES];
        for (x, w) in self.x.iter().zip(&self.w) {
            for l in 0..LANES {
                let shifted = x[l] - grid.offset[l];
                let q = level(shifted * inverse[l], grid.low, grid.high);
                let e = shifted - grid.scale[l] * q;
                error[l] += w[l] * (e * e);
            }
        }
        error
    }

    /// The nearest levels of `grid`, counted from its lowest.
    #[inline(always)]
    pub(super) fn levels(&self, grid: &Grid) -> [[u8; LEN]; LANES] {
        let inverse = grid.scale.map(inverse);
        let mut levels = [[0; LEN]; LANES];
        for (i, x) in self.x.iter().enumerate() {
            for l in 0..LANES {
                let q = level((x[l] - grid.offset[l]) * inverse[l], grid.low, grid.high);
                levels[l][i] = (q - grid.low) as u8;
            }
        }
        levels
    }
}
