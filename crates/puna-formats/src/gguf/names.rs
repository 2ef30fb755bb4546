//! Tensor names of the `llama` architecture in GGUF files.

use puna_core::{LayerWeight, WeightId};

const LAYER: [(LayerWeight, &str); 9] = [
    (LayerWeight::AttnNorm, "attn_norm.weight"),
    (LayerWeight::Wq, "attn_q.weight"),
    (LayerWeight::Wk, "attn_k.weight"),
    (LayerWeight::Wv, "attn_v.weight"),
    (LayerWeight::Wo, "attn_output.weight"),
    (LayerWeight::FfnNorm, "ffn_norm.weight"),
    (LayerWeight::WGate, "ffn_gate.weight"),
    (LayerWeight::WUp, "ffn_up.weight"),
    (LayerWeight::WDown, "ffn_down.weight"),
];

/// The GGUF name of a tensor.
#[must_use]
pub fn name(id: WeightId) -> String {
    match id {
        WeightId::TokEmbeddings => "token_embd.weight".to_owned(),
        WeightId::Norm => "output_norm.weight".to_owned(),
        WeightId::Output => "output.weight".to_owned(),
        WeightId::Layer(idx, weight) => {
            format!("blk.{idx}.{}", crate::names::suffix(&LAYER, weight))
        }
    }
}

/// The tensor of a GGUF name.
#[must_use]
pub fn id(name: &str) -> Option<WeightId> {
    match name {
        "token_embd.weight" => Some(WeightId::TokEmbeddings),
        "output_norm.weight" => Some(WeightId::Norm),
        "output.weight" => Some(WeightId::Output),
        _ => crate::names::layer(&LAYER, name.strip_prefix("blk.")?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        crate::names::check(name, id);
        assert_eq!(name(WeightId::Layer(12, LayerWeight::WGate)), "blk.12.ffn_gate.weight");
        assert_eq!(id("blk.012.ffn_gate.weight"), None);
        assert_eq!(id("blk.0.attn_q.bias"), None);
    }
}
