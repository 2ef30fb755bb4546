//! Blocks of 32 elements.
//!
//! Four bits: byte `i` of `q` holds element `i` in its low half and element `i + 16` in its high half.
//! A fifth bit: bit `i` of the 32-bit number `h` belongs to element `i`.

use super::f16_at;

pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (i, &q) in block[2..].iter().enumerate() {
        out[i] = (f32::from(q & 15) - 8.0) * d;
        out[i + 16] = (f32::from(q >> 4) - 8.0) * d;
    }
}

pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    for (i, &q) in block[4..].iter().enumerate() {
        out[i] = f32::from(q & 15) * d + m;
        out[i + 16] = f32::from(q >> 4) * d + m;
    }
}

/// The five-bit numbers of `h` and `q`.
fn five_bits(h: &[u8], q: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| {
        let low = if i < 16 { q[i] & 15 } else { q[i - 16] >> 4 };
        low | ((h[i / 8] >> (i % 8)) & 1) << 4
    })
}

pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let q = five_bits(&block[2..6], &block[6..]);
    *out = q.map(|q| (f32::from(q) - 16.0) * d);
}

pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let q = five_bits(&block[4..8], &block[8..]);
    *out = q.map(|q| f32::from(q) * d + m);
}

pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q as i8) * d;
    }
}
