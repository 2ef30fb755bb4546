//! What training costs: operations and memory, from the shape alone.

use puna_core::{ModelConfig, WeightId};

/// Operations (multiplications and additions) for one token of training, forward and back.
///
/// A weight of a matrix costs 2 forward and 4 back; embeddings are looked up. Attention over a causal past of `T/2` on
/// average costs `4·N·H` for each position seen and layer, and twice that back (arXiv 2204.02311, appendix B, halved
/// for causality).
#[must_use]
pub fn flops_per_token(config: &ModelConfig, seq_len: usize) -> f64 {
    let mut n_matrix_weights: f64 = WeightId::all(config)
        .filter(|id| *id != WeightId::TokEmbeddings)
        .map(|id| id.shape(config))
        .filter(|shape| shape.len() == 2)
        .map(|shape| shape.iter().product::<usize>() as f64)
        .sum();
    if config.tied_output {
        n_matrix_weights += (config.vocab_size * config.dim) as f64;
    }
    let seen = (seq_len as f64 + 1.0) / 2.0;
    let attention = 4.0 * config.q_dim() as f64 * seen * config.n_layers as f64;
    3.0 * (2.0 * n_matrix_weights + attention)
}

/// Bytes of memory that training takes, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeeds {
    /// Weights in f32.
    pub weights: u64,
    /// Their gradients.
    pub grads: u64,
    /// Both means of AdamW.
    pub optimizer: u64,
    /// What a micro-batch leaves for the way back, memory between steps, and packed factors of products.
    pub activations: u64,
    /// The logits of a piece of a micro-batch; with products in bf16 less.
    pub logits: u64,
    /// The copy of the weights that writes a text on the way.
    pub copy: u64,
}

impl MemoryNeeds {
    /// The needs of a configuration with micro-batches of `n_seqs` sequences of `seq_len` tokens.
    #[must_use]
    pub fn new(config: &ModelConfig, n_seqs: usize, seq_len: usize, recompute: bool) -> Self {
        let floats = |n: usize| 4 * n as u64;
        let weights = 4 * config.n_params();
        let tied = if config.tied_output { config.vocab_size * config.dim } else { 0 };
        let n = n_seqs * seq_len;
        let (d, f, q) = (config.dim, config.hidden_dim, config.q_dim());
        let qkv = q + 2 * config.kv_dim();
        let saved = d + qkv + q + config.n_heads + 2 * f;
        let n_kept = if recompute { 1 } else { config.n_layers };
        let kept = n_kept * saved + (config.n_layers + 2) * d + 1;
        let between = 2 * d + q.max(f) + 2 * q + qkv.max(2 * f) + qkv + 1;
        let n_between = n.min(crate::group::GROUP_ROWS.max(seq_len));
        // At most: bf16 takes half.
        let packed = 2 * (config.vocab_size * d) + d * (qkv + q + 3 * f) + n_between * q.max(f);
        Self {
            weights,
            grads: weights + floats(tied),
            optimizer: 2 * weights,
            activations: floats(n * kept + n_between * between + packed),
            logits: floats(n_between.min(crate::group::LOGIT_ROWS) * config.vocab_size),
            copy: weights,
        }
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights + self.grads + self.optimizer + self.activations + self.logits + self.copy
    }
}
