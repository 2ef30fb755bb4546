//! The engine's view of a network.

use puna_model::Runner;

pub use puna_kernels::KV_BLOCK_LEN as BLOCK_LEN;
pub use puna_model::{Chunk, Output, Wants};

/// A network with a paged KV cache: what the engine needs of a model.
///
/// Logits must not depend on how a sequence was cut into chunks, on what else was in the batch, or on which
/// blocks hold its past: the engine's promise that company changes no answer rests on it.
pub trait Forward {
    /// Number of token ids, `V`.
    fn vocab_size(&self) -> usize;

    /// Width of a hidden state, `D`.
    fn dim(&self) -> usize;

    /// Blocks of [`BLOCK_LEN`] positions in the KV cache.
    fn n_blocks(&self) -> usize;

    /// Most positions a sequence may have.
    fn max_seq_len(&self) -> usize;

    /// Reads `batch`, fills the cache, and returns the rows that it wants.
    fn forward(&mut self, batch: &[Chunk<'_>]) -> Output<'_>;
}

impl Forward for Runner {
    fn vocab_size(&self) -> usize {
        self.model().config().vocab_size
    }

    fn dim(&self) -> usize {
        self.model().config().dim
    }

    fn n_blocks(&self) -> usize {
        self.cache().n_blocks()
    }

    fn max_seq_len(&self) -> usize {
        self.model().ctx()
    }

    fn forward(&mut self, batch: &[Chunk<'_>]) -> Output<'_> {
        Runner::forward(self, batch)
    }
}
