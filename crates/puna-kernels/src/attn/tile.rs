//! Reading tiles of the cache as f32.

use half::f16;
use puna_core::KvType;

use super::{KV_BLOCK_LEN, KvLayout};
use crate::simd::Simd;

/// Elements that share a scale of `q8_0`.
const SCALED_LEN: usize = 32;

/// Reads a tile of keys into `out`, which is `[H][32]`.
#[inline(always)]
pub(super) fn read_keys<S: Simd>(simd: S, layout: &KvLayout, tile: &[u8], out: &mut [f32]) {
    match layout.kv_type {
        KvType::Q8_0 => {
            let width = layout.head_dim.next_multiple_of(SCALED_LEN);
            let (elements, scales) = tile.split_at(KV_BLOCK_LEN * width);
            let mut scale = [0.0; KV_BLOCK_LEN];
            for (h, out) in out.chunks_exact_mut(KV_BLOCK_LEN).enumerate() {
                if h % SCALED_LEN == 0 {
                    read_f16(simd, &scales[h / SCALED_LEN * 2 * KV_BLOCK_LEN..], &mut scale);
                }
                let elements = &elements[h * KV_BLOCK_LEN..][..KV_BLOCK_LEN];
                for i in (0..KV_BLOCK_LEN).step_by(S::LANES) {
                    let d = simd.load(&scale[i..]);
                    simd.store(simd.mul(simd.load_i8(&elements[i..]), d), &mut out[i..]);
                }
            }
        }
        float => read_floats(simd, float, tile, out),
    }
}

/// Reads positions `0..n_valid` of a tile of values into the rows of `out`, which are `stride` floats apart;
/// what a row has beyond `H` is left as it is.
#[inline(always)]
pub(super) fn read_values<S: Simd>(
    simd: S,
    layout: &KvLayout,
    tile: &[u8],
    n_valid: usize,
    stride: usize,
    out: &mut [f32],
) {
    let head_dim = layout.head_dim;
    let row_bytes = layout.kv_type.row_bytes(head_dim);
    let rows = out.chunks_exact_mut(stride).take(n_valid);
    if layout.kv_type == KvType::Q8_0 {
        let width = head_dim.next_multiple_of(SCALED_LEN);
        let (elements, scales) = tile.split_at(KV_BLOCK_LEN * width);
        let (scales, _) = scales.as_chunks::<2>();
        let scales = scales.chunks_exact(width / SCALED_LEN);
        for ((out, elements), scales) in rows.zip(elements.chunks_exact(width)).zip(scales) {
            let pieces = out[..head_dim].chunks_mut(SCALED_LEN);
            for ((out, q), d) in pieces.zip(elements.chunks(SCALED_LEN)).zip(scales) {
                let d = simd.splat(f16::from_le_bytes(*d).to_f32());
                for (out, q) in out.chunks_mut(S::LANES).zip(q.chunks_exact(S::LANES)) {
                    simd.store_partial(simd.mul(simd.load_i8(q), d), out);
                }
            }
        }
    } else if stride == head_dim {
        let n = n_valid * head_dim;
        read_floats(simd, layout.kv_type, &tile[..n_valid * row_bytes], &mut out[..n]);
    } else {
        for (out, tile) in rows.zip(tile.chunks_exact(row_bytes)) {
            read_floats(simd, layout.kv_type, tile, &mut out[..head_dim]);
        }
    }
}

/// Converts elements of a plain type.
#[inline(always)]
fn read_floats<S: Simd>(simd: S, kv_type: KvType, bytes: &[u8], out: &mut [f32]) {
    match kv_type {
        KvType::F16 => read_f16(simd, bytes, out),
        KvType::BF16 => {
            for (out, &bits) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes(bits)) << 16);
            }
        }
        KvType::F32 | KvType::Q8_0 => {
            for (out, &bits) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(bits);
            }
        }
    }
}

/// Converts half precision.
#[inline(always)]
fn read_f16<S: Simd>(simd: S, bytes: &[u8], out: &mut [f32]) {
    let body = out.len() - out.len() % S::LANES;
    for i in (0..body).step_by(S::LANES) {
        simd.store(simd.load_f16(&bytes[2 * i..]), &mut out[i..]);
    }
    for (out, &bits) in out[body..].iter_mut().zip(bytes[2 * body..].as_chunks::<2>().0) {
        *out = f16::from_le_bytes(bits).to_f32();
    }
}
