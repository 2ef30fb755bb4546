//! Vectors of `f32` behind one small trait, so that an algorithm is written once.
//!
//! An algorithm is a struct holding its arguments that implements [`Op`]; `run` is generic over [`Simd`] and
//! contains no `unsafe`. [`Simd::vectorize`] compiles it for one instruction set, [`Cpu::dispatch`] picks
//! the set at run time: one branch for a whole row or block, never for one vector.
//!
//! Two rules keep the generated code good. Every function between `run` and the vector methods is
//! `#[inline(always)]`: the features of the entry point reach only what is inlined into it. And no closure
//! touches a vector, for a closure is a function of its own, without those features.
//!
//! **Tails.** Slices whose length is no multiple of [`Simd::LANES`] end with [`Simd::load_partial`], which fills
//! the missing lanes with zeros, and [`Simd::store_partial`], which writes only what the slice holds.
//!
//! # Safety contract of this module
//! The implementations call intrinsics that need CPU features; each receives `self`, a token that exists
//! only where those features were detected. Loads and stores assert the length of the slice.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pairs;
mod scalar;

pub use self::pairs::{Pairs, PairsOp};
pub use crate::math::exp;

#[cfg(doc)]
use crate::Cpu;
use crate::isa::Token;

/// An algorithm waiting for an instruction set. `run` must be `#[inline(always)]`.
pub trait Op {
    /// What it returns.
    type Output;

    /// Runs with the vectors of `simd`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// One instruction set's vectors of `f32`, implemented by its token.
pub trait Simd: Copy + Send + Sync {
    /// Elements in a vector.
    const LANES: usize;
    /// Vector registers of the machine: how large a block of accumulators may be.
    const N_REGISTERS: usize;
    /// A vector of `LANES` elements.
    type F32: Copy;

    /// Runs `op` compiled for this instruction set.
    fn vectorize<O: Op>(self, op: O) -> O::Output;

    /// The same value in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// The first `LANES` elements. Panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::F32;
    /// Up to `LANES` elements; missing lanes are zero.
    fn load_partial(self, x: &[f32]) -> Self::F32;
    /// `LANES` elements of IEEE half precision, little-endian, from the front of `bytes`, converted exactly.
    fn load_f16(self, bytes: &[u8]) -> Self::F32;
    /// The same of bf16.
    fn load_bf16(self, bytes: &[u8]) -> Self::F32;
    /// The same of f32.
    fn load_f32(self, bytes: &[u8]) -> Self::F32;
    /// `LANES` signed bytes from the front of `bytes`.
    fn load_i8(self, bytes: &[u8]) -> Self::F32;
    /// Writes the first `LANES` elements of `out`. Panics when there are fewer.
    fn store(self, v: Self::F32, out: &mut [f32]);
    /// Writes the elements that `out` has, at most `LANES`.
    fn store_partial(self, v: Self::F32, out: &mut [f32]);

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a − b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once; twice on [scalar](crate::Isa::Scalar).
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The greater of `a`, which must not be a NaN, and `b`; a NaN in `b` stays.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The lesser of `a`, which must not be a NaN, and `b`; a NaN in `b` stays.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The nearest integer, ties to even, of values within ±2²²; a NaN stays.
    fn round(self, v: Self::F32) -> Self::F32;
    /// `v` where `x ≥ limit` or `x` is a NaN, else zero.
    fn zero_below(self, v: Self::F32, x: Self::F32, limit: f32) -> Self::F32;
    /// `v · 2ⁿ` for normal `v` and integers `n` within ±250 given as floats, rounded once.
    fn mul_exp2(self, v: Self::F32, n: Self::F32) -> Self::F32;

    /// The sum of the lanes, halves first: lane `i` with lane `i + LANES/2`, and so on down.
    fn sum(self, v: Self::F32) -> f32;
    /// The [sums](Simd::sum) of four vectors, to the bit, together in fewer instructions where that can be.
    #[inline(always)]
    fn sums(self, v: [Self::F32; 4]) -> [f32; 4] {
        v.map(|v| self.sum(v))
    }
    /// The greatest lane; unspecified when there is a NaN.
    fn max_lane(self, v: Self::F32) -> f32;
}

/// Asks for the cache lines of a slice of small elements.
#[inline(always)]
pub fn prefetch_slice<T>(x: &[T]) {
    for line in x.chunks(64 / size_of::<T>()) {
        prefetch(line.as_ptr().cast());
    }
}

/// Asks for the cache line at `address`, which need not be readable, into the cache of the second level.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction; it never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch never faults and changes no state that a program can see.
    unsafe {
        std::arch::asm!(
            "prfm pldl2keep, [{address}]",
            address = in(reg) address,
            options(readonly, nostack, preserves_flags),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

impl Token {
    /// Runs `op` compiled for the instruction set of this token.
    pub(crate) fn dispatch<O: Op>(self, op: O) -> O::Output {
        match self {
            Token::Scalar(t) => t.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(t) => t.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Token::AvxVnni(t) => t.avx2().vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(t) => t.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Vnni(t) => t.avx512().vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(t) => t.avx512_vnni().avx512().vectorize(op),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(t) => t.vectorize(op),
            #[cfg(target_arch = "aarch64")]
            Token::NeonDot(t) => t.neon().vectorize(op),
            #[cfg(target_arch = "aarch64")]
            Token::NeonI8mm(t) => t.neon_dot().neon().vectorize(op),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cpus;

    /// Whether the sums of four vectors are those of each.
    struct FourSums;

    impl Op for FourSums {
        type Output = bool;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> bool {
            let floats: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32).exp2() - 0.1).collect();
            let v = [0, 16, 32, 48].map(|start| s.load(&floats[start..]));
            s.sums(v).map(f32::to_bits) == v.map(|v| s.sum(v).to_bits())
        }
    }

    #[test]
    fn four_sums_are_those_of_each_vector() {
        for cpu in cpus() {
            assert!(cpu.dispatch(FourSums), "{}", cpu.isa());
        }
    }
}
