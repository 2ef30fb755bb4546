//! Shapes with the numbers that go with them: the paper's family, and one of our own a thousand times smaller.

use puna_core::{ModelConfig, Rope, RopeLayout, RopeScaling};
use serde::Deserialize;

/// A member of a family.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Llama 2 7B.
    #[serde(rename = "7b")]
    B7,
    /// Llama 2 13B.
    #[serde(rename = "13b")]
    B13,
    /// Llama 2 34B, grouped queries.
    #[serde(rename = "34b")]
    B34,
    /// Llama 2 70B, grouped queries.
    #[serde(rename = "70b")]
    B70,
    /// 7 million.
    #[serde(rename = "7m")]
    M7,
    /// 13 million.
    #[serde(rename = "13m")]
    M13,
    /// 70 million, grouped queries.
    #[serde(rename = "70m")]
    M70,
}

/// What a preset decides.
pub(super) struct Values {
    /// With a vocabulary of Llama 2's size, or 4,096 for the small ones; the data's tokenizer has the last word.
    pub model: ModelConfig,
    /// The highest learning rate.
    pub lr: f64,
    /// Tokens of a batch.
    pub batch_tokens: u64,
}

impl Preset {
    /// The paper's learning rates and batch of 4 million tokens (arXiv 2307.09288, table 1 and section 2.2); for the small
    /// family rates and batches that fit a run of some millions of tokens.
    pub(super) fn values(self) -> Values {
        let paper = |shape, lr| Values {
            model: model(shape, 32_000, 4096, false),
            lr,
            batch_tokens: 4 << 20,
        };
        let small = |shape, lr| Values {
            model: model(shape, 4096, 1024, true),
            lr,
            batch_tokens: 32 << 10,
        };
        match self {
            Preset::B7 => paper([4096, 11_008, 32, 32, 32], 3e-4),
            Preset::B13 => paper([5120, 13_824, 40, 40, 40], 3e-4),
            Preset::B34 => paper([8192, 22_016, 48, 64, 8], 1.5e-4),
            Preset::B70 => paper([8192, 28_672, 80, 64, 8], 1.5e-4),
            Preset::M7 => small([288, 768, 6, 6, 6], 2e-3),
            Preset::M13 => small([384, 1152, 6, 6, 6], 1.5e-3),
            Preset::M70 => small([768, 2176, 10, 12, 4], 8e-4),
        }
    }
}

fn model(
    [dim, hidden_dim, n_layers, n_heads, n_kv_heads]: [usize; 5],
    vocab_size: usize,
    max_seq_len: usize,
    tied_output: bool,
) -> ModelConfig {
    ModelConfig {
        dim,
        hidden_dim,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim: dim / n_heads,
        vocab_size,
        max_seq_len,
        norm_eps: 1e-5,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
        tied_output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_the_names_say() {
        for (preset, millions) in [
            (Preset::B7, 6738.0),
            (Preset::B13, 13_016.0),
            (Preset::B34, 33_744.0),
            (Preset::B70, 68_977.0),
            (Preset::M7, 7.15),
            (Preset::M13, 13.1),
            (Preset::M70, 69.0),
        ] {
            let model = preset.values().model;
            model.validate().unwrap();
            let found = model.n_params() as f64 / 1e6;
            assert!((found / millions - 1.0).abs() < 0.01, "{preset:?}: {found} million");
        }
    }
}
