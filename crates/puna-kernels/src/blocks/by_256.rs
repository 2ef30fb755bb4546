//! Blocks of 256 elements, the K-quants: scales of 16 or 32 elements are themselves quantised.

use super::{K_BLOCK_LEN, f16_at};

/// Two bits: byte `32·n + l` of `q` holds elements `128·n + 32·j + l` for `j` = 0..4, low bits first.
fn two_bits(q: &[u8], i: usize) -> u8 {
    (q[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3
}

/// Four bits in `group` bytes at a time: byte `group·n + l` holds elements `2·group·n + l` and, in its
/// high half, `2·group·n + group + l`.
fn four_bits(q: &[u8], group: usize, i: usize) -> u8 {
    (q[group * (i / (2 * group)) + i % group] >> (4 * (i / group % 2))) & 15
}

/// One bit: bit `j` of byte `l` of `h` belongs to element `32·j + l`.
fn one_bit(h: &[u8], i: usize) -> u8 {
    (h[i % 32] >> (i / 32)) & 1
}

/// The 6-bit scale and minimum of 32 elements, for `j` = 0..8: bytes 0..4 hold the low scales, 4..8 the
/// low minima; for `j` ≥ 4, bytes 8..12 hold the low four bits of both, and the high two bits are those on
/// top of bytes 0..8.
fn scale_and_minimum(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let low = packed[j + 4];
        ((low & 15) | (packed[j - 4] >> 6) << 4, (low >> 4) | (packed[j] >> 6) << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

/// The 6-bit scale of 16 elements, for `j` = 0..16: the low four bits fill bytes 0..8, low halves first;
/// the high two bits fill bytes 8..12, byte `8 + j % 4` at bit `2·(j / 4)`.
fn six_bit_scale(packed: &[u8], j: usize) -> f32 {
    let low = (packed[j % 8] >> (4 * (j / 8))) & 15;
    let high = (packed[8 + j % 4] >> (2 * (j / 4))) & 3;
    f32::from(low | high << 4) - 32.0
}

pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; K_BLOCK_LEN]) {
    let (scales, q) = (&block[..16], &block[16..80]);
    let (d, m) = (f16_at(block, 80), f16_at(block, 82));
    for (i, out) in out.iter_mut().enumerate() {
        let packed = scales[i / 16];
        let (scale, minimum) = (d * f32::from(packed & 15), m * f32::from(packed >> 4));
        *out = scale * f32::from(two_bits(q, i)) - minimum;
    }
}

pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; K_BLOCK_LEN]) {
    let (h, q, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16_at(block, 108);
    for (i, out) in out.iter_mut().enumerate() {
        let value = f32::from(two_bits(q, i) | one_bit(h, i) << 2) - 4.0;
        *out = d * six_bit_scale(scales, i / 16) * value;
    }
}

pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; K_BLOCK_LEN]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, q) = (&block[4..16], &block[16..]);
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(scales, i / 32);
        *out = d * scale * f32::from(four_bits(q, 32, i)) - m * minimum;
    }
}

pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; K_BLOCK_LEN]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, h, q) = (&block[4..16], &block[16..48], &block[48..]);
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(scales, i / 32);
        let value = four_bits(q, 32, i) | one_bit(h, i) << 4;
        *out = d * scale * f32::from(value) - m * minimum;
    }
}

/// The high two bits lie as [`two_bits`], the low four in groups of 64 bytes.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; K_BLOCK_LEN]) {
    let (q, h, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = f16_at(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        let value = four_bits(q, 64, i) | two_bits(h, i) << 4;
        *out = d * f32::from(scales[i / 16] as i8) * (f32::from(value) - 32.0);
    }
}
