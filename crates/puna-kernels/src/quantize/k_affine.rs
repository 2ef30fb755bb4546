//! K-quants with scales and minima: Q2_K, Q4_K, Q5_K. A group is 16 or 32 elements, a block 256.

use half::f16;

use super::lanes::{Grid, LANES, Lanes, V, inverse, level, select};
use super::weights::Weights;
use super::{Encode, pack, search, to_f16, units};
use crate::blocks::K_BLOCK_LEN;
use crate::simd::Simd;

pub(super) struct Q4K;

impl Encode for Q4K {
    const LEN: usize = K_BLOCK_LEN;
    const BYTES: usize = 144;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        let block = encode::<S, 32, 1>(simd, values, weights, 15.0, 63.0, &search::CUTS_4);
        block.put_head(&mut out[..16]);
        pack::four_bits(&block.levels(), 32, &mut out[16..]);
    }
}

pub(super) struct Q5K;

impl Encode for Q5K {
    const LEN: usize = K_BLOCK_LEN;
    const BYTES: usize = 176;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        let block = encode::<S, 32, 1>(simd, values, weights, 31.0, 63.0, &search::CUTS_5);
        block.put_head(&mut out[..16]);
        pack::one_bit(&block.levels(), 4, &mut out[16..48]);
        pack::four_bits(&block.levels(), 32, &mut out[48..]);
    }
}

pub(super) struct Q2K;

impl Encode for Q2K {
    const LEN: usize = K_BLOCK_LEN;
    const BYTES: usize = 84;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        let block = encode::<S, 16, 2>(simd, values, weights, 3.0, 15.0, &search::CUTS_2);
        let scales = block.scales.as_flattened().iter().zip(block.minima.as_flattened());
        for (out, (&scale, &minimum)) in out[..16].iter_mut().zip(scales) {
            *out = scale as u8 | (minimum as u8) << 4;
        }
        pack::two_bits(&block.levels(), 0, &mut out[16..80]);
        out[80..82].copy_from_slice(&block.d.to_le_bytes());
        out[82..].copy_from_slice(&block.m.to_le_bytes());
    }
}

/// What a block stores: `d·scale·q − m·minimum`, `N` times eight groups.
struct Block<const LEN: usize, const N: usize> {
    d: f16,
    m: f16,
    scales: [V; N],
    minima: [V; N],
    levels: [[[u8; LEN]; LANES]; N],
}

impl<const LEN: usize, const N: usize> Block<LEN, N> {
    #[inline(always)]
    fn levels(&self) -> [u8; K_BLOCK_LEN] {
        let levels = self.levels.as_flattened().as_flattened();
        levels.try_into().expect("groups of a block")
    }

    /// The 16 bytes that Q4_K and Q5_K begin with.
    #[inline(always)]
    fn put_head(&self, out: &mut [u8]) {
        let (scales, minima) = (self.scales[0].map(|s| s as u8), self.minima[0].map(|m| m as u8));
        out[..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..4].copy_from_slice(&self.m.to_le_bytes());
        pack::scales_and_minima(&scales, &minima, &mut out[4..]);
    }
}

/// How many cuts are tried when all weights are equal.
const N_CUTS: usize = 7;

/// The groups of a block, and what their integers may be.
struct Groups<const LEN: usize, const N: usize> {
    lanes: [Lanes<LEN>; N],
    /// The highest level.
    high: f32,
    /// The highest scale and the highest minimum.
    steps: f32,
}

/// All of a block but its levels, with the error that the nearest levels leave.
#[derive(Clone, Copy)]
struct Choice<const N: usize> {
    d: f32,
    m: f32,
    scales: [V; N],
    minima: [V; N],
    error: f64,
}

/// Finds a block for 256 values: each group's own scale and minimum first; then what these are integer
/// multiples of; then, with what the block will store of that, integers again, and once more from the start.
#[inline(always)]
fn encode<S: Simd, const LEN: usize, const N: usize>(
    simd: S,
    values: &[f32],
    weights: Weights,
    high: f32,
    steps: f32,
    cuts: &[(f32, f32)],
) -> Block<LEN, N> {
    const N_ROUNDS: usize = 2;
    // Where weights differ, the best grid is further from those that fit when they are equal.
    let (cuts, n_refits) =
        if weights.columns().is_some() { (cuts, 3) } else { (&cuts[..N_CUTS], 1) };
    let (lanes, down, up) = load(values, weights);
    let groups = Groups { lanes, high, steps };
    let (mut scales, mut minima) = ([[0.0; LANES]; N], [[0.0; LANES]; N]);
    let (mut curvatures, mut totals) = (scales, scales);
    for (n, lanes) in groups.lanes.iter().enumerate() {
        let (fit, sum_w) = search::affine::<S, LEN, true>(simd, lanes, high, cuts, n_refits);
        (scales[n], curvatures[n]) = (fit.scale, fit.curvature);
        (minima[n], totals[n]) = (fit.offset.map(|offset| -offset), sum_w);
    }
    let stored = |x: f32| to_f16(x * up).to_f32() * down;
    let d = stored(search::common_scale(&scales, &curvatures, 0.0, steps));
    let m = stored(search::common_scale(&minima, &totals, 0.0, steps));
    let (scales, minima) = (multiples(&scales, d, steps), multiples(&minima, m, steps));
    let mut choice = Choice { d, m, scales, minima, error: f64::INFINITY };
    let mut best = choice;
    for _ in 0..N_ROUNDS {
        choice = groups.improve(simd, &choice);
        if choice.error < best.error {
            best = choice;
        }
        let Some((d, m)) = groups.solve(simd, &choice) else { break };
        (choice.d, choice.m) = (stored(d), stored(m));
    }
    let mut levels = [[[0; LEN]; LANES]; N];
    for (n, lanes) in groups.lanes.iter().enumerate() {
        levels[n] = lanes.levels(simd, &groups.grid(&best, n));
    }
    let (d, m) = (to_f16(best.d * up), to_f16(best.m * up));
    Block { d, m, scales: best.scales, minima: best.minima, levels }
}

/// The groups of a block in units of a power of two near its largest value, possibly negative: what values were
/// multiplied by, and what brings them back.
///
/// Minima are subtracted, so levels reach values on one side of 0 only when the other side is reached too;
/// but nothing says that `d` and `m` are positive. With both negative it is the other way round, and rows of
/// positive values keep their offset.
#[inline(always)]
fn load<const LEN: usize, const N: usize>(
    values: &[f32],
    weights: Weights,
) -> ([Lanes<LEN>; N], f32, f32) {
    let mut lanes = [Lanes::EMPTY; N];
    for (lanes, values) in lanes.iter_mut().zip(values.chunks_exact(LANES * LEN)) {
        lanes.load(values);
    }
    let (mut largest, mut positive, mut negative) = (0.0f32, 0.0f32, 0.0f32);
    for lanes in &lanes {
        let (least, greatest) = lanes.range();
        for l in 0..LANES {
            largest = largest.max(greatest[l]).max(-least[l]);
            positive += least[l].max(0.0);
            negative += (-greatest[l]).max(0.0);
        }
    }
    let (mut down, mut up) = units(largest);
    if positive > negative {
        (down, up) = (-down, -up);
    }
    for (n, lanes) in lanes.iter_mut().enumerate() {
        lanes.scale_by([down; LANES]);
        lanes.weigh(weights.from(n * LANES * LEN), [down; LANES]);
    }
    (lanes, down, up)
}

/// The integers whose multiples of `unit` are nearest to `x`.
#[inline(always)]
fn multiples<const N: usize>(x: &[V; N], unit: f32, steps: f32) -> [V; N] {
    let inverse = inverse(unit);
    x.map(|x| x.map(|x| level(x * inverse, 0.0, steps)))
}

impl<const LEN: usize, const N: usize> Groups<LEN, N> {
    #[inline(always)]
    fn grid(&self, choice: &Choice<N>, n: usize) -> Grid {
        Grid {
            scale: choice.scales[n].map(|s| choice.d * s),
            offset: choice.minima[n].map(|m| -(choice.m * m)),
            low: 0.0,
            high: self.high,
        }
    }

    /// For each group the integers, of those around the given ones, that leave the least error.
    #[inline(always)]
    fn improve<S: Simd>(&self, simd: S, around: &Choice<N>) -> Choice<N> {
        const STEPS: [(f32, f32); 9] = [
            (0.0, 0.0),
            (-1.0, -1.0),
            (1.0, 1.0),
            (-1.0, 0.0),
            (1.0, 0.0),
            (0.0, -1.0),
            (0.0, 1.0),
            (-1.0, 1.0),
            (1.0, -1.0),
        ];
        let mut best = Choice { error: 0.0, ..*around };
        for (n, lanes) in self.lanes.iter().enumerate() {
            let mut least = [f32::INFINITY; LANES];
            for (scale_step, minimum_step) in STEPS {
                let mut tried = *around;
                tried.scales[n] = around.scales[n].map(|s| level(s + scale_step, 0.0, self.steps));
                tried.minima[n] =
                    around.minima[n].map(|m| level(m + minimum_step, 0.0, self.steps));
                let error = lanes.error(simd, &self.grid(&tried, n));
                let better = std::array::from_fn(|l| error[l] < least[l]);
                best.scales[n] = select(better, tried.scales[n], best.scales[n]);
                best.minima[n] = select(better, tried.minima[n], best.minima[n]);
                least = select(better, error, least);
            }
            best.error += least.iter().map(|&error| f64::from(error)).sum::<f64>();
        }
        best
    }

    /// The `d` and `m` that fit best, by least squares, with the integers of `choice` and the levels that follow
    /// from it.
    #[inline(always)]
    fn solve<S: Simd>(&self, simd: S, choice: &Choice<N>) -> Option<(f32, f32)> {
        let (mut ss, mut sm, mut mm, mut sx, mut mx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (n, lanes) in self.lanes.iter().enumerate() {
            let (sum_w, sum_wx) = lanes.totals(simd);
            let sums = lanes.sums(simd, &self.grid(choice, n));
            for l in 0..LANES {
                let (s, m) = (f64::from(choice.scales[n][l]), f64::from(choice.minima[n][l]));
                ss += s * s * f64::from(sums.qq[l]);
                sm += s * m * f64::from(sums.q[l]);
                mm += m * m * f64::from(sum_w[l]);
                sx += s * f64::from(sums.qx[l]);
                mx += m * f64::from(sum_wx[l]);
            }
        }
        let determinant = ss * mm - sm * sm;
        if determinant > 1e-9 * ss * mm {
            let d = (sx * mm - mx * sm) / determinant;
            let m = (sx * sm - mx * ss) / determinant;
            return Some((d as f32, m as f32));
        }
        (ss > 0.0 && mm == 0.0).then(|| ((sx / ss) as f32, 0.0))
    }
}
