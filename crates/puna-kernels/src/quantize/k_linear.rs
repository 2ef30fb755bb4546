//! K-quants with scales alone: Q3_K, Q6_K. A group is 16 elements, a block 256.

use half::f16;

use super::lanes::{Grid, LANES, Lanes, V, inverse, level, select};
use super::search::Starts;
use super::weights::Weights;
use super::{Encode, pack, search, to_f16, units};
use crate::blocks::K_BLOCK_LEN;
use crate::simd::Simd;

const LEN: usize = 16;
/// Times eight groups make a block.
const N: usize = K_BLOCK_LEN / LEN / LANES;

pub(super) struct Q6K;

impl Encode for Q6K {
    const LEN: usize = K_BLOCK_LEN;
    const BYTES: usize = 210;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        const PEAKS: [f32; 8] = [-32.0, -31.0, -30.0, -29.0, -28.0, -27.0, -26.0, -25.0];
        const BOUNDS: Bounds = Bounds { q: (-32.0, 31.0), scale: (-128.0, 127.0) };
        let block = encode(simd, values, weights, BOUNDS, Starts { peaks: &PEAKS, anchors: &[] });
        pack::four_bits(&block.levels, 64, &mut out[..128]);
        pack::two_bits(&block.levels, 4, &mut out[128..192]);
        for (out, &scale) in out[192..208].iter_mut().zip(block.scales.as_flattened()) {
            *out = (scale as i8).cast_unsigned();
        }
        out[208..].copy_from_slice(&block.d.to_le_bytes());
    }
}

pub(super) struct Q3K;

impl Encode for Q3K {
    const LEN: usize = K_BLOCK_LEN;
    const BYTES: usize = 110;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        const PEAKS: [f32; 28] = [
            -4.2, -3.4, -4.5, -3.8, -2.9, -2.1, -4.0, -3.0, -3.1, -3.2, -3.3, -3.5, -3.6, -3.7,
            -3.9, -4.1, -4.3, -4.4, -4.6, -4.7, -4.9, -2.6, -2.3, 2.7, 3.0, 3.3, 3.6, 4.0,
        ];
        const ANCHORS: [f32; 7] = [-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0];
        const BOUNDS: Bounds = Bounds { q: (-4.0, 3.0), scale: (-32.0, 31.0) };
        let block =
            encode(simd, values, weights, BOUNDS, Starts { peaks: &PEAKS, anchors: &ANCHORS });
        pack::one_bit(&block.levels, 2, &mut out[..32]);
        pack::two_bits(&block.levels, 0, &mut out[32..96]);
        let scales = std::array::from_fn(|j| (block.scales[j / LANES][j % LANES] + 32.0) as u8);
        pack::six_bit_scales(&scales, &mut out[96..108]);
        out[108..].copy_from_slice(&block.d.to_le_bytes());
    }
}

/// The lowest and highest of the integers of a type.
#[derive(Clone, Copy)]
struct Bounds {
    q: (f32, f32),
    scale: (f32, f32),
}

/// What a block stores: `d·scale·q`.
struct Block {
    d: f16,
    scales: [V; N],
    /// Counted from the lowest.
    levels: [u8; K_BLOCK_LEN],
}

/// The groups of a block, and what their integers may be.
struct Groups {
    lanes: [Lanes<LEN>; N],
    bounds: Bounds,
}

/// All of a block but its levels, with the error that the nearest levels leave.
#[derive(Clone, Copy)]
struct Choice {
    d: f32,
    scales: [V; N],
    error: f64,
}

/// Finds a block for 256 values: each group's own scale first; then what these are integer multiples of; then,
/// with what the block will store of that, integers again, and once more from the start.
#[inline(always)]
fn encode<S: Simd>(
    simd: S,
    values: &[f32],
    weights: Weights,
    bounds: Bounds,
    starts: Starts,
) -> Block {
    const N_ROUNDS: usize = 2;
    let (lanes, down, up) = load(values, weights);
    let groups = Groups { lanes, bounds };
    let (mut scales, mut curvatures) = ([[0.0; LANES]; N], [[0.0; LANES]; N]);
    for (n, lanes) in groups.lanes.iter().enumerate() {
        let fit = search::linear(simd, lanes, bounds.q.0, bounds.q.1, starts, 0);
        (scales[n], curvatures[n]) = (fit.scale, fit.curvature);
    }
    let stored = |x: f32| to_f16(x * up).to_f32() * down;
    let (low, high) = bounds.scale;
    let d = stored(search::common_scale(&scales, &curvatures, low, high));
    let inverse = inverse(d);
    let scales = scales.map(|x| x.map(|x| level(x * inverse, low, high)));
    let mut choice = Choice { d, scales, error: f64::INFINITY };
    let mut best = choice;
    for _ in 0..N_ROUNDS {
        choice = groups.improve(simd, &choice);
        if choice.error < best.error {
            best = choice;
        }
        let Some(d) = groups.solve(simd, &choice) else { break };
        choice.d = stored(d);
    }
    let mut levels = [[[0; LEN]; LANES]; N];
    for (n, lanes) in groups.lanes.iter().enumerate() {
        levels[n] = lanes.levels(simd, &groups.grid(&best, n));
    }
    let levels = levels.as_flattened().as_flattened();
    Block {
        d: to_f16(best.d * up),
        scales: best.scales,
        levels: levels.try_into().expect("groups of a block"),
    }
}

/// The groups of a block in units of a power of two near its largest value; what values were multiplied by, and
/// what brings them back.
#[inline(always)]
fn load(values: &[f32], weights: Weights) -> ([Lanes<LEN>; N], f32, f32) {
    let mut lanes = [Lanes::EMPTY; N];
    for (lanes, values) in lanes.iter_mut().zip(values.chunks_exact(LANES * LEN)) {
        lanes.load(values);
    }
    let mut largest = 0.0f32;
    for lanes in &lanes {
        let (least, greatest) = lanes.range();
        for l in 0..LANES {
            largest = largest.max(greatest[l]).max(-least[l]);
        }
    }
    let (down, up) = units(largest);
    for (n, lanes) in lanes.iter_mut().enumerate() {
        lanes.scale_by([down; LANES]);
        lanes.weigh(weights.from(n * LANES * LEN), [down; LANES]);
    }
    (lanes, down, up)
}

impl Groups {
    #[inline(always)]
    fn grid(&self, choice: &Choice, n: usize) -> Grid {
        let (low, high) = self.bounds.q;
        Grid { scale: choice.scales[n].map(|s| choice.d * s), offset: [0.0; LANES], low, high }
    }

    /// For each group the scale, of those around the given one, that leaves the least error.
    #[inline(always)]
    fn improve<S: Simd>(&self, simd: S, around: &Choice) -> Choice {
        let (low, high) = self.bounds.scale;
        let mut best = Choice { error: 0.0, ..*around };
        for (n, lanes) in self.lanes.iter().enumerate() {
            let mut least = [f32::INFINITY; LANES];
            for step in [0.0, -1.0, 1.0] {
                let mut tried = *around;
                tried.scales[n] = around.scales[n].map(|s| level(s + step, low, high));
                let error = lanes.error(simd, &self.grid(&tried, n));
                let better = std::array::from_fn(|l| error[l] < least[l]);
                best.scales[n] = select(better, tried.scales[n], best.scales[n]);
                least = select(better, error, least);
            }
            best.error += least.iter().map(|&error| f64::from(error)).sum::<f64>();
        }
        best
    }

    /// The `d` that fits best, by least squares, with the scales of `choice` and the levels that follow from it.
    #[inline(always)]
    fn solve<S: Simd>(&self, simd: S, choice: &Choice) -> Option<f32> {
        let (mut ss, mut sx) = (0.0, 0.0);
        for (n, lanes) in self.lanes.iter().enumerate() {
            let sums = lanes.sums(simd, &self.grid(choice, n));
            for l in 0..LANES {
                let s = f64::from(choice.scales[n][l]);
                ss += s * s * f64::from(sums.qq[l]);
                sx += s * f64::from(sums.qx[l]);
            }
        }
        (ss > 0.0).then(|| (sx / ss) as f32)
    }
}
