//! The search for the scale (and offset) with which levels come closest to values.
//!
//! For given levels the best scale and offset follow from least squares; for given scale and offset the best
//! level is the nearest. A search lays several grids over a group's range, takes the one whose least-squares
//! fit leaves the least weighted squared error, and lets the two steps follow each other from there, each of
//! which can only lower it. The grids to start from were chosen, for every number of levels, as those that
//! together leave the least error on normal, Laplace and Student values, the best first.

use super::lanes::{Grid, LANES, Lanes, Sums, V, inverse, level, select};
use crate::simd::Simd;

const ZERO: V = [0.0; LANES];

/// The cuts to start [`affine`] from with two bits.
pub(super) const CUTS_2: [(f32, f32); 16] = [
    (0.1, 0.1),
    (0.0, 0.15),
    (0.15, 0.0),
    (0.025, 0.0),
    (0.1, 0.2),
    (0.2, 0.1),
    (-0.1, 0.075),
    (0.1, -0.1),
    (-0.025, 0.2),
    (0.225, -0.1),
    (0.125, 0.05),
    (0.0, 0.025),
    (0.05, 0.1),
    (0.0, 0.0),
    (0.05, 0.05),
    (0.175, 0.15),
];

/// The same for four bits.
pub(super) const CUTS_4: [(f32, f32); 20] = [
    (0.01, 0.01),
    (0.03, -0.01),
    (-0.01, 0.03),
    (-0.04, 0.02),
    (0.02, 0.0),
    (0.0, 0.02),
    (0.0, -0.04),
    (-0.04, 0.0),
    (-0.04, -0.04),
    (0.04, 0.04),
    (0.0, 0.0),
    (0.05, 0.0),
    (0.0, 0.05),
    (0.03, 0.02),
    (-0.02, -0.02),
    (0.02, 0.04),
    (0.07, 0.02),
    (0.02, 0.07),
    (-0.02, 0.05),
    (0.05, -0.03),
];

/// The same for five bits.
pub(super) const CUTS_5: [(f32, f32); 16] = [
    (0.0, 0.0),
    (-0.03, 0.0),
    (0.01, -0.01),
    (-0.01, 0.01),
    (-0.03, -0.03),
    (0.01, 0.01),
    (0.0, -0.03),
    (-0.01, -0.03),
    (0.01, -0.04),
    (0.01, 0.0),
    (0.0, 0.01),
    (0.02, 0.0),
    (0.0, 0.02),
    (0.02, 0.02),
    (0.03, -0.02),
    (-0.02, 0.03),
];

/// The best fit so far.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    pub(super) scale: V,
    pub(super) offset: V,
    /// How fast the error grows with the square of a change of `scale`.
    pub(super) curvature: V,
    /// By how much it lowers the squared error of 0 (or of the mean).
    gain: V,
}

impl Fit {
    #[inline(always)]
    fn keep_better(&mut self, other: &Self) {
        let better = std::array::from_fn(|l| other.gain[l] > self.gain[l]);
        self.scale = select(better, other.scale, self.scale);
        self.offset = select(better, other.offset, self.offset);
        self.curvature = select(better, other.curvature, self.curvature);
        self.gain = select(better, other.gain, self.gain);
    }

    /// The least-squares fit by `scale·q`.
    #[inline(always)]
    fn linear(sums: &Sums) -> Self {
        let (mut scale, mut gain) = (ZERO, ZERO);
        for l in 0..LANES {
            scale[l] = sums.qx[l] * inverse(sums.qq[l]);
            gain[l] = scale[l] * sums.qx[l];
        }
        Self { scale, offset: ZERO, curvature: sums.qq, gain }
    }

    /// The least-squares fit of `x − mean` by `scale·q + offset`. With `MINIMUM`, where that would make
    /// `offset + mean` positive, it is held at 0.
    #[inline(always)]
    fn affine<const MINIMUM: bool>(sums: &Sums, sum_w: V, mean: V) -> Self {
        let mut fit =
            Self { scale: ZERO, offset: ZERO, curvature: ZERO, gain: [f32::NEG_INFINITY; LANES] };
        for l in 0..LANES {
            let (q, qq, qx, w, mean) = (sums.q[l], sums.qq[l], sums.qx[l], sum_w[l], mean[l]);
            let spread = w * qq - q * q;
            // When all levels are the same, what is left is rounding.
            let varied = spread > 1e-6 * (w * qq);
            let inverse_spread = 1.0 / spread;
            let free = (w * qx * inverse_spread, -(qx * q * inverse_spread));
            let held_qx = qx + mean * q;
            let held = held_qx * inverse(qq);
            let hold = MINIMUM && (!varied || free.1 > -mean);
            let usable = if hold { qq > 0.0 } else { varied };
            fit.scale[l] = if hold { held } else { free.0 };
            fit.offset[l] = if hold { -mean } else { free.1 };
            fit.curvature[l] = if hold { qq } else { spread / w };
            let gain = if hold { held * held_qx - w * mean * mean } else { free.0 * qx };
            fit.gain[l] = if usable { gain } else { f32::NEG_INFINITY };
        }
        fit
    }
}

/// Scales that [`linear`] starts from.
#[derive(Clone, Copy)]
pub(super) struct Starts<'a> {
    /// Levels for the value of greatest magnitude. Negative ones reach further, for there is one more negative
    /// level than there are positive ones.
    pub(super) peaks: &'a [f32],
    /// Levels for the value that weighs most, which may be another one where importance differs.
    pub(super) anchors: &'a [f32],
}

/// The scale for `x ≈ scale·q`, `q` from `low` to `high`: the best of `starts`, and `n_rounds` from there.
#[inline(always)]
pub(super) fn linear<S: Simd, const LEN: usize>(
    simd: S,
    groups: &Lanes<LEN>,
    low: f32,
    high: f32,
    starts: Starts,
    n_rounds: usize,
) -> Fit {
    let (least, greatest) = groups.range();
    let greatest =
        std::array::from_fn(|l| if -least[l] > greatest[l] { least[l] } else { greatest[l] });
    let mut best = Fit { scale: ZERO, offset: ZERO, curvature: ZERO, gain: ZERO };
    for peak in starts.peaks {
        let factor = 1.0 / peak;
        let scale = greatest.map(|x| x * factor);
        best.keep_better(&Fit::linear(
            &groups.sums(simd, &Grid { scale, offset: ZERO, low, high }),
        ));
    }
    let heaviest = groups.heaviest();
    for anchor in starts.anchors {
        let factor = 1.0 / anchor;
        let scale = heaviest.map(|x| x * factor);
        let grid = Grid { scale, offset: ZERO, low, high };
        best.keep_better(&Fit::linear(&groups.sums(simd, &grid)));
    }
    for _ in 0..n_rounds {
        let grid = Grid { scale: best.scale, offset: ZERO, low, high };
        best.keep_better(&Fit::linear(&groups.sums(simd, &grid)));
    }
    best
}

/// Scale and offset for `x ≈ scale·q + offset`, `q` from 0 to `high`, and `Σ w`. With `MINIMUM`, an offset is
/// at most 0.
///
/// Starts from the grids that leave out each of `cuts`, parts of a group's range at its lower and upper end,
/// and takes `n_rounds` from the best of them.
#[inline(always)]
pub(super) fn affine<S: Simd, const LEN: usize, const MINIMUM: bool>(
    simd: S,
    groups: &Lanes<LEN>,
    high: f32,
    cuts: &[(f32, f32)],
    n_rounds: usize,
) -> (Fit, V) {
    let (sum_w, sum_wx) = groups.totals(simd);
    let mean: V = std::array::from_fn(|l| sum_wx[l] / sum_w[l]);
    // About the mean, sums lose nothing to a large offset.
    let mut centred = *groups;
    centred.shift_by(mean);
    let (mut least, greatest) = centred.range();
    if MINIMUM {
        least = std::array::from_fn(|l| least[l].min(-mean[l]));
    }
    let width: V = std::array::from_fn(|l| greatest[l] - least[l]);
    let mut best = Fit {
        scale: width.map(|width| width / high),
        offset: least,
        curvature: sum_w,
        gain: [f32::NEG_INFINITY; LANES],
    };
    for &(below, above) in cuts {
        let factor = (1.0 - below - above) / high;
        let scale = width.map(|width| width * factor);
        let offset = std::array::from_fn(|l| least[l] + below * width[l]);
        let sums = centred.sums(simd, &Grid { scale, offset, low: 0.0, high });
        best.keep_better(&Fit::affine::<MINIMUM>(&sums, sum_w, mean));
    }
    for _ in 0..n_rounds {
        let grid = Grid { scale: best.scale, offset: best.offset, low: 0.0, high };
        best.keep_better(&Fit::affine::<MINIMUM>(&centred.sums(simd, &grid), sum_w, mean));
    }
    best.offset = std::array::from_fn(|l| best.offset[l] + mean[l]);
    (best, sum_w)
}

/// The number `d` for which `d·s`, with integers `s` from `low` to `high`, come closest to `x`.
///
/// Starts from the numbers that make the `x` of greatest magnitude nearly the furthest level, up to a twelfth
/// less and more. Order of summation: each lane over `x`, then the lanes in order.
#[inline(always)]
pub(super) fn common_scale<const N: usize>(x: &[V; N], w: &[V; N], low: f32, high: f32) -> f32 {
    const N_STARTS: i32 = 16;
    let mut peak = 0.0f32;
    for &x in x.as_flattened() {
        peak = if x.abs() > peak.abs() { x } else { peak };
    }
    let end = if -low > high { low } else { high };
    let (mut best, mut most) = (0.0, 0.0);
    for start in 0..N_STARTS {
        let inverse = inverse(peak) * end * (1.0 + (start - N_STARTS / 2) as f32 * 0.01);
        let (mut ss, mut sx) = (ZERO, ZERO);
        for (x, w) in x.iter().zip(w) {
            for l in 0..LANES {
                let s = level(x[l] * inverse, low, high);
                let ws = w[l] * s;
                ss[l] += ws * s;
                sx[l] += ws * x[l];
            }
        }
        let (ss, sx) = (ss.iter().sum::<f32>(), sx.iter().sum::<f32>());
        if ss > 0.0 && sx * sx > most * ss {
            best = sx / ss;
            most = sx * best;
        }
    }
    best
}

/// The scale for `x ≈ scale·q`, `q` from 0 to `high`, after one round from `scale`.
#[inline(always)]
pub(super) fn refit<S: Simd, const LEN: usize>(
    simd: S,
    groups: &Lanes<LEN>,
    scale: V,
    high: f32,
) -> V {
    let sums = groups.sums(simd, &Grid { scale, offset: ZERO, low: 0.0, high });
    let fit = Fit::linear(&sums);
    std::array::from_fn(|l| if sums.qq[l] > 0.0 { fit.scale[l] } else { scale[l] })
}
