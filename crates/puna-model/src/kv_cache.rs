//! Keys and values of all sequences, in blocks of positions that sequences address through a table.

use puna_core::{KvType, ModelConfig};
use puna_kernels::{KV_BLOCK_LEN, KvLayout, LayerKv, LayerKvMut};

/// One buffer of keys and one of values per layer, each `[n_blocks][K][KV_BLOCK_LEN][row]`.
///
/// Which sequence owns which block is not known here: the engine hands out block indices.
pub struct KvCache {
    layout: KvLayout,
    n_blocks: usize,
    /// Keys and values of each layer.
    layers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl KvCache {
    /// A cache of `n_blocks` blocks. Memory is taken from the system as blocks are first written.
    pub fn new(config: &ModelConfig, kv_type: KvType, n_blocks: usize) -> Self {
        let layout = layout(config, kv_type);
        let n_bytes = n_blocks * layout.block_bytes();
        let layer = || (vec![0; n_bytes], vec![0; n_bytes]);
        Self { layout, n_blocks, layers: (0..config.n_layers).map(|_| layer()).collect() }
    }

    /// Bytes of keys and values of one block in all layers.
    pub fn bytes_per_block(config: &ModelConfig, kv_type: KvType) -> usize {
        2 * config.n_layers * layout(config, kv_type).block_bytes()
    }

    /// Blocks that hold `n_positions` positions.
    pub fn blocks_for(n_positions: usize) -> usize {
        n_positions.div_ceil(KV_BLOCK_LEN)
    }

    /// Number of blocks.
    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.layout.kv_type
    }

    pub(crate) fn layer(&self, idx: usize) -> LayerKv<'_> {
        let (k, v) = &self.layers[idx];
        LayerKv { layout: self.layout, k, v }
    }

    pub(crate) fn layer_mut(&mut self, idx: usize) -> LayerKvMut<'_> {
        let (k, v) = &mut self.layers[idx];
        LayerKvMut { layout: self.layout, k, v }
    }
}

fn layout(config: &ModelConfig, kv_type: KvType) -> KvLayout {
    KvLayout { kv_type, n_kv_heads: config.n_kv_heads, head_dim: config.head_dim }
}
