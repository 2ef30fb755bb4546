//! `config.json` and `generation_config.json` of a network.

use puna_core::{DType, ModelConfig, RopeScaling, SamplingHints};
use serde_json::{Map, Value, json};

use super::config::SCORER;

/// What `config.json` says beside the network's dimensions.
#[derive(Clone, Debug)]
pub struct ConfigExtras {
    /// Token that begins a text.
    pub bos_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_ids: Vec<u32>,
    /// Filler for batches.
    pub pad_id: Option<u32>,
    /// How tokens should be drawn.
    pub sampling: SamplingHints,
    /// The type in which `transformers` holds the weights unless told otherwise; a float.
    pub dtype: DType,
}

/// The text of `config.json`. RoPE is spelt as `rope_theta` beside `rope_scaling`, with the kind as `type` and as
/// `rope_type`: version 4.31 of `transformers` and all later ones read that.
#[must_use]
pub fn config_json(config: &ModelConfig, extras: &ConfigExtras) -> String {
    format!("{:#}\n", config_value(config, extras, "LlamaForCausalLM"))
}

/// The text of `config.json` of a network that scores texts: `LlamaForSequenceClassification` with one label. It takes the
/// score of the last token that is no filler, so there must be one: id 0 where `extras` has none.
#[must_use]
pub fn classifier_config_json(config: &ModelConfig, extras: &ConfigExtras) -> String {
    let extras = ConfigExtras { pad_id: Some(extras.pad_id.unwrap_or(0)), ..extras.clone() };
    let mut value = config_value(config, &extras, SCORER);
    value["id2label"] = json!({"0": "score"});
    value["label2id"] = json!({"score": 0});
    value["problem_type"] = json!("regression");
    format!("{value:#}\n")
}

fn config_value(config: &ModelConfig, extras: &ConfigExtras, architecture: &str) -> Value {
    json!({
        "architectures": [architecture],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": extras.bos_id,
        "eos_token_id": ids(&extras.eos_ids),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.dim,
        "initializer_range": 0.02,
        "intermediate_size": config.hidden_dim,
        "max_position_embeddings": config.max_seq_len,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers,
        "num_key_value_heads": config.n_kv_heads,
        "pad_token_id": extras.pad_id,
        "rms_norm_eps": number(config.norm_eps),
        "rope_scaling": rope_scaling(&config.rope.scaling),
        "rope_theta": number(config.rope.theta),
        "tie_word_embeddings": config.tied_output,
        "torch_dtype": torch_dtype(extras.dtype),
        "use_cache": true,
        "vocab_size": config.vocab_size,
    })
}

/// The text of `generation_config.json`. A temperature of 0 is `do_sample` false, beside which `transformers` allows no
/// other word on drawing.
#[must_use]
pub fn generation_config_json(extras: &ConfigExtras) -> String {
    let SamplingHints { temperature, top_k, top_p, min_p, repetition_penalty } = extras.sampling;
    let mut value = json!({
        "_from_model_config": extras.sampling == SamplingHints::default(),
        "bos_token_id": extras.bos_id,
        "eos_token_id": ids(&extras.eos_ids),
        "pad_token_id": extras.pad_id,
    });
    let filters = [("temperature", temperature), ("top_p", top_p), ("min_p", min_p)]
        .map(|(name, x)| (name, x.map(number)));
    let draws = temperature != Some(0.0);
    let drawing = filters.into_iter().chain([("top_k", top_k.map(Value::from))]);
    for (name, x) in drawing.filter(|_| draws) {
        if let Some(x) = x {
            value[name] = x;
            value["do_sample"] = json!(true);
        }
    }
    if !draws {
        value["do_sample"] = json!(false);
    }
    if let Some(x) = repetition_penalty {
        value["repetition_penalty"] = number(x);
    }
    format!("{value:#}\n")
}

/// One id as a number, several as a list, none as null.
fn ids(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

fn rope_scaling(scaling: &RopeScaling) -> Value {
    let spelt = |kind: &str, fields: &[(&str, Value)]| {
        let mut map = Map::new();
        map.insert("type".to_owned(), json!(kind));
        map.insert("rope_type".to_owned(), json!(kind));
        map.extend(fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())));
        Value::Object(map)
    };
    match *scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => spelt("linear", &[("factor", number(factor))]),
        RopeScaling::Ntk { factor, .. } => spelt("dynamic", &[("factor", number(factor))]),
        RopeScaling::Yarn { factor, original_max_seq_len, beta_fast, beta_slow, attn_factor } => {
            let mut fields = vec![
                ("factor", number(factor)),
                ("original_max_position_embeddings", json!(original_max_seq_len)),
                ("beta_fast", number(beta_fast)),
                ("beta_slow", number(beta_slow)),
            ];
            fields.extend(attn_factor.map(|factor| ("attention_factor", number(factor))));
            spelt("yarn", &fields)
        }
    }
}

/// A number in the fewest digits that read back as the same f32: 1e-5, not 9.999999747378752e-6.
fn number(x: f32) -> Value {
    json!(x.to_string().parse::<f64>().unwrap_or_else(|_| x.into()))
}

fn torch_dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

#[cfg(test)]
mod tests {
    use puna_core::{Rope, RopeLayout};

    use super::*;
    use crate::hf::parse_config;

    #[test]
    fn the_reader_reads_what_the_writer_writes() {
        let yarn = |attn_factor| RopeScaling::Yarn {
            factor: 4.0,
            original_max_seq_len: 32,
            beta_fast: 31.7,
            beta_slow: 1.1,
            attn_factor,
        };
        let scalings = [
            RopeScaling::None,
            RopeScaling::Linear { factor: 2.3 },
            RopeScaling::Ntk { factor: 2.0, original_max_seq_len: 128 },
            yarn(None),
            yarn(Some(1.1)),
        ];
        for (scaling, tied_output) in scalings.into_iter().zip([true, false].into_iter().cycle()) {
            let config = ModelConfig {
                dim: 48,
                hidden_dim: 80,
                n_layers: 3,
                n_heads: 6,
                n_kv_heads: 2,
                head_dim: 10,
                vocab_size: 300,
                max_seq_len: 128,
                norm_eps: 1e-5,
                rope: Rope { theta: 123_456.7, scaling, layout: RopeLayout::Halves },
                tied_output,
            };
            let extras = ConfigExtras {
                bos_id: Some(1),
                eos_ids: vec![2, 3],
                pad_id: None,
                sampling: SamplingHints::default(),
                dtype: DType::BF16,
            };
            let json = config_json(&config, &extras);
            assert_eq!(parse_config("c", json.as_bytes()).unwrap(), config, "{json}");
            let value: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(value["rms_norm_eps"].as_f64(), Some(1e-5));
        }
    }
}
