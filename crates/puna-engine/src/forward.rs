//! The engine's view of a network.

/// Positions in one block of the KV cache.
pub const BLOCK_LEN: usize = puna_kernels::KV_BLOCK_LEN;

/// Which rows of a chunk are to come out of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// None: the chunk only fills the cache.
    Nothing,
    /// The row of the last token.
    Last,
    /// The rows of all tokens.
    All,
}

/// Consecutive tokens of one sequence in a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Token ids, at least one, each below the vocabulary size.
    pub tokens: &'a [u32],
    /// Position of the first token; everything before it is in the cache already.
    pub pos: usize,
    /// The sequence's block table: block `i` holds positions `i * BLOCK_LEN ..`.
    pub blocks: &'a [u32],
    /// Which rows come out.
    pub wants: Wants,
}

/// A network with a paged KV cache: what the engine needs of a model.
///
/// Logits must not depend on how a sequence was cut into chunks, on what else was in the batch, or on which
/// blocks hold its past: the engine's promise that company changes no answer rests on it.
pub trait Forward {
    /// Number of token ids, `V`.
    fn vocab_size(&self) -> usize;

    /// Blocks of [`BLOCK_LEN`] positions in the KV cache.
    fn n_blocks(&self) -> usize;

    /// Most positions a sequence may have.
    fn max_seq_len(&self) -> usize;

    /// Reads `batch`, fills the cache, and returns logits `[n_wanted, V]`: a row for each wanted token, in the
    /// order of the batch.
    fn forward(&mut self, batch: &[Chunk<'_>]) -> &[f32];
}
