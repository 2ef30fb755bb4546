//! Products of BF16 weights by the instruction for them, `vdpbf16ps`.
//!
//! Activations are rounded to bf16. A vector holds 32 elements; lane `l` of 16 adds the products of columns
//! `2l`, `2l + 1` of each in ascending order: `sum += x₁·w₁` and then `sum += x₀·w₀` (or in the other order),
//! each rounded to nearest even, with denormal inputs and results taken as zero. Lanes are added as in
//! [`super::float`]. The instruction gives the same bits on every CPU that has it.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::float::{Element, FloatTask};
use crate::isa::{Avx512, Avx512Bf16};

/// Multiplies the rows of `task`.
pub(super) fn multiply(token: Avx512Bf16, task: FloatTask<'_>, scratch: &mut [f32]) {
    #[target_feature(
        enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"
    )]
    fn run(token: Avx512Bf16, task: FloatTask<'_>, scratch: &mut [f32]) {
        task.multiply(token.avx512_vnni().avx512(), Pairs(token), task.x.as_bf16(), scratch);
    }
    // SAFETY: `token` proves the features.
    unsafe { run(token, task, scratch) }
}

/// Pairs of bf16, with the proof that their products can be computed.
#[derive(Clone, Copy)]
struct Pairs(Avx512Bf16);

impl Element<Avx512> for Pairs {
    type X = u16;
    type V = __m512i;
    const BYTES: usize = 2;
    const PER_LANE: usize = 2;

    #[inline(always)]
    fn weights(self, _: Avx512, bytes: &[u8]) -> __m512i {
        assert!(bytes.len() >= 64);
        // SAFETY: the token proves the features; 64 bytes were just asserted.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load(self, _: Avx512, x: &[u16]) -> __m512i {
        assert!(x.len() >= 32);
        // SAFETY: the token proves the features; 64 bytes were just asserted.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, _: Avx512, v: __m512i, out: &mut [u16]) {
        assert!(out.len() >= 32);
        // SAFETY: the token proves the features; 64 bytes were just asserted.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn mul_add(self, _: Avx512, w: __m512i, x: __m512i, sum: __m512) -> __m512 {
        // SAFETY: `self` holds the proof of the features; both types are 512 bits of any value.
        unsafe {
            let (w, x) = (transmute::<__m512i, __m512bh>(w), transmute::<__m512i, __m512bh>(x));
            _mm512_dpbf16_ps(sum, w, x)
        }
    }
}
