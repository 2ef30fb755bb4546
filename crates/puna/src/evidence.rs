//! Measured quality, as text and as JSON.

use std::io::{self, Write};

use puna_eval::{Comparison, Estimate, Options, Perplexity, Text};
use serde_json::{Value, json};

use crate::units;

/// `wiki.txt: 34,000 tokens in windows of 512, 16,830 scored`.
pub(crate) fn heading(text: &Text, options: Options, n_scored: usize) -> String {
    let stride = options.stride.map(|s| format!(" every {s}")).unwrap_or_default();
    format!(
        "{}: {} in windows of {}{stride}, {n_scored} scored",
        text.name,
        units::plural(text.n_tokens(), "token"),
        options.ctx
    )
}

/// Writes perplexity and bits per byte.
pub(crate) fn write_perplexity(out: &mut impl Write, found: &Perplexity) -> io::Result<()> {
    line(out, "perplexity", &with_error(found.perplexity()))?;
    line(out, "bits per byte", &with_error(found.bits_per_byte()))
}

/// Writes a comparison of a model with its parent.
pub(crate) fn write_comparison(out: &mut impl Write, found: &Comparison) -> io::Result<()> {
    let ratio = Estimate {
        mean: found.ln_ratio.mean.exp(),
        error: found.ln_ratio.mean.exp() * found.ln_ratio.error,
    };
    line(out, "parent", &format!("perplexity {}", with_error(found.parent.perplexity())))?;
    write_perplexity(out, &found.child)?;
    line(out, "ratio to parent", &with_error(ratio))?;
    let (kl, p99, max) = (with_error(found.kl), found.kl_p99, found.kl_max);
    line(out, "KL divergence", &format!("{kl} nats, 99 % {}, max {}", short(p99), short(max)))?;
    let top = Estimate { mean: 100.0 * found.same_top.mean, error: 100.0 * found.same_top.error };
    line(out, "top-1 agreement", &format!("{:.2} ± {:.2} %", top.mean, top.error))
}

fn line(out: &mut impl Write, title: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{title:<16} {text}")
}

/// A number with digits down to a tenth of its error.
pub(crate) fn with_error(e: Estimate) -> String {
    let digits = if e.error > 0.0 { (1.0 - e.error.log10().floor()).clamp(0.0, 9.0) } else { 4.0 };
    let digits = digits as usize;
    format!("{:.digits$} ± {:.digits$}", e.mean, e.error)
}

/// Three digits that count.
pub(crate) fn short(x: f64) -> String {
    if x == 0.0 {
        return "0".to_owned();
    }
    let digits = (2.0 - x.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{x:.digits$}")
}

/// The text and how it was read.
pub(crate) fn text_json(text: &Text, options: Options) -> Value {
    json!({ "name": text.name, "sha256": text.sha256, "n_tokens": text.n_tokens(),
            "ctx": options.ctx, "stride": options.stride, "kv_type": options.kv_type.name() })
}

pub(crate) fn perplexity_json(found: &Perplexity) -> Value {
    json!({ "n_scored": found.n_tokens, "n_bytes": found.n_bytes,
            "perplexity": estimate(found.perplexity()),
            "bits_per_byte": estimate(found.bits_per_byte()), "nll": estimate(found.nll) })
}

pub(crate) fn comparison_json(found: &Comparison) -> Value {
    json!({ "parent": perplexity_json(&found.parent), "model": perplexity_json(&found.child),
            "ln_ratio": estimate(found.ln_ratio),
            "kl": { "mean": found.kl.mean, "error": found.kl.error, "p99": found.kl_p99,
                    "max": found.kl_max },
            "top_1_agreement": estimate(found.same_top) })
}

pub(crate) fn estimate(e: Estimate) -> Value {
    json!({ "mean": e.mean, "error": e.error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_follow_the_error() {
        let text = |mean, error| with_error(Estimate { mean, error });
        assert_eq!(text(7.81234, 0.0431), "7.812 ± 0.043");
        assert_eq!(text(123.4, 12.3), "123 ± 12");
        assert_eq!(text(0.0012345, 0.0000123), "0.001234 ± 0.000012");
        assert_eq!(text(1.0, 0.0), "1.0000 ± 0.0000");
        assert_eq!(
            (short(0.0213), short(4.0), short(0.0)),
            ("0.0213".into(), "4.00".into(), "0".into())
        );
    }
}
