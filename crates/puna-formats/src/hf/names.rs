//! Tensor names of `LlamaForCausalLM`.

use puna_core::{LayerWeight, WeightId};

const LAYER: [(LayerWeight, &str); 9] = [
    (LayerWeight::AttnNorm, "input_layernorm.weight"),
    (LayerWeight::Wq, "self_attn.q_proj.weight"),
    (LayerWeight::Wk, "self_attn.k_proj.weight"),
    (LayerWeight::Wv, "self_attn.v_proj.weight"),
    (LayerWeight::Wo, "self_attn.o_proj.weight"),
    (LayerWeight::FfnNorm, "post_attention_layernorm.weight"),
    (LayerWeight::WGate, "mlp.gate_proj.weight"),
    (LayerWeight::WUp, "mlp.up_proj.weight"),
    (LayerWeight::WDown, "mlp.down_proj.weight"),
];

/// The Hugging Face name of a tensor.
#[must_use]
pub fn name(id: WeightId) -> String {
    match id {
        WeightId::TokEmbeddings => "model.embed_tokens.weight".to_owned(),
        WeightId::Norm => "model.norm.weight".to_owned(),
        WeightId::Output => "lm_head.weight".to_owned(),
        WeightId::Layer(idx, weight) => {
            format!("model.layers.{idx}.{}", crate::names::suffix(&LAYER, weight))
        }
    }
}

/// The tensor of a Hugging Face name.
#[must_use]
pub fn id(name: &str) -> Option<WeightId> {
    match name {
        "model.embed_tokens.weight" => Some(WeightId::TokEmbeddings),
        "model.norm.weight" => Some(WeightId::Norm),
        "lm_head.weight" => Some(WeightId::Output),
        _ => crate::names::layer(&LAYER, name.strip_prefix("model.layers.")?),
    }
}

/// Whether a tensor may be left out: rotation frequencies that old versions saved, which follow from the
/// configuration.
pub(super) fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        crate::names::check(name, id);
        let down = name(WeightId::Layer(3, LayerWeight::WDown));
        assert_eq!(down, "model.layers.3.mlp.down_proj.weight");
    }
}
