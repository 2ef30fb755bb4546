//! `config.json` to the network's configuration, with the defaults of `transformers`' `LlamaConfig`.

use puna_core::{ModelConfig, Rope, RopeLayout, RopeScaling};

use crate::FormatError;
use crate::json::{Fields, brief};

/// Bytes of any of a folder's small JSON files but the tokenizer's.
pub const MAX_CONFIG_BYTES: u64 = 1 << 22;

/// The architecture of a network that scores texts.
pub(super) const SCORER: &str = "LlamaForSequenceClassification";

/// Reads a configuration from the bytes of `config.json`. `file` is its name for messages.
///
/// # Errors
/// It is no JSON object, a field has the wrong type, or it describes something other than a Llama network
/// of this family: the field, what it says and what is supported.
pub fn parse_config(file: &str, bytes: &[u8]) -> Result<ModelConfig, FormatError> {
    config(&Fields::parse(file, bytes)?)
}

/// The same for a network that scores texts, as [`classifier_config_json`](super::classifier_config_json) writes it. It has
/// no output matrix, which the configuration says as if it were tied.
///
/// # Errors
/// As [`parse_config`]; or it has another number of labels than one.
pub fn parse_classifier_config(file: &str, bytes: &[u8]) -> Result<ModelConfig, FormatError> {
    let fields = Fields::parse(file, bytes)?;
    let labels = fields.object("id2label")?.map_or(2, |labels| labels.iter().count());
    if labels != 1 {
        return Err(fields.unsupported("id2label", "one label", labels));
    }
    Ok(ModelConfig { tied_output: true, ..config_of(&fields, SCORER)? })
}

pub(super) fn config(fields: &Fields<'_>) -> Result<ModelConfig, FormatError> {
    config_of(fields, "LlamaForCausalLM")
}

fn config_of(fields: &Fields<'_>, architecture: &str) -> Result<ModelConfig, FormatError> {
    check_kind(fields, architecture)?;
    let count = |field, default| Ok::<_, FormatError>(fields.count(field)?.unwrap_or(default));
    let dim = count("hidden_size", 4096)?;
    let n_heads = count("num_attention_heads", 32)?;
    let max_seq_len = count("max_position_embeddings", 2048)?;
    Ok(ModelConfig {
        dim,
        hidden_dim: count("intermediate_size", 11_008)?,
        n_layers: count("num_hidden_layers", 32)?,
        n_heads,
        n_kv_heads: count("num_key_value_heads", n_heads)?,
        head_dim: count("head_dim", dim.checked_div(n_heads).unwrap_or(0))?,
        vocab_size: count("vocab_size", 32_000)?,
        max_seq_len,
        norm_eps: fields.float("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope: rope(fields, max_seq_len)?,
        tied_output: fields.flag("tie_word_embeddings")?.unwrap_or(false),
    })
}

/// Refuses what would load and then compute something else.
fn check_kind(fields: &Fields<'_>, architecture: &str) -> Result<(), FormatError> {
    let strings: [(&str, &[&str], bool); 2] =
        [("model_type", &["llama"], true), ("hidden_act", &["silu", "swish"], false)];
    for (field, supported, required) in strings {
        match fields.string(field)? {
            Some(found) if supported.contains(&found) => {}
            Some(found) => return Err(fields.unsupported(field, supported[0], found)),
            None if required => return Err(fields.malformed(field, supported[0], "none")),
            None => {}
        }
    }
    if let Some(architectures) = fields.get("architectures") {
        let known = |list: &Vec<_>| list.iter().any(|name| name == architecture);
        if !architectures.as_array().is_some_and(known) {
            let found = brief(architectures);
            return Err(fields.unsupported("architectures", architecture, found));
        }
    }
    for field in ["attention_bias", "mlp_bias"] {
        if fields.flag(field)? == Some(true) {
            return Err(fields.unsupported(field, "projections without bias", true));
        }
    }
    if let Some(found) = fields.get("quantization_config") {
        return Err(fields.unsupported("quantization_config", "plain weights", brief(found)));
    }
    Ok(())
}

/// Rotation, in all spellings: `rope_theta` beside `rope_scaling`, with `type` or `rope_type`, and both in
/// `rope_parameters`, as version 5 of `transformers` writes it.
fn rope(fields: &Fields<'_>, max_seq_len: usize) -> Result<Rope, FormatError> {
    let nested = match fields.object("rope_scaling")? {
        Some(nested) => Some(nested),
        None => fields.object("rope_parameters")?,
    };
    let mut theta = fields.float("rope_theta")?;
    let mut scaling = RopeScaling::None;
    for place in [Some(fields), nested.as_ref()].into_iter().flatten() {
        let part = place.float("partial_rotary_factor")?.unwrap_or(1.0);
        if part != 1.0 {
            return Err(place.unsupported("partial_rotary_factor", "1", part));
        }
    }
    if let Some(nested) = &nested {
        theta = nested.float("rope_theta")?.or(theta);
        scaling = rope_scaling(fields, nested, max_seq_len)?;
    }
    let theta = theta.unwrap_or(10_000.0) as f32;
    Ok(Rope { theta, scaling, layout: RopeLayout::Halves })
}

fn rope_scaling(
    fields: &Fields<'_>,
    nested: &Fields<'_>,
    max_seq_len: usize,
) -> Result<RopeScaling, FormatError> {
    let (field, kind) = match nested.string("rope_type")? {
        Some(kind) => ("rope_type", kind),
        None => ("type", nested.string("type")?.unwrap_or("default")),
    };
    let given = nested.float("factor")?.map(|factor| factor as f32);
    let factor = || given.ok_or_else(|| nested.malformed("factor", "a number", "none"));
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "dynamic" => Ok(RopeScaling::Ntk { factor: factor()?, original_max_seq_len: max_seq_len }),
        "yarn" => yarn(fields, nested, given, max_seq_len),
        other => Err(nested.unsupported(field, "default, linear, dynamic, yarn", other)),
    }
}

fn yarn(
    fields: &Fields<'_>,
    nested: &Fields<'_>,
    factor: Option<f32>,
    max_seq_len: usize,
) -> Result<RopeScaling, FormatError> {
    if nested.flag("truncate")? == Some(false) {
        return Err(nested.unsupported("truncate", "true", false));
    }
    let original = "original_max_position_embeddings";
    let original_max_seq_len = match fields.count(original)? {
        Some(len) => len,
        None => nested.count(original)?.unwrap_or(max_seq_len),
    };
    // In `transformers`, zero counts as not given in all of these.
    let given = |field| Ok::<_, FormatError>(nested.float(field)?.filter(|v| *v != 0.0));
    let factor = factor.unwrap_or(max_seq_len as f32 / original_max_seq_len.max(1) as f32);
    let magnitude = |scale: f64| {
        if factor <= 1.0 { 1.0 } else { 0.1 * scale * f64::from(factor).ln() + 1.0 }
    };
    let attn_factor =
        match (nested.float("attention_factor")?, given("mscale")?, given("mscale_all_dim")?) {
            (Some(stated), ..) => Some(stated as f32),
            (None, Some(over), Some(under)) => Some((magnitude(over) / magnitude(under)) as f32),
            _ if factor <= 1.0 => Some(1.0),
            _ => None,
        };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_seq_len,
        beta_fast: given("beta_fast")?.unwrap_or(32.0) as f32,
        beta_slow: given("beta_slow")?.unwrap_or(1.0) as f32,
        attn_factor,
    })
}
