//! Tensor names of Meta's checkpoints, and how each was cut.

use puna_core::{LayerWeight, WeightId};

const LAYER: [(LayerWeight, &str); 9] = [
    (LayerWeight::AttnNorm, "attention_norm.weight"),
    (LayerWeight::Wq, "attention.wq.weight"),
    (LayerWeight::Wk, "attention.wk.weight"),
    (LayerWeight::Wv, "attention.wv.weight"),
    (LayerWeight::Wo, "attention.wo.weight"),
    (LayerWeight::FfnNorm, "ffn_norm.weight"),
    (LayerWeight::WGate, "feed_forward.w1.weight"),
    (LayerWeight::WDown, "feed_forward.w2.weight"),
    (LayerWeight::WUp, "feed_forward.w3.weight"),
];

/// Meta's name of a tensor.
#[must_use]
pub fn name(id: WeightId) -> String {
    match id {
        WeightId::TokEmbeddings => "tok_embeddings.weight".to_owned(),
        WeightId::Norm => "norm.weight".to_owned(),
        WeightId::Output => "output.weight".to_owned(),
        WeightId::Layer(idx, weight) => {
            format!("layers.{idx}.{}", crate::names::suffix(&LAYER, weight))
        }
    }
}

/// The tensor of one of Meta's names.
#[must_use]
pub fn id(name: &str) -> Option<WeightId> {
    match name {
        "tok_embeddings.weight" => Some(WeightId::TokEmbeddings),
        "norm.weight" => Some(WeightId::Norm),
        "output.weight" => Some(WeightId::Output),
        _ => crate::names::layer(&LAYER, name.strip_prefix("layers.")?),
    }
}

/// Whether a tensor may be left out: the rotation frequencies follow from the configuration.
pub(super) fn is_derived(name: &str) -> bool {
    name == "rope.freqs"
}

/// How a tensor is spread over the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The same in every file.
    Whole,
    /// Each file has some of the rows.
    Rows,
    /// Each file has some of the columns.
    Columns,
    /// By columns in Llama 2, by rows later.
    Either,
}

pub(super) fn cut(id: WeightId) -> Cut {
    match id {
        WeightId::TokEmbeddings => Cut::Either,
        WeightId::Output => Cut::Rows,
        WeightId::Norm => Cut::Whole,
        WeightId::Layer(_, weight) => match weight {
            LayerWeight::AttnNorm | LayerWeight::FfnNorm => Cut::Whole,
            LayerWeight::Wo | LayerWeight::WDown => Cut::Columns,
            _ => Cut::Rows,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        crate::names::check(name, id);
        assert_eq!(name(WeightId::Layer(7, LayerWeight::WUp)), "layers.7.feed_forward.w3.weight");
    }
}
