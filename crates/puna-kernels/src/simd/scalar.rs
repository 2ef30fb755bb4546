//! Plain Rust: four lanes in an array, which a compiler may or may not put in a register. Multiplies and
//! adds are rounded apart: a fused one would be a call to a slow library routine on CPUs without it.

use half::{bf16, f16};

use super::{Op, Simd};
use crate::isa::Scalar;

const LANES: usize = 4;

impl Scalar {
    #[inline(always)]
    fn zip(a: [f32; LANES], b: [f32; LANES], f: fn(f32, f32) -> f32) -> [f32; LANES] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }
}

impl Simd for Scalar {
    const LANES: usize = LANES;
    const N_REGISTERS: usize = 16;
    type F32 = [f32; LANES];

    fn vectorize<O: Op>(self, op: O) -> O::Output {
        op.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F32 {
        std::array::from_fn(|i| x[i])
    }

    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> Self::F32 {
        std::array::from_fn(|i| x.get(i).copied().unwrap_or(0.0))
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8]) -> Self::F32 {
        std::array::from_fn(|i| f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8]) -> Self::F32 {
        std::array::from_fn(|i| bf16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8]) -> Self::F32 {
        let (elements, _) = bytes.as_chunks::<4>();
        std::array::from_fn(|i| f32::from_le_bytes(elements[i]))
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8]) -> Self::F32 {
        std::array::from_fn(|i| f32::from(bytes[i] as i8))
    }

    #[inline(always)]
    fn store(self, v: Self::F32, out: &mut [f32]) {
        out[..LANES].copy_from_slice(&v);
    }

    #[inline(always)]
    fn store_partial(self, v: Self::F32, out: &mut [f32]) {
        let n = out.len().min(LANES);
        out[..n].copy_from_slice(&v[..n]);
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        Self::zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        Self::zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        Self::zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        Self::zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        Self::zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        Self::zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self, v: Self::F32) -> Self::F32 {
        // Adding and taking away 1.5·2²³ leaves no bits below one, rounding to nearest even.
        const SHIFT: f32 = 12_582_912.0;
        v.map(|x| (x + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn zero_below(self, v: Self::F32, x: Self::F32, limit: f32) -> Self::F32 {
        std::array::from_fn(|i| if x[i] < limit { 0.0 } else { v[i] })
    }

    #[inline(always)]
    fn mul_exp2(self, v: Self::F32, n: Self::F32) -> Self::F32 {
        let half = self.round(self.mul(n, self.splat(0.5)));
        self.mul(self.mul(v, exp2_int(half)), exp2_int(self.sub(n, half)))
    }

    #[inline(always)]
    fn sum(self, v: Self::F32) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }

    #[inline(always)]
    fn max_lane(self, v: Self::F32) -> f32 {
        v[0].max(v[2]).max(v[1].max(v[3]))
    }
}

/// `2ⁿ` for integers `n` in −126..=127 given as floats, by writing the exponent.
#[inline(always)]
fn exp2_int(n: [f32; LANES]) -> [f32; LANES] {
    n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
}
