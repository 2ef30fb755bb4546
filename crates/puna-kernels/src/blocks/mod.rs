//! The quantised block formats: layouts, and their exact values.
//!
//! A row of a quantised matrix is a sequence of blocks, each with its own scale. The layouts are ggml's
//! (`ggml-common.h` of llama.cpp, where a type `Q4_0` is `block_q4_0`); all numbers are little-endian, and
//! blocks have no alignment. [`dequantize`] gives the values that llama.cpp's `dequantize_row_*` gives, to
//! the bit: the formulas below are evaluated in f32 from left to right, each operation rounded by itself.
//!
//! | type | elements | bytes | fields, in order | value of an element |
//! |---|---|---|---|---|
//! | Q4_0 | 32 | 18 | d f16; 16 bytes q | (q − 8)·d |
//! | Q4_1 | 32 | 20 | d, m f16; 16 bytes q | q·d + m |
//! | Q5_0 | 32 | 22 | d f16; 4 bytes h; 16 bytes q | (q − 16)·d |
//! | Q5_1 | 32 | 24 | d, m f16; 4 bytes h; 16 bytes q | q·d + m |
//! | Q8_0 | 32 | 34 | d f16; 32 signed bytes q | q·d |
//! | Q2_K | 256 | 84 | 16 bytes (scale, minimum: 4 bits each); 64 bytes q; d, m f16 | (d·scale)·q − m·minimum |
//! | Q3_K | 256 | 110 | 32 bytes h; 64 bytes q; 12 bytes of 6-bit scales; d f16 | (d·(scale − 32))·(q − 4) |
//! | Q4_K | 256 | 144 | d, m f16; 12 bytes of 6-bit scales and minima; 128 bytes q | (d·scale)·q − m·minimum |
//! | Q5_K | 256 | 176 | as Q4_K with 32 bytes h before q | (d·scale)·q − m·minimum |
//! | Q6_K | 256 | 210 | 128 bytes q; 64 bytes h; 16 signed bytes scale; d f16 | (d·scale)·(q − 32) |
//!
//! `h` holds the high bits of `q`. How bits are spread over bytes is said in the submodules.

mod by_256;
mod by_32;

use half::{bf16, f16};
use puna_core::DType;

/// Elements in a block of a K-quant.
pub(crate) const K_BLOCK_LEN: usize = 256;

/// The exact values of whole blocks (or of plain elements).
///
/// # Panics
/// When `bytes` is not the size of `out.len()` elements of `dtype`.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        Some(bytes.len()),
        dtype.row_bytes(out.len()),
        "bytes of {} elements of {dtype}",
        out.len()
    );
    match dtype {
        DType::F32 => plain(bytes, out, f32::from_le_bytes),
        DType::F16 => plain(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => {
            plain(bytes, out, |b| bf16::from_le_bytes(b).to_f32());
        }
        DType::Q4_0 => blocks(bytes, out, by_32::q4_0),
        DType::Q4_1 => blocks(bytes, out, by_32::q4_1),
        DType::Q5_0 => blocks(bytes, out, by_32::q5_0),
        DType::Q5_1 => blocks(bytes, out, by_32::q5_1),
        DType::Q8_0 => blocks(bytes, out, by_32::q8_0),
        DType::Q2_K => blocks(bytes, out, by_256::q2_k),
        DType::Q3_K => blocks(bytes, out, by_256::q3_k),
        DType::Q4_K => blocks(bytes, out, by_256::q4_k),
        DType::Q5_K => blocks(bytes, out, by_256::q5_k),
        DType::Q6_K => blocks(bytes, out, by_256::q6_k),
    }
}

fn plain<const BYTES: usize>(bytes: &[u8], out: &mut [f32], value: fn([u8; BYTES]) -> f32) {
    for (bytes, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out) {
        *out = value(*bytes);
    }
}

fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    values: fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        values(block, out);
    }
}

/// The half-precision number at byte `at`.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;
    use puna_testkit::{Golden, testdata};

    #[test]
    fn values_are_those_of_the_gguf_package_to_the_bit() {
        for dtype in DType::ALL.into_iter().filter(|&dtype| dtype != DType::F32) {
            let golden = Golden::open(testdata(format!("dequant/{dtype}.safetensors")));
            let (bytes, expected) = (golden.bytes("blocks"), golden.f32("values"));
            let mut values = vec![f32::NAN; expected.len()];
            dequantize(dtype, &bytes, &mut values);
            for (i, (value, expected)) in values.iter().zip(&expected).enumerate() {
                assert_eq!(
                    value.to_bits(),
                    expected.to_bits(),
                    "{dtype}: {value} at {i}, {expected}"
                );
            }
        }
    }

    #[test]
    fn plain_floats_come_back() {
        let mut out = [0.0; 2];
        dequantize(DType::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0], &mut out);
        assert_eq!(out, [1.0, -2.0]);
    }

    #[test]
    #[should_panic(expected = "bytes of 32 elements of q8_0")]
    fn a_part_of_a_block_is_refused() {
        dequantize(DType::Q8_0, &[0; 33], &mut [0.0; 32]);
    }
}
