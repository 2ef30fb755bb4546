//! What a stage takes of memory, and what adapters make of it.

use puna_core::ModelConfig;
use puna_train::{LoraShape, MemoryNeeds};

/// Bytes that a stage takes: the model that it begins with, of the configuration `base`, stays beside what is trained, as the
/// reference and as what adapters are added to. What AdamW remembers of adapters is little beside the rest.
pub(crate) fn needs(mut needs: MemoryNeeds, base: &ModelConfig, lora: Option<&LoraShape>) -> u64 {
    if lora.is_some() {
        needs.optimizer = 0;
    }
    needs.total() + 4 * base.n_params()
}

/// A line for a plan.
pub(crate) fn adapters_line(lora: Option<&LoraShape>) -> Option<String> {
    let LoraShape { rank, alpha, targets } = lora?;
    Some(format!("adapters    rank {rank}, alpha {alpha}, {} matrices a block", targets.len()))
}

#[cfg(test)]
mod tests {
    use puna_core::{LayerWeight, Rope, RopeLayout, RopeScaling};

    use super::*;

    #[test]
    fn adapters_are_added_to_the_one_base() {
        let config = ModelConfig {
            dim: 12,
            hidden_dim: 10,
            n_layers: 2,
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: 6,
            vocab_size: 9,
            max_seq_len: 16,
            norm_eps: 1e-5,
            rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
            tied_output: false,
        };
        let of = MemoryNeeds::new(&config, 1, 16, false);
        let lora = LoraShape { rank: 2, alpha: 4.0, targets: vec![LayerWeight::Wq] };
        let (all, adapted) = (needs(of, &config, None), needs(of, &config, Some(&lora)));
        // Both means of AdamW, and no second base in their place.
        assert_eq!(all - adapted, 2 * of.weights);
        assert_eq!(adapted, 2 * of.weights + of.grads + of.activations + of.logits + of.copy);
    }
}
