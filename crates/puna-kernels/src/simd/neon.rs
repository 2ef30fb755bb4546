//! NEON: four lanes, thirty-two registers. Conversions from half precision, whose intrinsics take a type
//! that is not stable, are one instruction of inline assembly.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Op, Simd};
use crate::isa::Neon;

/// `2ⁿ` for integers `n` in −126..=127 given as floats, by writing the exponent.
#[target_feature(enable = "neon")]
#[inline]
fn exp2_int(n: float32x4_t) -> float32x4_t {
    let biased = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
}

impl Simd for Neon {
    const LANES: usize = 4;
    const N_REGISTERS: usize = 32;
    type F32 = float32x4_t;

    fn vectorize<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "neon")]
        fn run<O: Op>(op: O) -> O::Output {
            op.run(Neon::here())
        }
        // SAFETY: `self` proves the features.
        unsafe { run(op) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        // SAFETY: `self` proves the features.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> float32x4_t {
        assert!(x.len() >= 4);
        // SAFETY: `self` proves the features; 4 elements were just asserted.
        unsafe { vld1q_f32(x.as_ptr()) }
    }

    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> float32x4_t {
        let mut full = [0.0; 4];
        let n = x.len().min(4);
        full[..n].copy_from_slice(&x[..n]);
        self.load(&full)
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> float32x4_t {
        assert!(bytes.len() >= 8);
        let out: float32x4_t;
        // SAFETY: `self` proves the features; 8 bytes were just asserted; the instruction is part of
        // Advanced SIMD and changes nothing but its output.
        unsafe {
            let bits = vld1_u8(bytes.as_ptr());
            asm!(
                "fcvtl {out:v}.4s, {bits:v}.4h",
                out = out(vreg) out,
                bits = in(vreg) bits,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        out
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> float32x4_t {
        assert!(bytes.len() >= 8);
        // SAFETY: `self` proves the features; 8 bytes were just asserted.
        unsafe {
            let bits = vreinterpret_u16_u8(vld1_u8(bytes.as_ptr()));
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(bits)))
        }
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> float32x4_t {
        assert!(bytes.len() >= 16);
        // SAFETY: `self` proves the features; 16 bytes were just asserted.
        unsafe { vreinterpretq_f32_u8(vld1q_u8(bytes.as_ptr())) }
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8]) -> float32x4_t {
        let (first, _) = bytes.split_first_chunk::<4>().expect("4 bytes");
        let pair = [u32::from_le_bytes(*first), 0];
        // SAFETY: `self` proves the features; `pair` has the 8 bytes that are read.
        unsafe {
            let bytes = vreinterpret_s8_u32(vld1_u32(pair.as_ptr()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }

    #[inline(always)]
    fn store(self, v: float32x4_t, out: &mut [f32]) {
        assert!(out.len() >= 4);
        // SAFETY: `self` proves the features; 4 elements were just asserted.
        unsafe { vst1q_f32(out.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn store_partial(self, v: float32x4_t, out: &mut [f32]) {
        let mut full = [0.0; 4];
        self.store(v, &mut full);
        let n = out.len().min(4);
        out[..n].copy_from_slice(&full[..n]);
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the features.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the features.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the features.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the features.
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the features.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the features. The instruction keeps a NaN of either operand.
        unsafe { vmaxq_f32(a, b) }
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the features. The instruction keeps a NaN of either operand.
        unsafe { vminq_f32(a, b) }
    }

    #[inline(always)]
    fn round(self, v: float32x4_t) -> float32x4_t {
        // SAFETY: `self` proves the features.
        unsafe { vrndnq_f32(v) }
    }

    #[inline(always)]
    fn zero_below(self, v: float32x4_t, x: float32x4_t, limit: f32) -> float32x4_t {
        // SAFETY: `self` proves the features.
        unsafe {
            let drop = vcltq_f32(x, vdupq_n_f32(limit));
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), drop))
        }
    }

    #[inline(always)]
    fn mul_exp2(self, v: float32x4_t, n: float32x4_t) -> float32x4_t {
        let half = self.round(self.mul(n, self.splat(0.5)));
        // SAFETY: `self` proves the features.
        unsafe { self.mul(self.mul(v, exp2_int(half)), exp2_int(self.sub(n, half))) }
    }

    #[inline(always)]
    fn sum(self, v: float32x4_t) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe {
            let halves = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(halves) + vget_lane_f32::<1>(halves)
        }
    }

    #[inline(always)]
    fn max_lane(self, v: float32x4_t) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { vmaxvq_f32(v) }
    }
}
