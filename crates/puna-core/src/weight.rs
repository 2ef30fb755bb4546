//! The tensors of a network, by what they are instead of by what a file calls them.

use std::fmt;

use crate::ModelConfig;

/// One tensor of one transformer block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerWeight {
    /// RMSNorm before attention, `[D]`.
    AttnNorm,
    /// Query projection, `[N·H, D]`.
    Wq,
    /// Key projection, `[K·H, D]`.
    Wk,
    /// Value projection, `[K·H, D]`.
    Wv,
    /// Attention output projection, `[D, N·H]`.
    Wo,
    /// RMSNorm before the feed-forward layer, `[D]`.
    FfnNorm,
    /// Gate projection, `[F, D]`; Meta's w1.
    WGate,
    /// Up projection, `[F, D]`; Meta's w3.
    WUp,
    /// Down projection, `[D, F]`; Meta's w2.
    WDown,
}

impl LayerWeight {
    /// Every tensor of a block, in the order the forward pass uses them.
    pub const ALL: [LayerWeight; 9] = [
        LayerWeight::AttnNorm,
        LayerWeight::Wq,
        LayerWeight::Wk,
        LayerWeight::Wv,
        LayerWeight::Wo,
        LayerWeight::FfnNorm,
        LayerWeight::WGate,
        LayerWeight::WUp,
        LayerWeight::WDown,
    ];
}

/// One tensor of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightId {
    /// Token embeddings, `[V, D]`.
    TokEmbeddings,
    /// A tensor of the block with this index.
    Layer(usize, LayerWeight),
    /// RMSNorm before the output, `[D]`.
    Norm,
    /// Output matrix, `[V, D]`; absent where it is tied to the embeddings.
    Output,
}

impl WeightId {
    /// Every tensor that a network of this configuration has.
    pub fn all(config: &ModelConfig) -> impl Iterator<Item = WeightId> + use<> {
        let layers = (0..config.n_layers)
            .flat_map(|idx| LayerWeight::ALL.into_iter().map(move |w| WeightId::Layer(idx, w)));
        std::iter::once(WeightId::TokEmbeddings)
            .chain(layers)
            .chain(std::iter::once(WeightId::Norm))
            .chain((!config.tied_output).then_some(WeightId::Output))
    }

    /// The shape in this configuration: `[n]` for a norm, `[rows, cols]` for a matrix (`y = W x`).
    pub fn shape(self, c: &ModelConfig) -> Vec<usize> {
        match self {
            WeightId::TokEmbeddings | WeightId::Output => vec![c.vocab_size, c.dim],
            WeightId::Norm => vec![c.dim],
            WeightId::Layer(_, weight) => match weight {
                LayerWeight::AttnNorm | LayerWeight::FfnNorm => vec![c.dim],
                LayerWeight::Wq => vec![c.q_dim(), c.dim],
                LayerWeight::Wk | LayerWeight::Wv => vec![c.kv_dim(), c.dim],
                LayerWeight::Wo => vec![c.dim, c.q_dim()],
                LayerWeight::WGate | LayerWeight::WUp => vec![c.hidden_dim, c.dim],
                LayerWeight::WDown => vec![c.dim, c.hidden_dim],
            },
        }
    }
}

impl fmt::Display for WeightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightId::TokEmbeddings => f.pad("tok_embeddings"),
            WeightId::Norm => f.pad("norm"),
            WeightId::Output => f.pad("output"),
            WeightId::Layer(idx, weight) => {
                let name = match weight {
                    LayerWeight::AttnNorm => "attn_norm",
                    LayerWeight::Wq => "wq",
                    LayerWeight::Wk => "wk",
                    LayerWeight::Wv => "wv",
                    LayerWeight::Wo => "wo",
                    LayerWeight::FfnNorm => "ffn_norm",
                    LayerWeight::WGate => "w_gate",
                    LayerWeight::WUp => "w_up",
                    LayerWeight::WDown => "w_down",
                };
                f.pad(&format!("layers.{idx}.{name}"))
            }
        }
    }
}
