//! How tokens are drawn, as typed.

use clap::Args;
use puna_core::SamplingHints;
use puna_engine::Sampling;

use crate::args::{count, number, whole};

/// Options of the commands that write text.
#[derive(Args, Clone)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Flatten (above 1) or sharpen (below 1) the distribution; 0 always takes the likeliest [default: the model's own, else
    /// 0.6]
    #[arg(long, value_name = "T", value_parser = number(0.0, f32::MAX))]
    temperature: Option<f32>,
    /// Draw from the likeliest tokens that together have probability P [default: the model's own, else 0.9]
    #[arg(long, value_name = "P", value_parser = number(0.0, 1.0))]
    top_p: Option<f32>,
    /// Draw from the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K", value_parser = count(0))]
    top_k: Option<usize>,
    /// Drop tokens less than P times as likely as the likeliest
    #[arg(long, value_name = "P", value_parser = number(0.0, 1.0))]
    min_p: Option<f32>,
    /// Divide the logits of tokens seen before by X (1 for none)
    #[arg(long, value_name = "X", value_parser = number(0.01, 100.0))]
    repetition_penalty: Option<f32>,
    /// Subtract X from the logits of tokens already in the answer
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = number(f32::MIN, f32::MAX),
          hide_default_value = true)]
    presence_penalty: f32,
    /// Subtract X for each time a token is already in the answer
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = number(f32::MIN, f32::MAX),
          hide_default_value = true)]
    frequency_penalty: f32,
    /// Add X to the logit of token ID; may be repeated
    #[arg(long, value_name = "ID=X", value_parser = logit_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Seed of the random draws: same seed, same text
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = whole(0, u64::MAX))]
    seed: u64,
}

impl SamplingArgs {
    /// The engine's form; what was not typed is as the model's maker suggests, else as in Llama 2 Chat.
    pub(crate) fn resolve(&self, hints: &SamplingHints) -> Sampling {
        let default = Sampling::default().suggested(&SamplingHints::LLAMA2_CHAT).suggested(hints);
        Sampling {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
        }
    }
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = text.split_once('=').and_then(|(id, bias)| {
        let bias: f32 = bias.parse().ok()?;
        // Minus infinity is allowed: it forbids the token.
        (bias < f32::INFINITY).then_some((id.parse().ok()?, bias))
    });
    parsed.ok_or_else(|| "expected ID=X, such as 29871=-5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_parse() {
        assert_eq!(logit_bias("3=-5"), Ok((3, -5.0)));
        assert_eq!(logit_bias("3=-inf"), Ok((3, f32::NEG_INFINITY)));
        for bad in ["3", "3=", "=1", "-1=2", "3=nan", "3=inf", "x=1"] {
            assert!(logit_bias(bad).is_err(), "{bad}");
        }
    }
}
