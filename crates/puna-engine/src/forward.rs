//! The engine's view of a network.

use puna_model::Runner;

pub use puna_kernels::KV_BLOCK_LEN as BLOCK_LEN;
pub use puna_model::{Chunk, Wants};

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

impl Forward for Runner {
    fn vocab_size(&self) -> usize {
        self.model().config().vocab_size
    }

    fn n_blocks(&self) -> usize {
        self.cache().n_blocks()
    }

    fn max_seq_len(&self) -> usize {
        self.model().ctx()
    }

    fn forward(&mut self, batch: &[Chunk<'_>]) -> &[f32] {
        Runner::forward(self, batch).logits
    }
}
