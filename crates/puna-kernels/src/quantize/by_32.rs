//! Blocks of 32 elements, eight at a time.

use half::f16;

use super::lanes::{Grid, LANES, Lanes, V};
use super::search::Starts;
use super::weights::Weights;
use super::{Encode, pack, search, to_f16, units};
use crate::simd::Simd;

const LEN: usize = 32;

pub(super) struct Q8_0;

impl Encode for Q8_0 {
    const LEN: usize = LANES * LEN;
    const BYTES: usize = LANES * 34;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        const PEAKS: [f32; 9] =
            [-128.0, -127.0, -126.0, -125.0, -124.0, -123.0, -122.0, -121.0, -120.0];
        let blocks =
            linear(simd, values, weights, -128.0, 127.0, Starts { peaks: &PEAKS, anchors: &[] }, 0);
        for (l, out) in out.as_chunks_mut::<34>().0.iter_mut().enumerate() {
            out[..2].copy_from_slice(&blocks.d[l].to_le_bytes());
            for (out, q) in out[2..].iter_mut().zip(blocks.levels[l]) {
                *out = q.wrapping_sub(128);
            }
        }
    }
}

pub(super) struct Q4_0;

impl Encode for Q4_0 {
    const LEN: usize = LANES * LEN;
    const BYTES: usize = LANES * 18;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        const PEAKS: [f32; 18] = [
            -8.2, -7.15, -8.7, -7.85, -9.1, -8.45, -6.8, -6.2, -7.5, -8.0, -7.7, -8.3, -8.8, -7.3,
            -7.0, 7.9, 7.0, 7.4,
        ];
        const ANCHORS: [f32; 11] = [-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let blocks = linear(
            simd,
            values,
            weights,
            -8.0,
            7.0,
            Starts { peaks: &PEAKS, anchors: &ANCHORS },
            2,
        );
        for (l, out) in out.as_chunks_mut::<18>().0.iter_mut().enumerate() {
            out[..2].copy_from_slice(&blocks.d[l].to_le_bytes());
            pack::halves(&blocks.levels[l], &mut out[2..]);
        }
    }
}

pub(super) struct Q5_0;

impl Encode for Q5_0 {
    const LEN: usize = LANES * LEN;
    const BYTES: usize = LANES * 22;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        const PEAKS: [f32; 18] = [
            -16.2, -15.15, -13.95, -15.75, -16.65, -14.85, -13.05, -14.4, -16.35, -16.05, -15.3,
            -13.65, -17.1, -12.15, -14.7, -15.6, 15.0, 14.0,
        ];
        const ANCHORS: [f32; 8] = [-16.0, -15.0, -14.0, -13.0, -12.0, -11.0, 12.0, 13.0];
        let blocks = linear(
            simd,
            values,
            weights,
            -16.0,
            15.0,
            Starts { peaks: &PEAKS, anchors: &ANCHORS },
            2,
        );
        for (l, out) in out.as_chunks_mut::<22>().0.iter_mut().enumerate() {
            out[..2].copy_from_slice(&blocks.d[l].to_le_bytes());
            pack::fifth_bits(&blocks.levels[l], &mut out[2..6]);
            pack::halves(&blocks.levels[l], &mut out[6..]);
        }
    }
}

pub(super) struct Q4_1;

impl Encode for Q4_1 {
    const LEN: usize = LANES * LEN;
    const BYTES: usize = LANES * 20;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        let blocks = affine(simd, values, weights, 15.0, &search::CUTS_4);
        for (l, out) in out.as_chunks_mut::<20>().0.iter_mut().enumerate() {
            out[..2].copy_from_slice(&blocks.d[l].to_le_bytes());
            out[2..4].copy_from_slice(&blocks.m[l].to_le_bytes());
            pack::halves(&blocks.levels[l], &mut out[4..]);
        }
    }
}

pub(super) struct Q5_1;

impl Encode for Q5_1 {
    const LEN: usize = LANES * LEN;
    const BYTES: usize = LANES * 24;

    #[inline(always)]
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]) {
        let blocks = affine(simd, values, weights, 31.0, &search::CUTS_5);
        for (l, out) in out.as_chunks_mut::<24>().0.iter_mut().enumerate() {
            out[..2].copy_from_slice(&blocks.d[l].to_le_bytes());
            out[2..4].copy_from_slice(&blocks.m[l].to_le_bytes());
            pack::fifth_bits(&blocks.levels[l], &mut out[4..8]);
            pack::halves(&blocks.levels[l], &mut out[8..]);
        }
    }
}

/// What eight blocks store.
struct Blocks {
    /// Scales.
    d: [f16; LANES],
    /// Offsets, where the type has them.
    m: [f16; LANES],
    /// Levels, counted from the lowest.
    levels: [[u8; LEN]; LANES],
}

/// Up to eight blocks in units of a power of two near each one's largest value; what values were multiplied by,
/// and what brings them back.
#[inline(always)]
fn load(values: &[f32], weights: Weights) -> (Lanes<LEN>, V, V) {
    let mut blocks = Lanes::<LEN>::EMPTY;
    blocks.load(values);
    let (least, greatest) = blocks.range();
    let (mut down, mut up) = ([0.0; LANES], [0.0; LANES]);
    for l in 0..LANES {
        (down[l], up[l]) = units(greatest[l].max(-least[l]));
    }
    blocks.scale_by(down);
    blocks.weigh(weights, down);
    (blocks, down, up)
}

/// Blocks of `d·q`, `q` from `low` to `high`.
#[inline(always)]
fn linear<S: Simd>(
    simd: S,
    values: &[f32],
    weights: Weights,
    low: f32,
    high: f32,
    starts: Starts,
    n_rounds: usize,
) -> Blocks {
    let (blocks, down, up) = load(values, weights);
    let fit = search::linear(simd, &blocks, low, high, starts, n_rounds);
    let d = std::array::from_fn(|l| to_f16(fit.scale[l] * up[l]));
    let scale = std::array::from_fn(|l| d[l].to_f32() * down[l]);
    let levels = blocks.levels(simd, &Grid { scale, offset: [0.0; LANES], low, high });
    Blocks { d, m: [f16::ZERO; LANES], levels }
}

/// Blocks of `d·q + m`, `q` from 0 to `high`: first `m` is rounded, then `d` found anew for it.
#[inline(always)]
fn affine<S: Simd>(
    simd: S,
    values: &[f32],
    weights: Weights,
    high: f32,
    cuts: &[(f32, f32)],
) -> Blocks {
    let (mut blocks, down, up) = load(values, weights);
    let (fit, _) = search::affine::<S, LEN, false>(simd, &blocks, high, cuts, 2);
    let m: [f16; LANES] = std::array::from_fn(|l| to_f16(fit.offset[l] * up[l]));
    blocks.shift_by(std::array::from_fn(|l| m[l].to_f32() * down[l]));
    let scale = search::refit(simd, &blocks, fit.scale, high);
    let d = std::array::from_fn(|l| to_f16(scale[l] * up[l]));
    let scale = std::array::from_fn(|l| d[l].to_f32() * down[l]);
    let levels = blocks.levels(simd, &Grid { scale, offset: [0.0; LANES], low: 0.0, high });
    Blocks { d, m, levels }
}
