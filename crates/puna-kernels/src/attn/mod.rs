//! The KV cache's bytes, and attention over them.
//!
//! # The cache
//! A layer's keys, and likewise its values, are blocks of [`KV_BLOCK_LEN`] positions: `[n_blocks][K][tile]`,
//! a *tile* being what one KV head keeps of those positions. Block `i` of a sequence's block table
//! ([`Span::blocks`]) holds its positions `32·i..32·(i + 1)`.
//!
//! A tile of values is `[32][H]`, position by position. A tile of keys is `[H][32]`, turned around, so that a
//! vector holds the same element of neighbouring positions: the scores of a tile then need no sums across
//! lanes. Elements are f32, f16 or bf16, little-endian; for `q8_0` they are bytes, `H` is rounded up to a
//! multiple of 32 with zeros, and the f16 scales of each 32 follow the elements: `[32][H/32]` for values,
//! `[H/32][32]` for keys.
//!
//! # Attention
//! For one query: `out = Σⱼ pⱼ·vⱼ / Σⱼ pⱼ`, `pⱼ = e^(sⱼ − max s)`, `sⱼ = (scale·q)·kⱼ`, over positions `j` up to
//! the query's own, reading keys and values as the cache rounded them. Computed in f32, tile by tile in
//! ascending order with a running maximum ("online softmax", arXiv 1805.02867; tiled as in FlashAttention,
//! arXiv 2205.14135):
//!
//! ```text
//! m = −∞, l = 0, acc[H] = 0
//! for each tile:
//!     s[j] = Σ_h (scale·q[h])·k[j][h]        ascending h, one accumulator
//!     m' = max(m, max_j s[j])
//!     p[j] = e^(s[j] − m'), 0 beyond the query's position
//!     α = e^(m − m');  m = m'
//!     l = l·α + Σ_j p[j]                     lanes over j, then halves first
//!     acc[h] = α·acc[h] + Σ_j p[j]·v[j][h]   ascending j, one accumulator, no term beyond the query's position
//! out = acc·(1/l)
//! ```
//!
//! Tiles lie at absolute positions, and each query's arithmetic is its own. So its result is the same bits
//! however the prompt is cut into chunks, whatever else is in the batch, and on any number of threads.
//! Tasks are (span, KV head, group of queries); the query heads of a KV head share its tile, and so do the
//! queries of a group.

mod attend;
mod product;
mod store;
#[cfg(test)]
mod tests;
mod tile;

pub use attend::attention;
pub use store::kv_store;

use puna_core::KvType;

/// Positions in one block of the KV cache, and in one tile of attention.
pub const KV_BLOCK_LEN: usize = 32;

/// The shape of one layer's keys, which is also that of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// How elements are stored.
    pub kv_type: KvType,
    /// Number of KV heads, `K`.
    pub n_kv_heads: usize,
    /// Width of a head, `H`.
    pub head_dim: usize,
}

impl KvLayout {
    /// Bytes of one block of keys, or of values.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.n_kv_heads * self.tile_bytes()
    }

    /// Bytes of one head in one block.
    fn tile_bytes(&self) -> usize {
        KV_BLOCK_LEN * self.kv_type.row_bytes(self.head_dim)
    }

    /// Where the tile of `head` in `block` starts.
    fn tile_start(&self, block: u32, head: usize) -> usize {
        (block as usize * self.n_kv_heads + head) * self.tile_bytes()
    }
}

/// Consecutive tokens of one sequence: rows `first_row..first_row + n_tokens` of a batch are its positions
/// `pos..pos + n_tokens`.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The row of the first token.
    pub first_row: usize,
    /// Number of tokens.
    pub n_tokens: usize,
    /// Position of the first token in its sequence.
    pub pos: usize,
    /// The sequence's block table, at least up to the last token's block.
    pub blocks: &'a [u32],
}

/// One layer's cache, to read.
#[derive(Clone, Copy, Debug)]
pub struct LayerKv<'a> {
    /// Shape of both.
    pub layout: KvLayout,
    /// Blocks of keys.
    pub k: &'a [u8],
    /// Blocks of values.
    pub v: &'a [u8],
}

/// One layer's cache, to write.
#[derive(Debug)]
pub struct LayerKvMut<'a> {
    /// Shape of both.
    pub layout: KvLayout,
    /// Blocks of keys.
    pub k: &'a mut [u8],
    /// Blocks of values.
    pub v: &'a mut [u8],
}

/// Asserts that every span lies within a batch of `n_rows` rows and a cache of `cache_bytes`.
fn check_spans(layout: &KvLayout, spans: &[Span<'_>], n_rows: usize, cache_bytes: usize) {
    let n_blocks = cache_bytes / layout.block_bytes().max(1);
    for span in spans {
        let end = span.first_row + span.n_tokens;
        assert!(end <= n_rows, "rows {}..{end} of {n_rows}", span.first_row);
        let needed = (span.pos + span.n_tokens).div_ceil(KV_BLOCK_LEN);
        let given = span.blocks.len();
        assert!(needed <= given, "a span that ends in block {needed} of a table of {given}");
        for &block in &span.blocks[..needed] {
            assert!((block as usize) < n_blocks, "block {block} of {n_blocks}");
        }
    }
}
