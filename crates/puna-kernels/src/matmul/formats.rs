//! The quantised formats decoded for many rows at once, into what [`Rows::dots`] multiplies.
//!
//! The layouts are those of [`crate::blocks`], whose plain code the tests compare with. Here every element
//! becomes an unsigned byte `q`; its value is `scale·(q − OFFSET)`, or `scale·q − minimum`.

use std::mem::MaybeUninit;

use super::activations::Side;
use super::rows::Rows;

/// 32 elements of each of [`Rows::LANES`] rows.
#[derive(Clone, Copy)]
pub(crate) struct Block<S: Rows, const SCALES: usize> {
    /// `q[k]` holds elements `4·k..4·k + 4`, as [`Rows::dots`] takes them.
    pub q: [S::U; 8],
    /// The scales of each group of elements, then the negated minima of each.
    pub scales: [S::F; SCALES],
}

/// The same stored block, of `BYTES` bytes, of each of [`Rows::LANES`] rows.
pub(crate) struct Column<'a, S, const BYTES: usize> {
    pub(super) s: S,
    data: &'a [u8],
    stride: usize,
}

impl<'a, S: Rows, const BYTES: usize> Column<'a, S, BYTES> {
    /// The blocks that start at `r·stride` of `data` for each lane `r`.
    ///
    /// # Panics
    /// When one of them leaves `data`.
    #[inline(always)]
    pub(super) fn new(s: S, data: &'a [u8], stride: usize) -> Self {
        assert!(data.len() >= (S::LANES - 1) * stride + BYTES);
        Self { s, data, stride }
    }

    #[inline(always)]
    pub(super) fn load_16(&self, at: usize) -> [S::U; 4] {
        assert!(at + 16 <= BYTES);
        // SAFETY: the bytes lie in each row's block, and the blocks lie in `data` (see `new`).
        unsafe { self.s.load_16_bytes(self.data.as_ptr().add(at), self.stride) }
    }

    #[inline(always)]
    pub(super) fn load_32(&self, at: usize) -> [S::U; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.load_16(at), self.load_16(at + 16));
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    pub(super) fn load_4(&self, at: usize) -> S::U {
        assert!(at + 4 <= BYTES);
        // SAFETY: the bytes lie in each row's block, and the blocks lie in `data` (see `new`).
        unsafe { self.s.load_4_bytes(self.data.as_ptr().add(at), self.stride) }
    }

    /// The half-precision number in the last two bytes of the block.
    #[inline(always)]
    pub(super) fn last_half(&self) -> S::F {
        self.s.half(self.s.shr(self.load_4(BYTES - 4), 16))
    }
}

/// A quantised format, whose blocks have `SCALES` numbers for every 32 elements.
pub(crate) trait Format<const BYTES: usize, const SCALES: usize> {
    /// Elements in a stored block.
    const LEN: usize;
    /// Groups with a scale of their own in 32 elements: 1 or 2.
    const GROUPS: usize = 1;
    /// Whether groups have a minimum.
    const MINIMA: bool = false;
    /// The `q` that stands for zero where there is no minimum.
    const OFFSET: u8 = 0;
    /// The greatest `q`.
    const MAX: u8;

    /// Decodes `out.len()` = `LEN / 32` blocks.
    fn decode<S: Rows>(column: &Column<'_, S, BYTES>, out: &mut [MaybeUninit<Block<S, SCALES>>]);

    /// The sums of activations that the product needs.
    fn side<S: Rows>() -> Option<Side> {
        let groups = Self::GROUPS;
        if Self::MINIMA {
            Some(Side::Sum { groups })
        } else if S::takes_signed(Self::MAX) {
            None
        } else {
            Some(Side::Correction { offset: Self::OFFSET, groups })
        }
    }

    /// `q` in the form that [`Rows::dots`] takes.
    #[inline(always)]
    fn block<S: Rows>(s: S, mut q: [S::U; 8], scales: [S::F; SCALES]) -> Block<S, SCALES> {
        if Self::OFFSET > 0 && S::takes_signed(Self::MAX) {
            for q in &mut q {
                *q = if Self::OFFSET == 128 {
                    s.xor(*q, 0x8080_8080)
                } else {
                    s.sub_bytes(*q, Self::OFFSET)
                };
            }
        }
        Block { q, scales }
    }
}

/// The low half of each byte.
pub(super) const LOW_HALVES: u32 = 0x0f0f_0f0f;

/// The low halves of 16 bytes, then their high halves.
#[inline(always)]
fn halves_16<S: Rows>(s: S, q: [S::U; 4]) -> [S::U; 8] {
    let mut out = [q[0]; 8];
    for k in 0..4 {
        out[k] = s.and(q[k], LOW_HALVES);
        out[k + 4] = s.and(s.shr(q[k], 4), LOW_HALVES);
    }
    out
}

/// Sets bit 4 of element `i` to bit `i` of `h`.
#[inline(always)]
fn with_bit_4<S: Rows>(s: S, mut q: [S::U; 8], h: S::U) -> [S::U; 8] {
    for (k, q) in q.iter_mut().enumerate() {
        *q = s.or(*q, s.spread_to_bit_4(s.shr(h, 4 * k as u32)));
    }
    q
}

pub(crate) struct Q4_0;

impl Format<18, 1> for Q4_0 {
    const LEN: usize = 32;
    const OFFSET: u8 = 8;
    const MAX: u8 = 15;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 18>, out: &mut [MaybeUninit<Block<S, 1>>]) {
        let q = halves_16(c.s, c.load_16(2));
        out[0].write(Self::block(c.s, q, [c.s.half(c.load_4(0))]));
    }
}

pub(crate) struct Q4_1;

impl Format<20, 2> for Q4_1 {
    const LEN: usize = 32;
    const MINIMA: bool = true;
    const MAX: u8 = 15;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 20>, out: &mut [MaybeUninit<Block<S, 2>>]) {
        let q = halves_16(c.s, c.load_16(4));
        let dm = c.load_4(0);
        // This format adds its minimum.
        out[0].write(Self::block(c.s, q, [c.s.half(dm), c.s.half(c.s.shr(dm, 16))]));
    }
}

pub(crate) struct Q5_0;

impl Format<22, 1> for Q5_0 {
    const LEN: usize = 32;
    const OFFSET: u8 = 16;
    const MAX: u8 = 31;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 22>, out: &mut [MaybeUninit<Block<S, 1>>]) {
        let q = with_bit_4(c.s, halves_16(c.s, c.load_16(6)), c.load_4(2));
        out[0].write(Self::block(c.s, q, [c.s.half(c.load_4(0))]));
    }
}

pub(crate) struct Q5_1;

impl Format<24, 2> for Q5_1 {
    const LEN: usize = 32;
    const MINIMA: bool = true;
    const MAX: u8 = 31;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 24>, out: &mut [MaybeUninit<Block<S, 2>>]) {
        let q = with_bit_4(c.s, halves_16(c.s, c.load_16(8)), c.load_4(4));
        let dm = c.load_4(0);
        // This format adds its minimum.
        out[0].write(Self::block(c.s, q, [c.s.half(dm), c.s.half(c.s.shr(dm, 16))]));
    }
}

pub(crate) struct Q8_0;

impl Format<34, 1> for Q8_0 {
    const LEN: usize = 32;
    const OFFSET: u8 = 128;
    const MAX: u8 = 255;

    #[inline(always)]
    fn decode<S: Rows>(c: &Column<'_, S, 34>, out: &mut [MaybeUninit<Block<S, 1>>]) {
        let mut q = c.load_32(2);
        for q in &mut q {
            *q = c.s.xor(*q, 0x8080_8080);
        }
        out[0].write(Self::block(c.s, q, [c.s.half(c.load_4(0))]));
    }
}
