//! The proof of a quantised model in its metadata.
//!
//! `puna.proof` is `measured` or says why there is none. Where it was measured: `puna.proof.parent`, `.text` and
//! `.text_sha256` and `.kv_type` are strings, `.ctx` and `.n_tokens` u32, all others f64; divergences are in nats, `_error` are standard
//! errors, as the front page of `puna-eval` defines them.

use puna_eval::{Comparison, Estimate};
use puna_formats::Checkpoint;
use puna_formats::gguf::Value;

use super::{Proof, public_name};
use crate::Opened;

/// What all keys begin with.
pub(crate) const PREFIX: &str = "puna.proof";
const MEASURED: &str = "measured";
const NONE: &str = "none: it was not asked for";

/// How a quantised model compares with its parent, as its file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The parent.
    pub parent: String,
    /// The text.
    pub text: String,
    /// SHA-256 of the text, in hexadecimal.
    pub text_sha256: String,
    /// Tokens of a window.
    pub ctx: u64,
    /// How keys and values were stored.
    pub kv_type: String,
    /// Tokens that were scored.
    pub n_tokens: u64,
    /// Perplexity of the parent.
    pub parent_perplexity: Estimate,
    /// Perplexity of the model.
    pub perplexity: Estimate,
    /// `ln(perplexity of the model / perplexity of the parent)`, token by token.
    pub ln_ratio: Estimate,
    /// Mean divergence from the parent, in nats.
    pub kl: Estimate,
    /// The divergence that 99 of 100 positions do not exceed, in nats.
    pub kl_p99: f64,
    /// The largest divergence, in nats.
    pub kl_max: f64,
    /// Share of positions at which both have the same most likely token.
    pub same_top: Estimate,
}

impl Evidence {
    /// Reads a model's proof; the reason why it has none, where it says one; nothing where the file does not speak of it.
    pub fn of(checkpoint: &Checkpoint) -> Option<Result<Self, String>> {
        let get = |key: &str| {
            let key = if key.is_empty() { PREFIX.to_owned() } else { format!("{PREFIX}.{key}") };
            checkpoint.gguf_metadata.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
        };
        let status = get("")?.as_str()?;
        if status != MEASURED {
            return Some(Err(status.to_owned()));
        }
        let text = |key: &str| get(key)?.as_str().map(str::to_owned);
        let count = |key: &str| get(key)?.as_u64();
        let number = |key: &str| match get(key)? {
            Value::F64(x) => Some(*x),
            _ => None,
        };
        let estimate = |key: &str| {
            Some(Estimate { mean: number(key)?, error: number(&format!("{key}_error"))? })
        };
        Some(Ok(Self {
            parent: text("parent")?,
            text: text("text")?,
            text_sha256: text("text_sha256")?,
            ctx: count("ctx")?,
            kv_type: text("kv_type")?,
            n_tokens: count("n_tokens")?,
            parent_perplexity: estimate("parent_perplexity")?,
            perplexity: estimate("perplexity")?,
            ln_ratio: estimate("ln_ratio")?,
            kl: estimate("kl")?,
            kl_p99: number("kl_p99")?,
            kl_max: number("kl_max")?,
            same_top: estimate("top_1_agreement")?,
        }))
    }
}

/// The entries before anything is measured, of the size that they will have.
pub(super) fn placeholders(source: &Opened, proof: Option<&Proof<'_>>) -> Vec<(String, Value)> {
    let entry = |key: &str, text: &str| (key.to_owned(), Value::String(text.to_owned()));
    let Some(Proof { text, options, .. }) = proof else { return vec![entry(PREFIX, NONE)] };
    let ctx = Value::U32(u32::try_from(options.ctx).unwrap_or(u32::MAX));
    let mut entries = vec![
        entry(PREFIX, MEASURED),
        entry("puna.proof.parent", &public_name(&source.name)),
        entry("puna.proof.text", &public_name(&text.name)),
        entry("puna.proof.text_sha256", &text.sha256),
        ("puna.proof.ctx".to_owned(), ctx),
        entry("puna.proof.kv_type", options.kv_type.name()),
    ];
    entries.extend(figures(None));
    entries
}

/// The entries that hold what was found.
pub(super) fn entries(found: &Comparison) -> Vec<(String, Value)> {
    figures(Some(found))
}

/// The figures, or as many NaN.
fn figures(found: Option<&Comparison>) -> Vec<(String, Value)> {
    let n_tokens = found.map_or(0, |found| found.child.n_tokens);
    let n_tokens = Value::U32(u32::try_from(n_tokens).unwrap_or(u32::MAX));
    let mut entries = vec![("puna.proof.n_tokens".to_owned(), n_tokens)];
    let mut number = |key: &str, x: f64| {
        entries.push((format!("{PREFIX}.{key}"), Value::F64(x)));
    };
    let nan = Estimate { mean: f64::NAN, error: f64::NAN };
    for (key, estimate) in [
        ("parent_perplexity", found.map(|found| found.parent.perplexity())),
        ("perplexity", found.map(|found| found.child.perplexity())),
        ("ln_ratio", found.map(|found| found.ln_ratio)),
        ("kl", found.map(|found| found.kl)),
        ("top_1_agreement", found.map(|found| found.same_top)),
    ] {
        let Estimate { mean, error } = estimate.unwrap_or(nan);
        number(key, mean);
        number(&format!("{key}_error"), error);
    }
    number("kl_p99", found.map_or(f64::NAN, |found| found.kl_p99));
    number("kl_max", found.map_or(f64::NAN, |found| found.kl_max));
    entries
}
