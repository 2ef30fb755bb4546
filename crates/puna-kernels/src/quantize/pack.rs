//! Levels to the bits of blocks: the ways back from [`crate::blocks`].

/// Element `i` in the low half of byte `i`, element `i + 16` in its high half.
pub(super) fn halves(q: &[u8; 32], out: &mut [u8]) {
    let (low, high) = q.split_at(16);
    for (i, out) in out.iter_mut().enumerate() {
        *out = (low[i] & 15) | (high[i] & 15) << 4;
    }
}

/// Bit 4 of element `i` in bit `i` of a 32-bit number.
pub(super) fn fifth_bits(q: &[u8; 32], out: &mut [u8]) {
    for (out, q) in out.iter_mut().zip(q.as_chunks::<8>().0) {
        *out = (0..8).fold(0, |bits, i| bits | (q[i] >> 4 & 1) << i);
    }
}

/// The low four bits of groups of `2·group` elements: the first half of a group in the low halves of `group`
/// bytes, the second in the high.
pub(super) fn four_bits(q: &[u8; 256], group: usize, out: &mut [u8]) {
    for (out, q) in out.chunks_exact_mut(group).zip(q.chunks_exact(2 * group)) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = (q[i] & 15) | (q[i + group] & 15) << 4;
        }
    }
}

/// Bits `shift` and `shift + 1` of elements `128·n + 32·j + l` in byte `32·n + l` at bit `2·j`.
pub(super) fn two_bits(q: &[u8; 256], shift: u32, out: &mut [u8]) {
    for (out, q) in out.chunks_exact_mut(32).zip(q.chunks_exact(128)) {
        for (l, out) in out.iter_mut().enumerate() {
            let bits = |j: usize| (q[32 * j + l] >> shift & 3) << (2 * j);
            *out = bits(0) | bits(1) | bits(2) | bits(3);
        }
    }
}

/// Bit `shift` of element `32·j + l` in byte `l` at bit `j`.
pub(super) fn one_bit(q: &[u8; 256], shift: u32, out: &mut [u8]) {
    for (l, out) in out.iter_mut().enumerate() {
        *out = (0..8).fold(0, |bits, j| bits | (q[32 * j + l] >> shift & 1) << j);
    }
}

/// Eight 6-bit scales and minima in 12 bytes, as Q4_K and Q5_K hold them.
pub(super) fn scales_and_minima(scales: &[u8; 8], minima: &[u8; 8], out: &mut [u8]) {
    for j in 0..4 {
        out[j] = scales[j] | scales[j + 4] >> 4 << 6;
        out[j + 4] = minima[j] | minima[j + 4] >> 4 << 6;
        out[j + 8] = (scales[j + 4] & 15) | (minima[j + 4] & 15) << 4;
    }
}

/// Sixteen 6-bit scales in 12 bytes, as Q3_K holds them.
pub(super) fn six_bit_scales(scales: &[u8; 16], out: &mut [u8]) {
    for j in 0..8 {
        out[j] = (scales[j] & 15) | (scales[j + 8] & 15) << 4;
    }
    for j in 0..4 {
        out[8 + j] = (0..4).fold(0, |bits, k| bits | (scales[4 * k + j] >> 4) << (2 * k));
    }
}
