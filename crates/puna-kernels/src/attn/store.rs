//! Writing keys and values into the cache, rounded to its type.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use puna_core::KvType;

use super::{KV_BLOCK_LEN, KvLayout, LayerKvMut, Span, check_spans};
use crate::{Cpu, DisjointMut};

/// Elements encoded at a time; the block of `q8_0`.
const PIECE_LEN: usize = 32;
/// Below this many elements the pool is not worth its barrier.
const MIN_SHARED: usize = 16 * 1024;

/// Stores the keys and values (`[T, K, H]` each) of the spans' tokens in their places of the cache.
///
/// Rounding is to nearest, ties to even. `q8_0` is ggml's: per 32 elements the scale `d = max|x| / 127`, kept
/// in f16, and `round(x / d)`, dividing by the scale before it is rounded.
///
/// # Panics
/// When the rows are not whole, or a span leaves the batch, its block table or the cache.
pub fn kv_store(
    cpu: &Cpu,
    cache: LayerKvMut<'_>,
    k_rows: &[f32],
    v_rows: &[f32],
    spans: &[Span<'_>],
) {
    let LayerKvMut { layout, k, v } = cache;
    let row_len = layout.n_kv_heads * layout.head_dim;
    assert_eq!(k_rows.len(), v_rows.len(), "kv_store: elements of keys and of values");
    assert_eq!(k.len(), v.len(), "kv_store: bytes of keys and of values");
    if k_rows.is_empty() {
        return;
    }
    assert!(k_rows.len().is_multiple_of(row_len), "kv_store: rows of {row_len} elements");
    check_spans(&layout, spans, k_rows.len() / row_len, k.len());

    let (k, v) = (DisjointMut::new(k), DisjointMut::new(v));
    let task = |i: usize| {
        let (head, is_key) = (i / 2, i.is_multiple_of(2));
        let (rows, cache) = if is_key { (k_rows, &k) } else { (v_rows, &v) };
        for span in spans {
            for t in 0..span.n_tokens {
                let row = &rows[(span.first_row + t) * row_len + head * layout.head_dim..];
                let row = &row[..layout.head_dim];
                let (block, slot) = ((span.pos + t) / KV_BLOCK_LEN, (span.pos + t) % KV_BLOCK_LEN);
                let start = layout.tile_start(span.blocks[block], head);
                // SAFETY: tiles of different heads are disjoint, keys and values lie in different
                // slices, and each (head, keys or values) is one task.
                let tile = unsafe { cache.part(start..start + layout.tile_bytes()) };
                store_row(&layout, tile, slot, is_key, row);
            }
        }
    };
    if k_rows.len() < MIN_SHARED {
        (0..2 * layout.n_kv_heads).for_each(task);
    } else {
        cpu.pool().run(2 * layout.n_kv_heads, &task);
    }
}

/// Writes one head of one position into its tile.
fn store_row(layout: &KvLayout, tile: &mut [u8], slot: usize, is_key: bool, row: &[f32]) {
    let place = Place { slot, is_key, width: layout.head_dim };
    for (i, piece) in row.chunks(PIECE_LEN).enumerate() {
        let h = i * PIECE_LEN;
        match layout.kv_type {
            KvType::F32 => place.put(tile, h, piece.iter().map(|x| x.to_le_bytes())),
            KvType::F16 => {
                let mut rounded = [f16::ZERO; PIECE_LEN];
                rounded[..piece.len()].convert_from_f32_slice(piece);
                place.put(tile, h, rounded[..piece.len()].iter().map(|x| x.to_le_bytes()));
            }
            KvType::BF16 => {
                let mut rounded = [bf16::ZERO; PIECE_LEN];
                rounded[..piece.len()].convert_from_f32_slice(piece);
                place.put(tile, h, rounded[..piece.len()].iter().map(|x| x.to_le_bytes()));
            }
            KvType::Q8_0 => {
                let place = Place { width: layout.head_dim.next_multiple_of(PIECE_LEN), ..place };
                let (elements, scales) = tile.split_at_mut(KV_BLOCK_LEN * place.width);
                let (scale, quants) = quantize(piece);
                place.put(elements, h, quants.into_iter().map(i8::to_le_bytes));
                let place = Place { width: place.width / PIECE_LEN, ..place };
                place.put(scales, i, [scale.to_le_bytes()]);
            }
        }
    }
}

/// Where one position's elements lie in an array over a tile.
#[derive(Clone, Copy)]
struct Place {
    slot: usize,
    is_key: bool,
    /// Elements of one position.
    width: usize,
}

impl Place {
    /// Writes elements `h..` of the position: next to each other for values, 32 apart for keys.
    #[inline]
    fn put<const N: usize>(
        self,
        array: &mut [u8],
        h: usize,
        elements: impl IntoIterator<Item = [u8; N]>,
    ) {
        let (places, _) = array.as_chunks_mut::<N>();
        if self.is_key {
            let column = places[h * KV_BLOCK_LEN + self.slot..].iter_mut().step_by(KV_BLOCK_LEN);
            column.zip(elements).for_each(|(place, element)| *place = element);
        } else {
            let row = places[self.slot * self.width + h..].iter_mut();
            row.zip(elements).for_each(|(place, element)| *place = element);
        }
    }
}

/// One block of `q8_0`; a short piece is filled up with zeros.
fn quantize(piece: &[f32]) -> (f16, [i8; PIECE_LEN]) {
    // Adding 1.5·2²³ leaves an integer in the low bits, rounded to nearest, ties to even.
    const SHIFT: f32 = 12_582_912.0;
    let peak = piece.iter().fold(0f32, |peak, x| peak.max(x.abs()));
    let scale = peak / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut quants = [0; PIECE_LEN];
    for (q, x) in quants.iter_mut().zip(piece) {
        *q = (x * inverse + SHIFT).to_bits() as i8;
    }
    (f16::from_f32(scale), quants)
}
