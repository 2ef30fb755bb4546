//! AVX2: eight rows in a register, one register or two.
//!
//! AVX-VNNI has an instruction that multiplies bytes, four to a lane. Without it they are multiplied by `vpmaddubsw`,
//! unsigned times signed, which adds pairs of products in 16 bits and would saturate: see [`exact_steps`]. Weights
//! that use all eight bits are then taken as signed numbers, their sign moved over to the activations: `w·x =
//! |w|·(sign(w)·x)`.

use std::arch::asm;
use std::arch::x86_64::*;

use super::rows::{Job, Rows};
use crate::isa::{Avx2, AvxVnni};

/// Rows in one register.
const IN_ONE: usize = 8;

/// How many `vpmaddubsw` results may be added in 16 bits without overflow, when weights are at most `max` (at most
/// 128 in magnitude for `max` = 255) and activations at most 127 in magnitude.
#[inline(always)]
pub(super) fn exact_steps(max: u8) -> usize {
    const fn is_exact(magnitude: i32, steps: i32) -> bool {
        magnitude * 127 * 2 * steps <= i16::MAX as i32
    }
    const {
        assert!(is_exact(15, 8) && is_exact(31, 4) && is_exact(63, 2) && is_exact(128, 1));
    }
    match max {
        0..=15 => 8,
        16..=31 => 4,
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

/// The four bytes of each of 8 rows. The instruction for it is slower than eight loads on most CPUs.
///
/// # Safety
/// 4 bytes can be read at `rows + r·stride` for `r` < 8.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn gathered(rows: *const u8, stride: usize) -> __m256i {
    // SAFETY: the caller guarantees these bytes.
    let row = |r: usize| unsafe { rows.add(r * stride).cast::<i32>().read_unaligned() };
    _mm256_setr_epi32(row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7))
}

/// The low 16 bits of each lane as a half-precision number.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn half(v: __m256i) -> __m256 {
    let low = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
    let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(low, low));
    _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
}

/// Nothing, but the compiler has to have `v` in a register here. Left alone it reorders the sums of a tile token by
/// token, and then has more of the weights alive than there are registers: half the speed.
#[target_feature(enable = "avx2")]
#[inline]
fn in_order(mut v: __m256i) -> __m256i {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {v} */", v = inout(ymm_reg) v, options(nomem, nostack, preserves_flags)) };
    v
}

/// The same for each register.
#[target_feature(enable = "avx2")]
#[inline]
fn each_in_order<const N: usize>(mut v: [__m256i; N]) -> [__m256i; N] {
    for v in &mut v {
        *v = in_order(*v);
    }
    v
}

/// `pairs` are products of four bytes in 16 bits; adds them to the sums of 32.
#[target_feature(enable = "avx2")]
#[inline]
fn add_pairs(acc: __m256i, pairs: __m256i) -> __m256i {
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// See [`Rows::dots`], when `STEPS` products, four or more, can be added in 16 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn dots_of_narrow<const N: usize, const NT: usize, const STEPS: usize>(
    w: &[[__m256i; N]],
    x: &[i32],
    acc: &mut [[__m256i; N]; NT],
) {
    for (w, x) in w.as_chunks::<STEPS>().0.iter().zip(x.chunks_exact(STEPS * NT)) {
        let mut pairs = [[_mm256_setzero_si256(); N]; NT];
        for k in 0..STEPS {
            let w = each_in_order(w[k]);
            for t in 0..NT {
                let x = _mm256_set1_epi32(x[k * NT + t]);
                for i in 0..N {
                    let product = _mm256_maddubs_epi16(w[i], x);
                    let sum = if k == 0 { product } else { _mm256_add_epi16(pairs[t][i], product) };
                    pairs[t][i] = in_order(sum);
                }
            }
        }
        for t in 0..NT {
            for i in 0..N {
                acc[t][i] = add_pairs(acc[t][i], pairs[t][i]);
            }
        }
    }
}

/// See [`Rows::dots`], when one product or two can be added in 16 bits: sums in 16 bits beside those in 32 would need
/// more registers than there are.
#[target_feature(enable = "avx2")]
#[inline]
fn dots_of_wide<const N: usize, const NT: usize, const STEPS: usize>(
    is_signed: bool,
    w: &[[__m256i; N]],
    x: &[i32],
    acc: &mut [[__m256i; N]; NT],
) {
    for (w, x) in w.as_chunks::<STEPS>().0.iter().zip(x.chunks_exact(STEPS * NT)) {
        let mut w = *w;
        for w in &mut w {
            *w = each_in_order(*w);
        }
        for t in 0..NT {
            for i in 0..N {
                let mut pairs = _mm256_setzero_si256();
                for k in 0..STEPS {
                    let (w, x) = (w[k][i], _mm256_set1_epi32(x[k * NT + t]));
                    let product = if is_signed {
                        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                    } else {
                        _mm256_maddubs_epi16(w, x)
                    };
                    pairs = if k == 0 { product } else { _mm256_add_epi16(pairs, product) };
                }
                acc[t][i] = in_order(add_pairs(acc[t][i], pairs));
            }
        }
    }
}

/// The same by the instruction for it, whatever the weights are.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
fn dots_vnni<const N: usize, const NT: usize>(
    w: &[[__m256i; N]],
    x: &[i32],
    acc: &mut [[__m256i; N]; NT],
) {
    for (w, x) in w.iter().zip(x.as_chunks::<NT>().0) {
        for t in 0..NT {
            for i in 0..N {
                acc[t][i] = _mm256_dpbusd_avx_epi32(acc[t][i], w[i], _mm256_set1_epi32(x[t]));
            }
        }
    }
}

/// What differs between the sets with these registers.
pub(crate) trait Bytes: Copy {
    /// See [`Rows::compile`].
    fn compile<const N: usize, J: Job>(self, job: J);
    /// See [`Rows::takes_signed`].
    fn takes_signed(max: u8) -> bool;
    /// See [`Rows::dots`].
    fn dots<const N: usize, const NT: usize>(
        self,
        max: u8,
        w: &[[__m256i; N]],
        x: &[i32],
        acc: &mut [[__m256i; N]; NT],
    );
}

impl Bytes for Avx2 {
    fn compile<const N: usize, J: Job>(self, job: J) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<const N: usize, J: Job>(job: J) {
            job.run(Registers::<_, N>(Avx2::here()));
        }
        // SAFETY: `self` proves the features.
        unsafe { run::<N, J>(job) }
    }

    #[inline(always)]
    fn takes_signed(max: u8) -> bool {
        max == 255
    }

    #[inline(always)]
    fn dots<const N: usize, const NT: usize>(
        self,
        max: u8,
        w: &[[__m256i; N]],
        x: &[i32],
        acc: &mut [[__m256i; N]; NT],
    ) {
        let steps = exact_steps(max).min(w.len());
        // SAFETY: `self` proves the features.
        unsafe {
            match steps {
                1 => dots_of_wide::<N, NT, 1>(max == 255, w, x, acc),
                2 => dots_of_wide::<N, NT, 2>(false, w, x, acc),
                4 => dots_of_narrow::<N, NT, 4>(w, x, acc),
                _ => dots_of_narrow::<N, NT, 8>(w, x, acc),
            }
        }
    }
}

impl Bytes for AvxVnni {
    fn compile<const N: usize, J: Job>(self, job: J) {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn run<const N: usize, J: Job>(job: J) {
            job.run(Registers::<_, N>(AvxVnni::here()));
        }
        // SAFETY: `self` proves the features.
        unsafe { run::<N, J>(job) }
    }

    #[inline(always)]
    fn takes_signed(_: u8) -> bool {
        false
    }

    #[inline(always)]
    fn dots<const N: usize, const NT: usize>(
        self,
        _: u8,
        w: &[[__m256i; N]],
        x: &[i32],
        acc: &mut [[__m256i; N]; NT],
    ) {
        // SAFETY: `self` proves the features.
        unsafe { dots_vnni(w, x, acc) }
    }
}

/// `N` registers for each vector over rows.
#[derive(Clone, Copy)]
pub(crate) struct Registers<T, const N: usize>(pub T);

/// What each register of a vector becomes, beginning with `v`.
macro_rules! each {
    ($v:expr, $i:ident => $of:expr) => {{
        let mut out = $v;
        for $i in 0..N {
            // SAFETY: `self` proves the features.
            out[$i] = unsafe { $of };
        }
        out
    }};
}

impl<T: Bytes, const N: usize> Rows for Registers<T, N> {
    const LANES: usize = N * IN_ONE;
    const TOKENS: usize = 4;
    type Few = Registers<T, 1>;
    type U = [__m256i; N];
    type I = [__m256i; N];
    type F = [__m256; N];

    fn compile<J: Job>(self, job: J) {
        self.0.compile::<N, J>(job);
    }

    #[inline(always)]
    fn few(self) -> Registers<T, 1> {
        Registers(self.0)
    }

    #[inline(always)]
    fn takes_signed(max: u8) -> bool {
        T::takes_signed(max)
    }

    #[inline(always)]
    unsafe fn load_16_bytes(self, rows: *const u8, stride: usize) -> [Self::U; 4] {
        let mut out = [self.splat_i(0); 4];
        for i in 0..N {
            // SAFETY: `self` proves the features, the caller guarantees the bytes.
            let quarters = unsafe { transposed(rows.add(i * IN_ONE * stride), stride) };
            for (out, quarter) in out.iter_mut().zip(quarters) {
                out[i] = quarter;
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn load_4_bytes(self, rows: *const u8, stride: usize) -> Self::U {
        // The caller guarantees the bytes.
        each!(self.splat_i(0), i => gathered(rows.add(i * IN_ONE * stride), stride))
    }

    #[inline(always)]
    fn and(self, v: Self::U, mask: u32) -> Self::U {
        each!(v, i => _mm256_and_si256(v[i], _mm256_set1_epi32(mask as i32)))
    }

    #[inline(always)]
    fn or(self, a: Self::U, b: Self::U) -> Self::U {
        each!(a, i => _mm256_or_si256(a[i], b[i]))
    }

    #[inline(always)]
    fn xor(self, v: Self::U, mask: u32) -> Self::U {
        each!(v, i => _mm256_xor_si256(v[i], _mm256_set1_epi32(mask as i32)))
    }

    #[inline(always)]
    fn shl(self, v: Self::U, n: u32) -> Self::U {
        each!(v, i => _mm256_sllv_epi32(v[i], _mm256_set1_epi32(n as i32)))
    }

    #[inline(always)]
    fn shr(self, v: Self::U, n: u32) -> Self::U {
        each!(v, i => _mm256_srlv_epi32(v[i], _mm256_set1_epi32(n as i32)))
    }

    #[inline(always)]
    fn sub_bytes(self, v: Self::U, n: u8) -> Self::U {
        each!(v, i => _mm256_sub_epi8(v[i], _mm256_set1_epi8(n as i8)))
    }

    #[inline(always)]
    fn spread_to_bit_4(self, v: Self::U) -> Self::U {
        // Copies of the four bits that do not meet, each with one of them in its place.
        let copies = self.and(v, 15);
        let copies = each!(copies, i => {
            _mm256_mullo_epi32(copies[i], _mm256_set1_epi32(1 << 4 | 1 << 11 | 1 << 18 | 1 << 25))
        });
        self.and(copies, 0x1010_1010)
    }

    #[inline(always)]
    fn half(self, v: Self::U) -> Self::F {
        each!(self.splat(0.0), i => half(v[i]))
    }

    #[inline(always)]
    fn float(self, v: Self::U) -> Self::F {
        self.float_i(v)
    }

    #[inline(always)]
    fn splat_i(self, n: i32) -> Self::I {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_set1_epi32(n); N] }
    }

    #[inline(always)]
    fn float_i(self, v: Self::I) -> Self::F {
        each!(self.splat(0.0), i => _mm256_cvtepi32_ps(v[i]))
    }

    #[inline(always)]
    fn dots<const NT: usize>(self, max: u8, w: &[Self::U], x: &[i32], acc: &mut [Self::I; NT]) {
        self.0.dots(max, w, x, acc);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_set1_ps(x); N] }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each!(a, i => _mm256_add_ps(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each!(a, i => _mm256_mul_ps(a[i], b[i]))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each!(c, i => _mm256_fmadd_ps(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        let x = &x[..Self::LANES];
        // Each register's part lies within the slice.
        each!(self.splat(0.0), i => _mm256_loadu_ps(x.as_ptr().add(IN_ONE * i)))
    }

    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32]) {
        let out = &mut out[..Self::LANES];
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<IN_ONE>().0) {
            // SAFETY: `self` proves the features; eight elements can be written.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
        }
    }
}
