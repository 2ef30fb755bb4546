//! Metadata keys of the `llama` architecture to the network's configuration.

use puna_core::{ModelConfig, Rope, RopeLayout, RopeScaling};

use super::read::Gguf;
use super::value::Value;
use crate::FormatError;

/// Typed access to metadata, with messages that name the key.
pub(super) struct Keys<'a> {
    pub(super) file: &'a str,
    pub(super) gguf: &'a Gguf,
}

impl<'a> Keys<'a> {
    pub(super) fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.gguf.get(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => {
                let found = format!("{value} of type {:?}", value.kind());
                Err(FormatError::malformed(self.file, key, expected, found))
            }
        }
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>, FormatError> {
        self.optional(key, "a count", |v| usize::try_from(v.as_u64()?).ok())
    }

    pub(super) fn id(&self, key: &str) -> Result<Option<u32>, FormatError> {
        self.optional(key, "a token id", |v| u32::try_from(v.as_u64()?).ok())
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.optional(key, "true or false", Value::as_bool)
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, FormatError> {
        self.optional(key, "a string", Value::as_str)
    }

    fn float(&self, key: &str) -> Result<Option<f32>, FormatError> {
        self.optional(key, "a float", Value::as_f32)
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, FormatError> {
        value.ok_or_else(|| FormatError::malformed(self.file, key, "a value", "none"))
    }

    fn required_count(&self, key: &str) -> Result<usize, FormatError> {
        self.required(key, self.count(key)?)
    }

    fn required_float(&self, key: &str) -> Result<f32, FormatError> {
        self.required(key, self.float(key)?)
    }

    fn unsupported(&self, key: &str, expected: &str, found: impl std::fmt::Display) -> FormatError {
        FormatError::unsupported(self.file, key, expected, found)
    }
}

/// The configuration, as far as metadata tell it. `n_rows` is the height of the embedding matrix, which
/// stands in where neither a vocabulary nor `llama.vocab_size` says how many tokens there are.
pub(super) fn config(
    keys: &Keys<'_>,
    n_tokens: Option<usize>,
    n_rows: usize,
    tied_output: bool,
) -> Result<ModelConfig, FormatError> {
    check_architecture(keys)?;
    let dim = keys.required_count("llama.embedding_length")?;
    let n_heads = keys.required_count("llama.attention.head_count")?;
    let vocab_size = match n_tokens {
        Some(n) => n,
        None => keys.count("llama.vocab_size")?.unwrap_or(n_rows),
    };
    Ok(ModelConfig {
        dim,
        hidden_dim: keys.required_count("llama.feed_forward_length")?,
        n_layers: keys.required_count("llama.block_count")?,
        n_heads,
        n_kv_heads: keys.count("llama.attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim: head_dim(keys, dim, n_heads)?,
        vocab_size,
        max_seq_len: keys.required_count("llama.context_length")?,
        norm_eps: keys.required_float("llama.attention.layer_norm_rms_epsilon")?,
        rope: Rope {
            theta: keys.float("llama.rope.freq_base")?.unwrap_or(10_000.0),
            scaling: rope_scaling(keys)?,
            layout: RopeLayout::Interleaved,
        },
        tied_output,
    })
}

fn check_architecture(keys: &Keys<'_>) -> Result<(), FormatError> {
    let key = "general.architecture";
    let architecture = keys.required(key, keys.string(key)?)?;
    if architecture != "llama" {
        return Err(keys.unsupported(key, "llama", architecture));
    }
    let n_experts = keys.count("llama.expert_count")?.unwrap_or(0);
    if n_experts > 0 {
        return Err(keys.unsupported("llama.expert_count", "dense networks", n_experts));
    }
    if keys.flag("llama.attention.causal")? == Some(false) {
        return Err(keys.unsupported("llama.attention.causal", "causal attention", false));
    }
    Ok(())
}

/// `llama.attention.key_length`, by default `dim / n_heads`; values and rotation must be as wide.
fn head_dim(keys: &Keys<'_>, dim: usize, n_heads: usize) -> Result<usize, FormatError> {
    let head_dim = match keys.count("llama.attention.key_length")? {
        Some(width) => width,
        None => dim.checked_div(n_heads).unwrap_or(0),
    };
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        let width = keys.count(key)?.unwrap_or(head_dim);
        if width != head_dim {
            let expected = format!("the head width, {head_dim}");
            return Err(keys.unsupported(key, &expected, width));
        }
    }
    Ok(head_dim)
}

fn rope_scaling(keys: &Keys<'_>) -> Result<RopeScaling, FormatError> {
    let key = "llama.rope.scaling.type";
    let kind = match keys.string(key)? {
        Some(kind) => kind,
        // The spelling from before `scaling.type` existed.
        None => match keys.float("llama.rope.scale_linear")? {
            Some(factor) => return Ok(RopeScaling::Linear { factor }),
            None => "none",
        },
    };
    let factor = || keys.required_float("llama.rope.scaling.factor");
    match kind {
        "none" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "yarn" => yarn(keys, factor()?),
        other => Err(keys.unsupported(key, "none, linear, yarn", other)),
    }
}

fn yarn(keys: &Keys<'_>, factor: f32) -> Result<RopeScaling, FormatError> {
    let key = "llama.rope.scaling.original_context_length";
    let original_max_seq_len = match keys.count(key)? {
        Some(len) => len,
        None => keys.required_count("llama.context_length")?,
    };
    let ext_factor = keys.float("llama.rope.scaling.yarn_ext_factor")?.unwrap_or(1.0);
    if ext_factor != 1.0 {
        let key = "llama.rope.scaling.yarn_ext_factor";
        return Err(keys.unsupported(key, "1", ext_factor));
    }
    // In a GGUF the factor multiplies YaRN's own; ours replaces it.
    let own = 0.1 * factor.ln() + 1.0;
    let attn_factor = keys.float("llama.rope.scaling.attn_factor")?.map(|given| given * own);
    Ok(RopeScaling::Yarn {
        factor,
        original_max_seq_len,
        beta_fast: keys.float("llama.rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
        beta_slow: keys.float("llama.rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
        attn_factor,
    })
}
