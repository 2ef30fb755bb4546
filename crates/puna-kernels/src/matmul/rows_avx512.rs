//! AVX-512: thirty-two rows in a pair of registers. The two sets differ in how bytes are multiplied.

use std::arch::x86_64::*;

use super::rows::{Job, Rows};
use super::rows_avx2::{exact_steps, gathered as eight};
use crate::isa::{Avx512, Avx512Vnni};

/// Rows in one register.
const HALF: usize = 16;

/// 16 bytes of each of 16 rows, transposed as a matrix of 32-bit numbers.
///
/// # Safety
/// 16 bytes can be read at `rows + r·stride` for `r` < 16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn transposed(rows: *const u8, stride: usize) -> [__m512i; 4] {
    // Quarter `q` of vector `i` is row `4·q + i`, so that the transpositions within quarters below leave
    // rows in order.
    let mut v = [_mm512_setzero_si512(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        // SAFETY: the caller guarantees these bytes.
        unsafe {
            let row = |quarter: usize| _mm_loadu_si128(rows.add((4 * quarter + i) * stride).cast());
            let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(row(0)), row(1));
            *v = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, row(2)), row(3));
        }
    }
    let [a, b, c, d] = v;
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The four bytes of each of 16 rows. By loads here too: the instruction for it is slower still where microcode mends
/// its leak (Downfall).
///
/// # Safety
/// 4 bytes can be read at `rows + r·stride` for `r` < 16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn gathered(rows: *const u8, stride: usize) -> __m512i {
    // SAFETY: the caller guarantees these bytes.
    let (low, high) = unsafe { (eight(rows, stride), eight(rows.add(8 * stride), stride)) };
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// By the instruction for it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
#[inline]
fn dots_vnni<const NT: usize>(w: &[[__m512i; 2]], x: &[i32], acc: &mut [[__m512i; 2]; NT]) {
    for (w, x) in w.iter().zip(x.as_chunks::<NT>().0) {
        for t in 0..NT {
            let x = _mm512_set1_epi32(x[t]);
            acc[t][0] = _mm512_dpbusd_epi32(acc[t][0], w[0], x);
            acc[t][1] = _mm512_dpbusd_epi32(acc[t][1], w[1], x);
        }
    }
}

/// Through pairs in 16 bits, as in [`super::rows_avx2`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn dots_by_pairs<const NT: usize>(
    max: u8,
    w: &[[__m512i; 2]],
    x: &[i32],
    acc: &mut [[__m512i; 2]; NT],
) {
    let ones = _mm512_set1_epi16(1);
    let steps = exact_steps(max).min(w.len());
    for (w, x) in w.chunks_exact(steps).zip(x.chunks_exact(steps * NT)) {
        for t in 0..NT {
            for half in 0..2 {
                let mut pairs = _mm512_setzero_si512();
                for k in 0..steps {
                    let (w, x) = (w[k][half], _mm512_set1_epi32(x[k * NT + t]));
                    let product = if max == 255 {
                        let zero = _mm512_setzero_si512();
                        let x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), zero, x);
                        _mm512_maddubs_epi16(_mm512_abs_epi8(w), x)
                    } else {
                        _mm512_maddubs_epi16(w, x)
                    };
                    pairs = _mm512_add_epi16(pairs, product);
                }
                let sums = _mm512_madd_epi16(pairs, ones);
                acc[t][half] = _mm512_add_epi32(acc[t][half], sums);
            }
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
    ($token:ty, $features:literal, $signed_from:literal, |$max:ident, $w:ident, $x:ident, $acc:ident| $dots:block) => {
        impl Rows for $token {
            const LANES: usize = 2 * HALF;
            const TOKENS: usize = 6;
            type Few = Self;
            type U = [__m512i; 2];
            type I = [__m512i; 2];
            type F = [__m512; 2];

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
            fn takes_signed(max: u8) -> bool {
                u32::from(max) >= $signed_from
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
                both!(i => _mm512_and_si512(v[i], _mm512_set1_epi32(mask as i32)))
            }

            #[inline(always)]
            fn or(self, a: Self::U, b: Self::U) -> Self::U {
                both!(i => _mm512_or_si512(a[i], b[i]))
            }

            #[inline(always)]
            fn xor(self, v: Self::U, mask: u32) -> Self::U {
                both!(i => _mm512_xor_si512(v[i], _mm512_set1_epi32(mask as i32)))
            }

            #[inline(always)]
            fn shl(self, v: Self::U, n: u32) -> Self::U {
                both!(i => _mm512_sllv_epi32(v[i], _mm512_set1_epi32(n as i32)))
            }

            #[inline(always)]
            fn shr(self, v: Self::U, n: u32) -> Self::U {
                both!(i => _mm512_srlv_epi32(v[i], _mm512_set1_epi32(n as i32)))
            }

            #[inline(always)]
            fn sub_bytes(self, v: Self::U, n: u8) -> Self::U {
                both!(i => _mm512_sub_epi8(v[i], _mm512_set1_epi8(n as i8)))
            }

            #[inline(always)]
            fn spread_to_bit_4(self, v: Self::U) -> Self::U {
                // A table of the sixteen cases: the permutation looks at the low four bits alone.
                both!(i => {
                    let table = _mm512_setr_epi32(
                        0, 0x10, 0x1000, 0x1010, 0x10_0000, 0x10_0010, 0x10_1000, 0x10_1010,
                        0x1000_0000, 0x1000_0010, 0x1000_1000, 0x1000_1010,
                        0x1010_0000, 0x1010_0010, 0x1010_1000, 0x1010_1010,
                    );
                    _mm512_permutexvar_epi32(v[i], table)
                })
            }

            #[inline(always)]
            fn half(self, v: Self::U) -> Self::F {
                both!(i => _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v[i])))
            }

            #[inline(always)]
            fn float(self, v: Self::U) -> Self::F {
                self.float_i(v)
            }

            #[inline(always)]
            fn splat_i(self, n: i32) -> Self::I {
                both!(_i => _mm512_set1_epi32(n))
            }

            #[inline(always)]
            fn float_i(self, v: Self::I) -> Self::F {
                both!(i => _mm512_cvtepi32_ps(v[i]))
            }

            #[inline(always)]
            fn dots<const NT: usize>(
                self,
                $max: u8,
                $w: &[Self::U],
                $x: &[i32],
                $acc: &mut [Self::I; NT],
            ) {
                // SAFETY: `self` proves the features.
                unsafe { $dots }
            }

            #[inline(always)]
            fn splat(self, x: f32) -> Self::F {
                both!(_i => _mm512_set1_ps(x))
            }

            #[inline(always)]
            fn add(self, a: Self::F, b: Self::F) -> Self::F {
                both!(i => _mm512_add_ps(a[i], b[i]))
            }

            #[inline(always)]
            fn mul(self, a: Self::F, b: Self::F) -> Self::F {
                both!(i => _mm512_mul_ps(a[i], b[i]))
            }

            #[inline(always)]
            fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
                both!(i => _mm512_fmadd_ps(a[i], b[i], c[i]))
            }

            #[inline(always)]
            fn load(self, x: &[f32]) -> Self::F {
                let x = &x[..Self::LANES];
                // Each half lies within the slice.
                both!(i => _mm512_loadu_ps(x.as_ptr().add(HALF * i)))
            }

            #[inline(always)]
            fn store(self, v: Self::F, out: &mut [f32]) {
                let out = &mut out[..Self::LANES];
                // SAFETY: `self` proves the features; each half lies within the slice.
                unsafe {
                    _mm512_storeu_ps(out.as_mut_ptr(), v[0]);
                    _mm512_storeu_ps(out.as_mut_ptr().add(HALF), v[1]);
                }
            }
        }
    };
}

rows!(Avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl", 255, |max, w, x, acc| {
    dots_by_pairs(max, w, x, acc);
});
rows!(
    Avx512Vnni,
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
    256,
    |_max, w, x, acc| {
        dots_vnni(w, x, acc);
    }
);
