//! How much memory running a checkpoint takes, known before any tensor is read.

use puna_core::{KvType, ModelConfig, TensorSource, WeightId};

use crate::KvCache;

/// Bytes by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights that stay in the page cache: the system can drop and read them again.
    pub mapped: u64,
    /// Weights that are copied when loaded.
    pub copied: u64,
    /// Keys and values of `ctx` positions.
    pub kv_cache: u64,
    /// Intermediate values of a forward pass over `batch` rows.
    pub scratch: u64,
}

impl MemoryPlan {
    /// The plan for one sequence of `ctx` positions, forward passes of at most `batch` rows, and logits for at most
    /// one row of each.
    pub fn new(source: &dyn TensorSource, kv_type: KvType, ctx: usize, batch: usize) -> Self {
        let config = source.config();
        let (mut mapped, mut copied) = (0, 0);
        for id in WeightId::all(config) {
            let n_bytes = source.info(id).and_then(|info| info.n_bytes()).unwrap_or(0) as u64;
            *(if source.copies(id) { &mut copied } else { &mut mapped }) += n_bytes;
        }
        let n_blocks = KvCache::blocks_for(ctx) as u64;
        let kv_cache = n_blocks * KvCache::bytes_per_block(config, kv_type) as u64;
        Self { mapped, copied, kv_cache, scratch: scratch_bytes(config, ctx, batch) }
    }

    /// Everything together.
    pub fn total(&self) -> u64 {
        self.mapped + self.copied + self.kv_cache + self.scratch
    }
}

/// `x`, `h`, `q`, `k`, `v`, attention output, gate and up as `f32`, the activations of a product in their
/// prepared form (at most once more in `f32`), the rotation table and one row of logits.
fn scratch_bytes(c: &ModelConfig, ctx: usize, batch: usize) -> u64 {
    let widest = c.dim.max(c.q_dim()).max(c.hidden_dim);
    let row = 2 * c.dim + 2 * c.q_dim() + 2 * c.kv_dim() + 2 * c.hidden_dim + 2 * widest;
    4 * (batch * row + ctx * c.head_dim + c.vocab_size) as u64
}
