//! The K-quants decoded for many rows at once; see [`super::formats`].

use std::cmp::Ordering;
use std::mem::MaybeUninit;

use super::formats::{Block, Column, Format, LOW_HALVES};
use super::rows::Rows;

const LOW_BITS: u32 = 0x0101_0101;
const LOW_TWO_BITS: u32 = 0x0303_0303;
const LOW_SIX_BITS: u32 = 0x3f3f_3f3f;
const BITS_4_AND_5: u32 = 0x3030_3030;

/// The statements once for each value of a constant, so that no shift is by a number found out at run time.
macro_rules! unrolled {
    ($constant:ident in [$($value:literal),*] $body:block) => {
        $({
            const $constant: usize = $value;
            $body
        })*
    };
}

/// The bits of `v` that `mask` keeps once they have moved from bit `from` to bit `to` of their bytes.
#[inline(always)]
fn moved<S: Rows>(s: S, v: S::U, from: usize, to: usize, mask: u32) -> S::U {
    let moved = match from.cmp(&to) {
        Ordering::Less => s.shl(v, (to - from) as u32),
        Ordering::Equal => v,
        Ordering::Greater => s.shr(v, (from - to) as u32),
    };
    s.and(moved, mask)
}

/// Byte `i % 4` of each lane of vector `i / 4` as a float.
#[inline(always)]
fn byte<S: Rows>(s: S, v: &[S::U], i: usize) -> S::F {
    s.float(s.and(s.shr(v[i / 4], 8 * (i % 4) as u32), 255))
}

/// The halves in the low and high 16 bits of each lane, the second negated.
#[inline(always)]
fn scale_and_negated_minimum<S: Rows>(s: S, v: S::U) -> (S::F, S::F) {
    (s.half(v), s.mul(s.half(s.shr(v, 16)), s.splat(-1.0)))
}

/// The eight 6-bit scales and the eight 6-bit minima of Q4_K and Q5_K, one to a byte.
#[inline(always)]
fn scales_and_minima<S: Rows>(s: S, packed: [S::U; 3]) -> ([S::U; 2], [S::U; 2]) {
    let [scales, minima, rest] = packed;
    let low_scales = s.and(rest, LOW_HALVES);
    let low_minima = s.and(s.shr(rest, 4), LOW_HALVES);
    (
        [s.and(scales, LOW_SIX_BITS), s.or(low_scales, s.and(s.shr(scales, 2), BITS_4_AND_5))],
        [s.and(minima, LOW_SIX_BITS), s.or(low_minima, s.and(s.shr(minima, 2), BITS_4_AND_5))],
    )
}

pub(crate) struct Q2K;

impl Format<84, 4> for Q2K {
    const LEN: usize = 256;
    const GROUPS: usize = 2;
    const MINIMA: bool = true;
    const MAX: u8 = 3;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 84>, out: &mut [MaybeUninit<Block<S, 4>>]) {
        let s = c.s;
        let packed = c.load_16(0);
        let (d, m) = scale_and_negated_minimum(s, c.load_4(80));
        let (mut scales, mut minima) = (packed, packed);
        for i in 0..4 {
            scales[i] = s.and(packed[i], LOW_HALVES);
            minima[i] = s.and(s.shr(packed[i], 4), LOW_HALVES);
        }
        for half in 0..2 {
            let bits = c.load_32(16 + 32 * half);
            unrolled!(J in [0, 1, 2, 3] {
                let mut q = bits;
                for q in &mut q {
                    *q = moved(s, *q, 2 * J, 0, LOW_TWO_BITS);
                }
                let b = 4 * half + J;
                let scales = [
                    s.mul(d, byte(s, &scales, 2 * b)),
                    s.mul(d, byte(s, &scales, 2 * b + 1)),
                    s.mul(m, byte(s, &minima, 2 * b)),
                    s.mul(m, byte(s, &minima, 2 * b + 1)),
                ];
                out[b].write(Self::block(s, q, scales));
            });
        }
    }
}

pub(crate) struct Q3K;

/// The sixteen 6-bit scales of Q3_K, one to a byte.
#[inline(always)]
fn six_bit_scales<S: Rows>(s: S, low_a: S::U, low_b: S::U, high: S::U) -> [S::U; 4] {
    [
        s.or(s.and(low_a, LOW_HALVES), s.and(s.shl(high, 4), BITS_4_AND_5)),
        s.or(s.and(low_b, LOW_HALVES), s.and(s.shl(high, 2), BITS_4_AND_5)),
        s.or(s.and(s.shr(low_a, 4), LOW_HALVES), s.and(high, BITS_4_AND_5)),
        s.or(s.and(s.shr(low_b, 4), LOW_HALVES), s.and(s.shr(high, 2), BITS_4_AND_5)),
    ]
}

impl Format<110, 2> for Q3K {
    const LEN: usize = 256;
    const GROUPS: usize = 2;
    const OFFSET: u8 = 4;
    const MAX: u8 = 7;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 110>, out: &mut [MaybeUninit<Block<S, 2>>]) {
        let s = c.s;
        let high = c.load_32(0);
        let scales = six_bit_scales(s, c.load_4(96), c.load_4(100), c.load_4(104));
        let d = c.last_half();
        let centre = s.splat(-32.0);
        unrolled!(HALF in [0, 1] {
            let bits = c.load_32(32 + 32 * HALF);
            unrolled!(J in [0, 1, 2, 3] {
                let b = 4 * HALF + J;
                let mut q = bits;
                for k in 0..8 {
                    let low = moved(s, bits[k], 2 * J, 0, LOW_TWO_BITS);
                    q[k] = s.or(low, moved(s, high[k], b, 2, LOW_BITS << 2));
                }
                let scales = [
                    s.mul(d, s.add(byte(s, &scales, 2 * b), centre)),
                    s.mul(d, s.add(byte(s, &scales, 2 * b + 1), centre)),
                ];
                out[b].write(Self::block(s, q, scales));
            });
        });
    }
}

pub(crate) struct Q4K;

impl Format<144, 2> for Q4K {
    const LEN: usize = 256;
    const MINIMA: bool = true;
    const MAX: u8 = 15;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 144>, out: &mut [MaybeUninit<Block<S, 2>>]) {
        let s = c.s;
        let [dm, a, b, r] = c.load_16(0);
        let (d, m) = scale_and_negated_minimum(s, dm);
        let (scales, minima) = scales_and_minima(s, [a, b, r]);
        for pair in 0..4 {
            let bits = c.load_32(16 + 32 * pair);
            for high in 0..2 {
                let mut q = bits;
                for q in &mut q {
                    *q = s.and(s.shr(*q, 4 * high as u32), LOW_HALVES);
                }
                let b = 2 * pair + high;
                let scales = [s.mul(d, byte(s, &scales, b)), s.mul(m, byte(s, &minima, b))];
                out[b].write(Self::block(s, q, scales));
            }
        }
    }
}

pub(crate) struct Q5K;

impl Format<176, 2> for Q5K {
    const LEN: usize = 256;
    const MINIMA: bool = true;
    const MAX: u8 = 31;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 176>, out: &mut [MaybeUninit<Block<S, 2>>]) {
        let s = c.s;
        let [dm, a, b, r] = c.load_16(0);
        let (d, m) = scale_and_negated_minimum(s, dm);
        let (scales, minima) = scales_and_minima(s, [a, b, r]);
        let fifth = c.load_32(16);
        unrolled!(PAIR in [0, 1, 2, 3] {
            let bits = c.load_32(48 + 32 * PAIR);
            unrolled!(HIGH in [0, 1] {
                let b = 2 * PAIR + HIGH;
                let mut q = bits;
                for k in 0..8 {
                    let low = moved(s, bits[k], 4 * HIGH, 0, LOW_HALVES);
                    q[k] = s.or(low, moved(s, fifth[k], b, 4, LOW_BITS << 4));
                }
                let scales = [s.mul(d, byte(s, &scales, b)), s.mul(m, byte(s, &minima, b))];
                out[b].write(Self::block(s, q, scales));
            });
        });
    }
}

pub(crate) struct Q6K;

impl Format<210, 2> for Q6K {
    const LEN: usize = 256;
    const GROUPS: usize = 2;
    const OFFSET: u8 = 32;
    const MAX: u8 = 63;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 210>, out: &mut [MaybeUninit<Block<S, 2>>]) {
        let s = c.s;
        let d = c.last_half();
        // Signed bytes, made unsigned by adding 128, which is taken back as a float.
        let mut scales = c.load_16(192);
        for scale in &mut scales {
            *scale = s.xor(*scale, 0x8080_8080);
        }
        let centre = s.splat(-128.0);
        for half in 0..2 {
            let low = [c.load_32(64 * half), c.load_32(64 * half + 32)];
            let high = c.load_32(128 + 32 * half);
            unrolled!(J in [0, 1, 2, 3] {
                let mut q = high;
                for k in 0..8 {
                    let four = moved(s, low[J % 2][k], 4 * (J / 2), 0, LOW_HALVES);
                    q[k] = s.or(four, moved(s, high[k], 2 * J, 4, LOW_TWO_BITS << 4));
                }
                let b = 4 * half + J;
                let scales = [
                    s.mul(d, s.add(byte(s, &scales, 2 * b), centre)),
                    s.mul(d, s.add(byte(s, &scales, 2 * b + 1), centre)),
                ];
                out[b].write(Self::block(s, q, scales));
            });
        }
    }
}
