//! AVX2 with FMA and F16C: eight lanes, sixteen registers.

use std::arch::x86_64::*;

use super::{Op, Simd};
use crate::isa::Avx2;

/// Eight ones, then eight zeros: the window that starts at `8 − n` selects `n` lanes.
static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Lanes `0..n`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn first(n: usize) -> __m256i {
    // SAFETY: the window starts at 0..=8 and is 8 long, within 16.
    unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - n.min(8)).cast()) }
}

/// The sum of the lanes, halves first.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn sum(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

/// The greatest lane.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn max_lane(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

/// `2ⁿ` for integers `n` in −126..=127 given as floats, by writing the exponent.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn exp2_int(n: __m256) -> __m256 {
    let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const N_REGISTERS: usize = 16;
    type F32 = __m256;

    fn vectorize<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<O: Op>(op: O) -> O::Output {
            op.run(Avx2::here())
        }
        // SAFETY: `self` proves the features.
        unsafe { run(op) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        assert!(x.len() >= 8);
        // SAFETY: `self` proves the features; 8 elements were just asserted.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> __m256 {
        // SAFETY: `self` proves the features; lanes beyond the slice are masked off and not read.
        unsafe { _mm256_maskload_ps(x.as_ptr(), first(x.len())) }
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> __m256 {
        assert!(bytes.len() >= 16);
        // SAFETY: `self` proves the features; 16 bytes were just asserted.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> __m256 {
        assert!(bytes.len() >= 16);
        // SAFETY: `self` proves the features; 16 bytes were just asserted.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> __m256 {
        assert!(bytes.len() >= 32);
        // SAFETY: `self` proves the features; 32 bytes were just asserted.
        unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8]) -> __m256 {
        assert!(bytes.len() >= 8);
        // SAFETY: `self` proves the features; 8 bytes were just asserted.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32]) {
        assert!(out.len() >= 8);
        // SAFETY: `self` proves the features; 8 elements were just asserted.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn store_partial(self, v: __m256, out: &mut [f32]) {
        // SAFETY: `self` proves the features; lanes beyond the slice are masked off and not written.
        unsafe { _mm256_maskstore_ps(out.as_mut_ptr(), first(out.len()), v) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features. The instruction returns its second operand on a NaN.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features. The instruction returns its second operand on a NaN.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, v: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
    }

    #[inline(always)]
    fn zero_below(self, v: __m256, x: __m256, limit: f32) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(limit))) }
    }

    #[inline(always)]
    fn mul_exp2(self, v: __m256, n: __m256) -> __m256 {
        let half = self.round(self.mul(n, self.splat(0.5)));
        // SAFETY: `self` proves the features.
        unsafe { self.mul(self.mul(v, exp2_int(half)), exp2_int(self.sub(n, half))) }
    }

    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { sum(v) }
    }

    #[inline(always)]
    fn sums(self, v: [__m256; 4]) -> [f32; 4] {
        // SAFETY: `self` proves the features; four floats are stored to four.
        unsafe {
            let halves = |a, b| {
                let low = _mm256_permute2f128_ps::<0x20>(a, b);
                _mm256_add_ps(low, _mm256_permute2f128_ps::<0x31>(a, b))
            };
            // Four lanes of each vector; then two, of the first and third in the lower half.
            let (ab, cd) = (halves(v[0], v[1]), halves(v[2], v[3]));
            let low = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
            let v = _mm256_add_ps(low, _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd));
            let v = _mm256_add_ps(v, _mm256_permute_ps::<0b10_11_00_01>(v));
            let (ac, bd) = (_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let mut sums = [0.0; 4];
            // The sums are in even lanes: a, c and b, d.
            let abcd = _mm_unpacklo_ps(
                _mm_shuffle_ps::<0b00_00_10_00>(ac, ac),
                _mm_shuffle_ps::<0b00_00_10_00>(bd, bd),
            );
            _mm_storeu_ps(sums.as_mut_ptr(), abcd);
            sums
        }
    }

    #[inline(always)]
    fn max_lane(self, v: __m256) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { max_lane(v) }
    }
}
