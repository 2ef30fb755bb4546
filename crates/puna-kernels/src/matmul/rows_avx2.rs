//! AVX2: eight rows in a register.
//!
//! Bytes are multiplied by `vpmaddubsw`, unsigned times signed, which adds pairs of products in 16 bits and would
//! saturate: see [`exact_steps`]. Weights that use all eight bits are taken as signed numbers, their sign moved
//! over to the activations: `w·x = |w|·(sign(w)·x)`.

use std::arch::x86_64::*;

use super::rows::{Job, Rows};
use crate::isa::Avx2;

/// How many `vpmaddubsw` results may be added in 16 bits without overflow, when weights are at most `max` (at most
/// 128 in magnitude for `max` = 255) and activations at most 127 in magnitude.
#[inline(always)]
pub(super) fn exact_steps(max: u8) -> usize {
    const fn is_exact(magnitude: i32, steps: i32) -> bool {
        magnitude * 127 * 2 * steps <= i16::MAX as i32
    }
    const { assert!(is_exact(31, 4) && is_exact(63, 2) && is_exact(128, 1)) }
    match max {
        0..=31 => 4,
        32..=63 => 2,
        _ => 1,
    }
}

/// 16 bytes of each of 8 rows, transposed as a matrix of 32-bit numbers.
///
/// # Safety
/// 16 bytes can be read at `rows + r·stride` for `r` < 8.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn transposed(rows: *const u8, stride: usize) -> [__m256i; 4] {
    // Half `h` of vector `i` is row `4·h + i`, so that the transpositions within halves leave rows in order.
    let mut v = [_mm256_setzero_si256(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        // SAFETY: the caller guarantees these bytes.
        *v = unsafe {
            let low = _mm_loadu_si128(rows.add(i * stride).cast());
            let high = _mm_loadu_si128(rows.add((4 + i) * stride).cast());
            _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high)
        };
    }
    let [a, b, c, d] = v;
    let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab_low, cd_low),
        _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// See [`Rows::dots`].
#[target_feature(enable = "avx2")]
#[inline]
fn dots<const NT: usize>(max: u8, w: &[__m256i], x: &[i32], acc: &mut [__m256i; NT]) {
    let ones = _mm256_set1_epi16(1);
    let steps = exact_steps(max);
    for (w, x) in w.chunks_exact(steps).zip(x.chunks_exact(steps * NT)) {
        for t in 0..NT {
            let mut pairs = _mm256_setzero_si256();
            for k in 0..steps {
                let x = _mm256_set1_epi32(x[k * NT + t]);
                let product = if max == 255 {
                    _mm256_maddubs_epi16(_mm256_abs_epi8(w[k]), _mm256_sign_epi8(x, w[k]))
                } else {
                    _mm256_maddubs_epi16(w[k], x)
                };
                pairs = _mm256_add_epi16(pairs, product);
            }
            acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(pairs, ones));
        }
    }
}

impl Rows for Avx2 {
    const LANES: usize = 8;
    const TOKENS: usize = 4;
    type U = __m256i;
    type I = __m256i;
    type F = __m256;

    fn compile<J: Job>(self, job: J) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<J: Job>(job: J) {
            job.run(Avx2::here());
        }
        // SAFETY: `self` proves the features.
        unsafe { run(job) }
    }

    #[inline(always)]
    fn takes_signed(max: u8) -> bool {
        max == 255
    }

    #[inline(always)]
    unsafe fn load_16_bytes(self, rows: *const u8, stride: usize) -> [__m256i; 4] {
        // SAFETY: `self` proves the features, the caller guarantees the bytes.
        unsafe { transposed(rows, stride) }
    }

    #[inline(always)]
    unsafe fn load_4_bytes(self, rows: *const u8, stride: usize) -> __m256i {
        // SAFETY: `self` proves the features, the caller guarantees the bytes.
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let offsets = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(stride as i32));
            _mm256_i32gather_epi32::<1>(rows.cast(), offsets)
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: `self` proves the features; a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    fn and(self, v: __m256i, mask: u32) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_and_si256(v, _mm256_set1_epi32(mask as i32)) }
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn xor(self, v: __m256i, mask: u32) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_xor_si256(v, _mm256_set1_epi32(mask as i32)) }
    }

    #[inline(always)]
    fn shl(self, v: __m256i, n: u32) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_sllv_epi32(v, _mm256_set1_epi32(n as i32)) }
    }

    #[inline(always)]
    fn shr(self, v: __m256i, n: u32) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_srlv_epi32(v, _mm256_set1_epi32(n as i32)) }
    }

    #[inline(always)]
    fn sub_bytes(self, v: __m256i, n: u8) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_sub_epi8(v, _mm256_set1_epi8(n as i8)) }
    }

    #[inline(always)]
    fn half(self, v: __m256i) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe {
            let low = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(low, low));
            _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
        }
    }

    #[inline(always)]
    fn float(self, v: __m256i) -> __m256 {
        self.float_i(v)
    }

    #[inline(always)]
    fn splat_i(self, n: i32) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_epi32(n) }
    }

    #[inline(always)]
    fn float_i(self, v: __m256i) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_cvtepi32_ps(v) }
    }

    #[inline(always)]
    fn dots<const NT: usize>(self, max: u8, w: &[__m256i], x: &[i32], acc: &mut [__m256i; NT]) {
        // SAFETY: `self` proves the features.
        unsafe { dots(max, w, x, acc) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        let x = &x[..Self::LANES];
        // SAFETY: `self` proves the features; the slice has eight elements.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32]) {
        let out = &mut out[..Self::LANES];
        // SAFETY: `self` proves the features; the slice has eight elements.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
    }
}
