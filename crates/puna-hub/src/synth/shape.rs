//! The shapes that `synth` can make.

use std::fmt;
use std::str::FromStr;

use puna_core::{ModelConfig, Rope, RopeLayout, RopeScaling};

use crate::HubError;

/// A published shape of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Llama 2 7B.
    Llama7B,
    /// Llama 2 13B.
    Llama13B,
    /// Llama 2 70B, grouped-query attention.
    Llama70B,
    /// TinyLlama 1.1B, grouped-query attention.
    TinyLlama,
    /// llama2.c's stories110M; its output is the embedding matrix.
    Stories110M,
    /// llama2.c's stories15M; its output is the embedding matrix.
    Stories15M,
}

impl Shape {
    /// Every shape, in the order commands list them.
    pub const ALL: [Shape; 6] = [
        Shape::Llama7B,
        Shape::Llama13B,
        Shape::Llama70B,
        Shape::TinyLlama,
        Shape::Stories110M,
        Shape::Stories15M,
    ];

    /// The name commands take.
    pub const fn name(self) -> &'static str {
        match self {
            Shape::Llama7B => "7b",
            Shape::Llama13B => "13b",
            Shape::Llama70B => "70b",
            Shape::TinyLlama => "tinyllama-1.1b",
            Shape::Stories110M => "110m",
            Shape::Stories15M => "15m",
        }
    }

    /// The configuration, with a vocabulary of `vocab_size` pieces.
    pub fn config(self, vocab_size: usize) -> ModelConfig {
        let (dim, hidden_dim, n_layers, n_heads, n_kv_heads, max_seq_len) = match self {
            Shape::Llama7B => (4096, 11008, 32, 32, 32, 4096),
            Shape::Llama13B => (5120, 13824, 40, 40, 40, 4096),
            Shape::Llama70B => (8192, 28672, 80, 64, 8, 4096),
            Shape::TinyLlama => (2048, 5632, 22, 32, 4, 2048),
            Shape::Stories110M => (768, 2048, 12, 12, 12, 1024),
            Shape::Stories15M => (288, 768, 6, 6, 6, 256),
        };
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
            tied_output: matches!(self, Shape::Stories110M | Shape::Stories15M),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Shape {
    type Err = HubError;

    fn from_str(s: &str) -> Result<Self, HubError> {
        let found = Self::ALL.into_iter().find(|shape| shape.name().eq_ignore_ascii_case(s));
        found.ok_or_else(|| HubError::UnknownShape { found: s.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_valid_and_of_their_size() {
        let expected = [
            6_738_415_616,
            13_015_864_320,
            68_976_648_192,
            1_100_048_384,
            // Tied: llama2.c's stories110M and stories15M.
            109_529_856,
            15_191_712,
        ];
        for (shape, n_params) in Shape::ALL.into_iter().zip(expected) {
            let config = shape.config(32_000);
            config.validate().unwrap();
            assert_eq!(config.n_params(), n_params, "{shape}");
            assert_eq!(shape.name().parse::<Shape>().unwrap(), shape);
        }
        assert!("8b".parse::<Shape>().unwrap_err().to_string().contains("tinyllama-1.1b"));
    }
}
