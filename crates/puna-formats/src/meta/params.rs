//! `params.json` to the network's configuration, with the defaults and the arithmetic of Meta's `ModelArgs`.

use puna_core::{ModelConfig, Rope, RopeLayout, RopeScaling};

use crate::FormatError;
use crate::json::Fields;

/// Context of Llama 2, which no `params.json` states.
const LLAMA2_MAX_SEQ_LEN: usize = 4096;

/// Reads a configuration from the bytes of `params.json`. `n_tokens` stands in for a `vocab_size` of -1, as
/// Meta's files have it: the number of rows of the embedding.
///
/// # Errors
/// It is no JSON object, a field has the wrong type, or it asks for what is not supported.
pub fn parse_params(file: &str, bytes: &[u8], n_tokens: usize) -> Result<ModelConfig, FormatError> {
    config(&Fields::parse(file, bytes)?, n_tokens)
}

pub(super) fn config(fields: &Fields<'_>, n_tokens: usize) -> Result<ModelConfig, FormatError> {
    if fields.flag("use_scaled_rope")? == Some(true) {
        return Err(fields.unsupported("use_scaled_rope", "false", true));
    }
    if fields.get("moe").is_some() {
        return Err(fields.unsupported("moe", "dense networks", "a mixture of experts"));
    }
    let count = |field, default| Ok::<_, FormatError>(fields.count(field)?.unwrap_or(default));
    let dim = dim(fields)?;
    let n_heads = count("n_heads", 32)?;
    let expected = "a count, or -1 for as many as there are embeddings";
    let vocab_size = fields.optional("vocab_size", expected, |v| match v.as_i64()? {
        -1 => Some(n_tokens),
        n => usize::try_from(n).ok(),
    })?;
    Ok(ModelConfig {
        dim,
        hidden_dim: hidden_dim(fields, dim)?,
        n_layers: count("n_layers", 32)?,
        n_heads,
        n_kv_heads: count("n_kv_heads", n_heads)?,
        head_dim: count("head_dim", dim.checked_div(n_heads).unwrap_or(0))?,
        vocab_size: vocab_size.unwrap_or(n_tokens),
        max_seq_len: count("max_seq_len", LLAMA2_MAX_SEQ_LEN)?,
        norm_eps: fields.float("norm_eps")?.unwrap_or(1e-5) as f32,
        rope: Rope {
            theta: fields.float("rope_theta")?.unwrap_or(10_000.0) as f32,
            scaling: RopeScaling::None,
            layout: RopeLayout::Interleaved,
        },
        tied_output: false,
    })
}

/// Model width, which the shapes of the embedding's parts are read by.
pub(super) fn dim(fields: &Fields<'_>) -> Result<usize, FormatError> {
    Ok(fields.count("dim")?.unwrap_or(4096))
}

/// Two thirds of four times `dim`, times `ffn_dim_multiplier`, rounded up to `multiple_of`; each step is
/// cut to an integer, as in Meta's `FeedForward`.
fn hidden_dim(fields: &Fields<'_>, dim: usize) -> Result<usize, FormatError> {
    const LARGEST: usize = 1 << 24;
    let overflow =
        |found: &str| fields.malformed("ffn_dim_multiplier", "a network of sane width", found);
    let multiple_of = fields.count("multiple_of")?.unwrap_or(256);
    if !(1..=LARGEST).contains(&multiple_of) {
        let found = multiple_of.to_string();
        return Err(fields.malformed("multiple_of", "a positive number", &found));
    }
    let mut hidden = dim.checked_mul(8).ok_or_else(|| overflow("a huge dim"))? / 3;
    if let Some(multiplier) = fields.float("ffn_dim_multiplier")? {
        let wider = multiplier * hidden as f64;
        if !(0.0..LARGEST as f64).contains(&wider) {
            return Err(overflow(&multiplier.to_string()));
        }
        hidden = wider as usize;
    }
    hidden.checked_next_multiple_of(multiple_of).ok_or_else(|| overflow("a huge dim"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_networks() {
        // (dim, n_heads, n_kv_heads, multiple_of, ffn_dim_multiplier) to hidden_dim, as released.
        let cases = [
            (r#"{"dim": 4096, "multiple_of": 256, "n_heads": 32, "vocab_size": -1}"#, 11_008, 32),
            (r#"{"dim": 5120, "multiple_of": 256, "n_heads": 40, "vocab_size": -1}"#, 13_824, 40),
            (
                r#"{"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64,
                "n_kv_heads": 8, "n_layers": 80, "norm_eps": 1e-05, "vocab_size": -1}"#,
                28_672,
                8,
            ),
        ];
        for (json, hidden_dim, n_kv_heads) in cases {
            let config = parse_params("p", json.as_bytes(), 32_000).unwrap();
            assert_eq!((config.hidden_dim, config.n_kv_heads), (hidden_dim, n_kv_heads));
            assert_eq!(
                (config.vocab_size, config.max_seq_len, config.head_dim),
                (32_000, 4096, 128)
            );
        }
    }

    #[test]
    fn what_it_does_not_do_is_an_error() {
        let cases = [
            (r#"{"use_scaled_rope": true}"#, "use_scaled_rope: true is not supported"),
            (r#"{"multiple_of": 0}"#, "multiple_of: expected a positive number, found 0"),
            (r#"{"ffn_dim_multiplier": -1}"#, "ffn_dim_multiplier: expected a network"),
            (r#"{"vocab_size": -2}"#, "vocab_size: expected a count, or -1"),
            (r#"{"dim": 9223372036854775807}"#, "found a huge dim"),
            ("7", "document: expected a JSON object"),
        ];
        for (json, expected) in cases {
            let message = parse_params("p", json.as_bytes(), 1).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
