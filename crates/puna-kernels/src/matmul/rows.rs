//! Rows side by side: the vectors that products of quantised weights are written in.
//!
//! Lane `r` of every vector belongs to row `r` of a group of [`Rows::LANES`] matrix rows. A vector of type
//! [`Rows::U`] holds four consecutive elements of each row, one byte each, or one 32-bit number of each
//! row. So an output is always summed within one lane, and how many rows or tokens are worked on at once
//! cannot change its bits.
//!
//! As in [`crate::simd`], implementors are the tokens of [`crate::isa`], every function between
//! [`Rows::compile`] and the vector methods is `#[inline(always)]`, and no closure touches a vector.

#[cfg(target_arch = "x86_64")]
use super::rows_avx2::Registers;
use crate::isa::Token;

/// Work waiting for an instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Job {
    /// Does it with the vectors of `s`.
    fn run<S: Rows>(self, s: S);
}

/// One instruction set's vectors over rows.
pub(crate) trait Rows: Copy {
    /// Rows in a vector. It may take more than one register.
    const LANES: usize;
    /// Tokens that are multiplied at once, bounded by the registers for `2·TOKENS` vectors.
    const TOKENS: usize;
    /// Vectors of the same instruction set for few tokens, when weights are used where they were decoded: few
    /// rows leave registers for that.
    type Few: Rows;
    /// 32 bits of each row.
    type U: Copy;
    /// An `i32` for each row.
    type I: Copy;
    /// An `f32` for each row.
    type F: Copy;

    /// Runs `job` compiled for this instruction set.
    fn compile<J: Job>(self, job: J);

    /// The proof for [`Rows::Few`].
    fn few(self) -> Self::Few;

    /// Whether [`Rows::dots`] takes weights of up to `max` as signed numbers around zero, rather than as
    /// unsigned numbers whose offset is taken back by the initial sums.
    fn takes_signed(max: u8) -> bool;

    /// 16 bytes of each row: vector `i` has bytes `4·i..4·i + 4`.
    ///
    /// # Safety
    /// 16 bytes can be read at `rows + r·stride` for every lane `r`.
    unsafe fn load_16_bytes(self, rows: *const u8, stride: usize) -> [Self::U; 4];
    /// 4 bytes of each row.
    ///
    /// # Safety
    /// 4 bytes can be read at `rows + r·stride` for every lane `r`.
    unsafe fn load_4_bytes(self, rows: *const u8, stride: usize) -> Self::U;

    /// Bits that are set in `v` and in `mask`.
    fn and(self, v: Self::U, mask: u32) -> Self::U;
    /// Bits that are set in `a` or `b`.
    fn or(self, a: Self::U, b: Self::U) -> Self::U;
    /// Bits that differ between `v` and `mask`.
    fn xor(self, v: Self::U, mask: u32) -> Self::U;
    /// Each lane's 32 bits moved up by `n`.
    fn shl(self, v: Self::U, n: u32) -> Self::U;
    /// Each lane's 32 bits moved down by `n`.
    fn shr(self, v: Self::U, n: u32) -> Self::U;
    /// Each byte less `n`, modulo 256.
    fn sub_bytes(self, v: Self::U, n: u8) -> Self::U;

    /// Bit `b` of the low four of each lane becomes bit 4 of byte `b`; other bits are zero.
    #[inline(always)]
    fn spread_to_bit_4(self, v: Self::U) -> Self::U {
        let low = self.or(self.and(self.shl(v, 4), 0x10), self.and(self.shl(v, 11), 0x1000));
        let high =
            self.or(self.and(self.shl(v, 18), 0x10_0000), self.and(self.shl(v, 25), 0x1000_0000));
        self.or(low, high)
    }

    /// The low 16 bits of each lane as a half-precision number, converted exactly.
    fn half(self, v: Self::U) -> Self::F;
    /// Each lane, a number below 2³¹, as a float.
    fn float(self, v: Self::U) -> Self::F;

    /// The same number in every lane.
    fn splat_i(self, n: i32) -> Self::I;
    /// Each sum as a float, rounded to nearest even.
    fn float_i(self, v: Self::I) -> Self::F;
    /// For each token `t`, `acc[t]` plus the sum over all `w.len()·4` elements of weight times activation:
    /// exact. `x[k·NT + t]` holds the four signed bytes of token `t` that belong to `w[k]`. Weights are at
    /// most `max`, or signed where [`Rows::takes_signed`]; activations lie in −127..=127. `w.len()` is a
    /// multiple of 4.
    fn dots<const NT: usize>(self, max: u8, w: &[Self::U], x: &[i32], acc: &mut [Self::I; NT]);

    /// The same number in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once on every instruction set.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `LANES` elements. Panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::F;
    /// Writes `LANES` elements. Panics when there are fewer.
    fn store(self, v: Self::F, out: &mut [f32]);
}

/// Compiles and runs `job` for the instruction set of `token`.
pub(crate) fn dispatch<J: Job>(token: Token, job: J) {
    match token {
        Token::Scalar(t) => t.compile(job),
        #[cfg(target_arch = "x86_64")]
        Token::Avx2(t) => Registers::<_, 2>(t).compile(job),
        #[cfg(target_arch = "x86_64")]
        Token::AvxVnni(t) => Registers::<_, 2>(t).compile(job),
        #[cfg(target_arch = "x86_64")]
        Token::Avx512(t) => t.compile(job),
        #[cfg(target_arch = "x86_64")]
        Token::Avx512Vnni(t) => t.compile(job),
        #[cfg(target_arch = "x86_64")]
        Token::Avx512Bf16(t) => t.avx512_vnni().compile(job),
        #[cfg(target_arch = "aarch64")]
        Token::Neon(t) => t.compile(job),
        #[cfg(target_arch = "aarch64")]
        Token::NeonDot(t) => t.compile(job),
        #[cfg(target_arch = "aarch64")]
        Token::NeonI8mm(t) => t.compile(job),
    }
}
