//! NEON: eight rows in a pair of registers. The sets differ in how bytes are multiplied.

use std::arch::aarch64::*;
use std::arch::asm;

use super::rows::{Job, Rows};
use crate::isa::{Neon, NeonDot, NeonI8mm};

/// Rows in one register.
const HALF: usize = 4;

/// 16 bytes of each of 4 rows, transposed as a matrix of 32-bit numbers.
///
/// # Safety
/// 16 bytes can be read at `rows + r·stride` for `r` < 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn transposed(rows: *const u8, stride: usize) -> [uint32x4_t; 4] {
    // SAFETY: the caller guarantees these bytes.
    let [a, b, c, d] = unsafe {
        [
            vreinterpretq_u32_u8(vld1q_u8(rows)),
            vreinterpretq_u32_u8(vld1q_u8(rows.add(stride))),
            vreinterpretq_u32_u8(vld1q_u8(rows.add(2 * stride))),
            vreinterpretq_u32_u8(vld1q_u8(rows.add(3 * stride))),
        ]
    };
    let ab_even = vreinterpretq_u64_u32(vtrn1q_u32(a, b));
    let ab_odd = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    let cd_even = vreinterpretq_u64_u32(vtrn1q_u32(c, d));
    let cd_odd = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
    [
        vreinterpretq_u32_u64(vtrn1q_u64(ab_even, cd_even)),
        vreinterpretq_u32_u64(vtrn1q_u64(ab_odd, cd_odd)),
        vreinterpretq_u32_u64(vtrn2q_u64(ab_even, cd_even)),
        vreinterpretq_u32_u64(vtrn2q_u64(ab_odd, cd_odd)),
    ]
}

/// The four bytes of each of 4 rows.
///
/// # Safety
/// 4 bytes can be read at `rows + r·stride` for `r` < 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn gathered(rows: *const u8, stride: usize) -> uint32x4_t {
    let mut lanes = [0; HALF];
    for (r, lane) in lanes.iter_mut().enumerate() {
        // SAFETY: the caller guarantees these bytes.
        *lane = u32::from_le_bytes(unsafe { rows.add(r * stride).cast::<[u8; 4]>().read() });
    }
    // SAFETY: the array has four elements.
    unsafe { vld1q_u32(lanes.as_ptr()) }
}

/// The low 16 bits of each lane as a half-precision number. The intrinsic's type is not stable.
#[target_feature(enable = "neon")]
#[inline]
fn half(v: uint32x4_t) -> float32x4_t {
    let bits = vmovn_u32(v);
    let out: float32x4_t;
    // SAFETY: the instruction is part of Advanced SIMD and changes nothing but its output.
    unsafe {
        asm!(
            "fcvtl {out:v}.4s, {bits:v}.4h",
            out = out(vreg) out,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    out
}

/// `acc` and the products of four bytes in each lane, by the instruction for it, whose intrinsic is not
/// stable.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the function is compiled with the instruction's feature; it changes nothing but `acc`.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// The same through 16 bits: pairs of products are at most 2·128·127, below 2¹⁵.
#[target_feature(enable = "neon")]
#[inline]
fn dot_by_pairs(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    let high = vmull_high_s8(w, x);
    vpadalq_s16(acc, vpaddq_s16(low, high))
}

/// Declares [`Rows::dots`] that goes through the tokens with `$dot`.
macro_rules! dots {
    ($name:ident, $features:literal, $dot:ident) => {
        #[target_feature(enable = $features)]
        #[inline]
        fn $name<const NT: usize>(
            w: &[[uint32x4_t; 2]],
            x: &[i32],
            acc: &mut [[int32x4_t; 2]; NT],
        ) {
            for (w, x) in w.iter().zip(x.as_chunks::<NT>().0) {
                for t in 0..NT {
                    let x = vreinterpretq_s8_s32(vdupq_n_s32(x[t]));
                    acc[t] = [
                        $dot(acc[t][0], vreinterpretq_s8_u32(w[0]), x),
                        $dot(acc[t][1], vreinterpretq_s8_u32(w[1]), x),
                    ];
                }
            }
        }
    };
}

dots!(dots_by_pairs, "neon", dot_by_pairs);
dots!(dots_by_fours, "neon,dotprod", dot);

/// `acc` and the products of two rows with two tokens, eight bytes of each: lane `2r + t` belongs to row `r` and
/// token `t`. The intrinsic is not stable.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn matrix_product(mut acc: int32x4_t, w: uint32x4_t, x: int32x4_t) -> int32x4_t {
    // SAFETY: the function is compiled with the instruction's feature; it changes nothing but `acc`.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// [`Rows::dots`] by products of matrices, two tokens at a time; an odd last one goes as in [`NeonDot`].
#[target_feature(enable = "neon,dotprod,i8mm")]
#[inline]
fn dots_by_matrices<const NT: usize>(
    w: &[[uint32x4_t; 2]],
    x: &[i32],
    acc: &mut [[int32x4_t; 2]; NT],
) {
    // `sums[t / 2]` holds rows 0 and 1, 2 and 3, and so on, of tokens `t` and `t + 1`.
    let mut sums = [[vdupq_n_s32(0); 4]; NT];
    for t in (0..NT - NT % 2).step_by(2) {
        for half in 0..2 {
            sums[t / 2][2 * half] = vzip1q_s32(acc[t][half], acc[t + 1][half]);
            sums[t / 2][2 * half + 1] = vzip2q_s32(acc[t][half], acc[t + 1][half]);
        }
    }
    for (w, x) in w.as_chunks::<2>().0.iter().zip(x.chunks_exact(2 * NT)) {
        let rows = [
            vzip1q_u32(w[0][0], w[1][0]),
            vzip2q_u32(w[0][0], w[1][0]),
            vzip1q_u32(w[0][1], w[1][1]),
            vzip2q_u32(w[0][1], w[1][1]),
        ];
        for t in (0..NT - NT % 2).step_by(2) {
            let words = [x[t], x[NT + t], x[t + 1], x[NT + t + 1]];
            // SAFETY: the array has four elements.
            let tokens = unsafe { vld1q_s32(words.as_ptr()) };
            for (sum, &rows) in sums[t / 2].iter_mut().zip(&rows) {
                *sum = matrix_product(*sum, rows, tokens);
            }
        }
        if NT % 2 == 1 {
            let last = &mut acc[NT - 1];
            for (w, x) in w.iter().zip([x[NT - 1], x[2 * NT - 1]]) {
                let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
                *last = [
                    dot(last[0], vreinterpretq_s8_u32(w[0]), x),
                    dot(last[1], vreinterpretq_s8_u32(w[1]), x),
                ];
            }
        }
    }
    for t in (0..NT - NT % 2).step_by(2) {
        for half in 0..2 {
            let [low, high] = [sums[t / 2][2 * half], sums[t / 2][2 * half + 1]];
            acc[t][half] = vuzp1q_s32(low, high);
            acc[t + 1][half] = vuzp2q_s32(low, high);
        }
    }
}

/// What each half of a pair becomes.
macro_rules! both {
    ($half:ident => $of:expr) => {{
        // SAFETY: `self` proves the features.
        unsafe {
            [
                {
                    let $half = 0;
                    $of
                },
                {
                    let $half = 1;
                    $of
                },
            ]
        }
    }};
}

macro_rules! rows {
    ($token:ty, $features:literal, $dots:ident) => {
        impl Rows for $token {
            const LANES: usize = 2 * HALF;
            const TOKENS: usize = 6;
            type Few = Self;
            type U = [uint32x4_t; 2];
            type I = [int32x4_t; 2];
            type F = [float32x4_t; 2];

            fn compile<J: Job>(self, job: J) {
                #[target_feature(enable = $features)]
                fn run<J: Job>(job: J) {
                    job.run(<$token>::here());
                }
                // SAFETY: `self` proves the features.
                unsafe { run(job) }
            }

            #[inline(always)]
            fn few(self) -> Self {
                self
            }

            #[inline(always)]
            fn takes_signed(_max: u8) -> bool {
                true
            }

            #[inline(always)]
            unsafe fn load_16_bytes(self, rows: *const u8, stride: usize) -> [Self::U; 4] {
                // SAFETY: `self` proves the features, the caller guarantees the bytes.
                let ([a, b, c, d], [e, f, g, h]) = unsafe {
                    (transposed(rows, stride), transposed(rows.add(HALF * stride), stride))
                };
                [[a, e], [b, f], [c, g], [d, h]]
            }

            #[inline(always)]
            unsafe fn load_4_bytes(self, rows: *const u8, stride: usize) -> Self::U {
                // SAFETY: `self` proves the features, the caller guarantees the bytes.
                unsafe { [gathered(rows, stride), gathered(rows.add(HALF * stride), stride)] }
            }

            #[inline(always)]
            fn and(self, v: Self::U, mask: u32) -> Self::U {
                both!(i => vandq_u32(v[i], vdupq_n_u32(mask)))
            }

            #[inline(always)]
            fn or(self, a: Self::U, b: Self::U) -> Self::U {
                both!(i => vorrq_u32(a[i], b[i]))
            }

            #[inline(always)]
            fn xor(self, v: Self::U, mask: u32) -> Self::U {
                both!(i => veorq_u32(v[i], vdupq_n_u32(mask)))
            }

            #[inline(always)]
            fn shl(self, v: Self::U, n: u32) -> Self::U {
                both!(i => vshlq_u32(v[i], vdupq_n_s32(n as i32)))
            }

            #[inline(always)]
            fn shr(self, v: Self::U, n: u32) -> Self::U {
                both!(i => vshlq_u32(v[i], vdupq_n_s32(-(n as i32))))
            }

            #[inline(always)]
            fn sub_bytes(self, v: Self::U, n: u8) -> Self::U {
                both!(i => vreinterpretq_u32_u8(vsubq_u8(vreinterpretq_u8_u32(v[i]), vdupq_n_u8(n))))
            }

            #[inline(always)]
            fn half(self, v: Self::U) -> Self::F {
                both!(i => half(v[i]))
            }

            #[inline(always)]
            fn float(self, v: Self::U) -> Self::F {
                both!(i => vcvtq_f32_u32(v[i]))
            }

            #[inline(always)]
            fn splat_i(self, n: i32) -> Self::I {
                both!(_i => vdupq_n_s32(n))
            }

            #[inline(always)]
            fn float_i(self, v: Self::I) -> Self::F {
                both!(i => vcvtq_f32_s32(v[i]))
            }

            #[inline(always)]
            fn dots<const NT: usize>(
                self,
                _max: u8,
                w: &[Self::U],
                x: &[i32],
                acc: &mut [Self::I; NT],
            ) {
                // SAFETY: `self` proves the features.
                unsafe { $dots(w, x, acc) }
            }

            #[inline(always)]
            fn splat(self, x: f32) -> Self::F {
                both!(_i => vdupq_n_f32(x))
            }

            #[inline(always)]
            fn add(self, a: Self::F, b: Self::F) -> Self::F {
                both!(i => vaddq_f32(a[i], b[i]))
            }

            #[inline(always)]
            fn mul(self, a: Self::F, b: Self::F) -> Self::F {
                both!(i => vmulq_f32(a[i], b[i]))
            }

            #[inline(always)]
            fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
                both!(i => vfmaq_f32(c[i], a[i], b[i]))
            }

            #[inline(always)]
            fn load(self, x: &[f32]) -> Self::F {
                let x = &x[..Self::LANES];
                // Each half lies within the slice.
                both!(i => vld1q_f32(x.as_ptr().add(HALF * i)))
            }

            #[inline(always)]
            fn store(self, v: Self::F, out: &mut [f32]) {
                let out = &mut out[..Self::LANES];
                // SAFETY: `self` proves the features; each half lies within the slice.
                unsafe {
                    vst1q_f32(out.as_mut_ptr(), v[0]);
                    vst1q_f32(out.as_mut_ptr().add(HALF), v[1]);
                }
            }
        }
    };
}

rows!(Neon, "neon", dots_by_pairs);
rows!(NeonDot, "neon,dotprod", dots_by_fours);
rows!(NeonI8mm, "neon,dotprod,i8mm", dots_by_matrices);
