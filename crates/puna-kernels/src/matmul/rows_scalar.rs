//! One row at a time in plain Rust: what the vectors of the other instruction sets do in each lane.

use half::f16;

use super::rows::{Job, Rows};
use crate::isa::Scalar;

impl Rows for Scalar {
    const LANES: usize = 1;
    const TOKENS: usize = 4;
    type Few = Self;
    type U = u32;
    type I = i32;
    type F = f32;

    fn compile<J: Job>(self, job: J) {
        job.run(self);
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
    unsafe fn load_16_bytes(self, rows: *const u8, _stride: usize) -> [u32; 4] {
        // SAFETY: the caller guarantees 16 readable bytes; a byte array has no alignment.
        let bytes = unsafe { rows.cast::<[[u8; 4]; 4]>().read() };
        bytes.map(u32::from_le_bytes)
    }

    #[inline(always)]
    unsafe fn load_4_bytes(self, rows: *const u8, _stride: usize) -> u32 {
        // SAFETY: the caller guarantees 4 readable bytes; a byte array has no alignment.
        u32::from_le_bytes(unsafe { rows.cast::<[u8; 4]>().read() })
    }

    #[inline(always)]
    fn and(self, v: u32, mask: u32) -> u32 {
        v & mask
    }

    #[inline(always)]
    fn or(self, a: u32, b: u32) -> u32 {
        a | b
    }

    #[inline(always)]
    fn xor(self, v: u32, mask: u32) -> u32 {
        v ^ mask
    }

    #[inline(always)]
    fn shl(self, v: u32, n: u32) -> u32 {
        v << n
    }

    #[inline(always)]
    fn shr(self, v: u32, n: u32) -> u32 {
        v >> n
    }

    #[inline(always)]
    fn sub_bytes(self, v: u32, n: u8) -> u32 {
        u32::from_le_bytes(v.to_le_bytes().map(|b| b.wrapping_sub(n)))
    }

    #[inline(always)]
    fn half(self, v: u32) -> f32 {
        f16::from_bits(v as u16).to_f32()
    }

    #[inline(always)]
    fn float(self, v: u32) -> f32 {
        v as f32
    }

    #[inline(always)]
    fn splat_i(self, n: i32) -> i32 {
        n
    }

    #[inline(always)]
    fn float_i(self, v: i32) -> f32 {
        v as f32
    }

    #[inline(always)]
    fn dots<const NT: usize>(self, _max: u8, w: &[u32], x: &[i32], acc: &mut [i32; NT]) {
        for (w, x) in w.iter().zip(x.as_chunks::<NT>().0) {
            for (acc, x) in acc.iter_mut().zip(x) {
                for (w, x) in w.to_le_bytes().into_iter().zip(x.to_le_bytes()) {
                    *acc += i32::from(w as i8) * i32::from(x as i8);
                }
            }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }

    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }

    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> f32 {
        x[0]
    }

    #[inline(always)]
    fn store(self, v: f32, out: &mut [f32]) {
        out[0] = v;
    }
}
