//! Products of pairs of bf16, two in each lane of a vector, where an instruction set has them.
//!
//! A pair is the 32 bits of one `f32` lane: its low half holds the first element. So pairs are loaded, stored and
//! splatted as any other vector; only arithmetic on them means nothing.

use half::bf16;

use super::Simd;
use crate::Cpu;
use crate::isa::{Isa, Scalar, Token};

/// An algorithm over pairs, waiting for an instruction set. `run` must be `#[inline(always)]`.
pub trait PairsOp {
    /// What it returns.
    type Output;

    /// Runs with the vectors of `simd` and pairs in their lanes.
    fn run<S: Simd, P: Pairs<S>>(self, simd: S, pairs: P) -> Self::Output;
}

/// Pairs of bf16 in the lanes of an instruction set's vectors. Rounding is to nearest even.
pub trait Pairs<S: Simd>: Copy + Send + Sync {
    /// Neighbours of up to `2·LANES` floats: lane `i` holds `x[2i]` and `x[2i + 1]`, zeros for what lacks.
    fn neighbours(self, s: S, x: &[f32]) -> S::F32;
    /// Lane `i` holds `low[i]` and `high[i]`.
    fn zip(self, s: S, low: S::F32, high: S::F32) -> S::F32;
    /// To each lane of `sum` adds the product of the second elements of `a` and `b`, then that of the first, rounded
    /// each time; denormal numbers count as zeros.
    fn dot(self, s: S, a: S::F32, b: S::F32, sum: S::F32) -> S::F32;
    /// Runs `op` in a function of its own that has the instructions.
    fn run_pairs<O: PairsOp>(self, op: O) -> O::Output;
}

impl Isa {
    /// Whether it has instructions for products of pairs of bf16.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        self == Isa::Avx512Bf16
    }

    /// Whether those instructions are faster here than f32: on AMD's CPUs, which do twice as many products a second by
    /// them. Intel's Sapphire Rapids was measured at 0.45 times its f32 rate; its matrix unit is not used.
    #[must_use]
    pub fn has_fast_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let vendor = std::arch::x86_64::__cpuid(0);
            let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat();
            self.has_bf16() && name == b"AuthenticAMD"
        }
        #[cfg(not(target_arch = "x86_64"))]
        self.has_bf16()
    }
}

impl Cpu {
    /// Runs `op` on the caller's thread with the pairs of the instruction set in use; [`Isa::Scalar`] computes the same
    /// bits, slowly.
    ///
    /// # Panics
    /// When the set is another and lacks [`Isa::has_bf16`].
    pub fn dispatch_pairs<O: PairsOp>(&self, op: O) -> O::Output {
        match self.token() {
            Token::Scalar(t) => t.run_pairs(op),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(t) => t.run_pairs(op),
            token => panic!("{} has no products of bf16", token.isa()),
        }
    }
}

impl Pairs<Scalar> for Scalar {
    #[inline(always)]
    fn neighbours(self, s: Scalar, x: &[f32]) -> <Scalar as Simd>::F32 {
        let element = |i: usize| x.get(i).copied().unwrap_or(0.0);
        let halves = [0, 1].map(|half| std::array::from_fn(|i| element(2 * i + half)));
        self.zip(s, halves[0], halves[1])
    }

    #[inline(always)]
    fn zip(
        self,
        _: Scalar,
        low: <Scalar as Simd>::F32,
        high: <Scalar as Simd>::F32,
    ) -> <Scalar as Simd>::F32 {
        let bits = |x: f32| u32::from(bf16::from_f32(normal(x)).to_bits());
        std::array::from_fn(|i| f32::from_bits(bits(low[i]) | bits(high[i]) << 16))
    }

    #[inline(always)]
    fn dot(
        self,
        _: Scalar,
        a: <Scalar as Simd>::F32,
        b: <Scalar as Simd>::F32,
        sum: <Scalar as Simd>::F32,
    ) -> <Scalar as Simd>::F32 {
        let first = |pair: f32| normal(f32::from_bits(pair.to_bits() << 16));
        let second = |pair: f32| normal(f32::from_bits(pair.to_bits() & 0xffff_0000));
        std::array::from_fn(|i| {
            // Products of two bf16 are exact.
            let with_second = normal(normal(sum[i]) + second(a[i]) * second(b[i]));
            normal(with_second + first(a[i]) * first(b[i]))
        })
    }

    fn run_pairs<O: PairsOp>(self, op: O) -> O::Output {
        op.run(self, self)
    }
}

/// The number, or zero of its sign where it is denormal.
fn normal(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// # Safety contract of this module
/// A [`Avx512Bf16`] proves the features; loads are masked to the length of the slice.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::{Pairs, PairsOp, Simd};
    use crate::isa::{Avx512, Avx512Bf16};

    pub(super) fn vectorize<O: PairsOp>(token: Avx512Bf16, op: O) -> O::Output {
        #[target_feature(
            enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16"
        )]
        fn run<O: PairsOp>(token: Avx512Bf16, op: O) -> O::Output {
            op.run(token.avx512_vnni().avx512(), token)
        }
        // SAFETY: `token` proves the features.
        unsafe { run(token, op) }
    }

    /// Moves elements of two halves of sixteen to alternate places.
    static ZIP: [u16; 32] = {
        let mut places = [0; 32];
        let mut i = 0;
        while i < 32 {
            places[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        places
    };

    impl Pairs<Avx512> for Avx512Bf16 {
        #[inline(always)]
        fn neighbours(self, s: Avx512, x: &[f32]) -> __m512 {
            let (low, high) = x.split_at(x.len().min(16));
            let (low, high) = (s.load_partial(low), s.load_partial(high));
            // SAFETY: `self` proves the features; both types are 512 bits of any value.
            unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low)) }
        }

        #[inline(always)]
        fn zip(self, _: Avx512, low: __m512, high: __m512) -> __m512 {
            // SAFETY: `self` proves the features; all types are 512 bits of any value, and so is the table.
            unsafe {
                let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                let places = _mm512_loadu_si512(ZIP.as_ptr().cast());
                _mm512_castsi512_ps(_mm512_permutexvar_epi16(places, halves))
            }
        }

        #[inline(always)]
        fn dot(self, _: Avx512, a: __m512, b: __m512, sum: __m512) -> __m512 {
            // SAFETY: `self` proves the features; both types are 512 bits of any value.
            unsafe {
                let (a, b) = (transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b));
                _mm512_dpbf16_ps(sum, a, b)
            }
        }

        fn run_pairs<O: PairsOp>(self, op: O) -> O::Output {
            vectorize(self, op)
        }
    }
}

#[cfg(test)]
mod tests {
    use puna_core::Rng;

    use super::*;
    use crate::testing::cpus;

    /// Pairs of neighbours of `a` times zipped halves of `b`, added to `a`'s first elements, and both kinds of pairs.
    struct AllThree<'a>(&'a [f32], &'a [f32], &'a mut [f32]);

    impl PairsOp for AllThree<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd, P: Pairs<S>>(self, s: S, p: P) {
            let Self(a, b, out) = self;
            let n = out.len() / 3;
            for i in (0..n).step_by(S::LANES) {
                let end = n.min(i + S::LANES);
                let x = p.neighbours(s, &a[2 * i..2 * end]);
                let y = p.zip(s, s.load_partial(&b[i..end]), s.load_partial(&b[n + i..n + end]));
                let sum = p.dot(s, x, y, s.load_partial(&a[i..end]));
                for (place, v) in [x, y, sum].into_iter().enumerate() {
                    s.store_partial(v, &mut out[place * n..][i..end]);
                }
            }
        }
    }

    #[test]
    fn every_set_gives_the_bits_of_plain_code() {
        let mut rng = Rng::new(1, 0);
        for n in [1, 3, 4, 15, 16, 17, 100] {
            let mut floats = || (0..2 * n).map(|_| (rng.next_f64() * 4.0 - 2.0) as f32).collect();
            let (mut a, b): (Vec<f32>, Vec<f32>) = (floats(), floats());
            a[0] = 1e-40;
            let mut expected = vec![0.0; 3 * n];
            Cpu::with_isa(Isa::Scalar, 1).unwrap().dispatch_pairs(AllThree(&a, &b, &mut expected));
            for cpu in cpus().into_iter().filter(|cpu| cpu.isa().has_bf16()) {
                let mut found = vec![0.0; 3 * n];
                cpu.dispatch_pairs(AllThree(&a, &b, &mut found));
                for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
                    assert_eq!(f.to_bits(), e.to_bits(), "{} at {i} of {n}: {f}, {e}", cpu.isa());
                }
            }
            for (i, sum) in expected[2 * n..].iter().enumerate() {
                let [x, y] = [a[2 * i], a[2 * i + 1]].map(f64::from);
                let [v, w] = [b[i], b[n + i]].map(f64::from);
                let exact = f64::from(a[i]) + x * v + y * w;
                assert!((f64::from(*sum) - exact).abs() < 0.07, "{sum}, exactly {exact}");
            }
        }
    }
}
