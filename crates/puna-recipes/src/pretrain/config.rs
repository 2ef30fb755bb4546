//! The configuration of a pre-training run. Every error has the line and column of its value.

use std::ops::Range;
use std::path::PathBuf;

use puna_core::{ModelConfig, Rope, RopeLayout, RopeScaling};
use puna_data::DataError;
use puna_kernels::Isa;
use puna_ops::Precision;
use puna_train::OptimizerConfig;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::Spanned;

use super::presets::Preset;
use crate::RecipeError;

/// What to train, on what, and how. Defaults are the paper's (arXiv 2307.09288, section 2.2), or the preset's where the
/// paper's depend on the size.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// A shape of the family with its learning rate, batch and context.
    pub preset: Option<Preset>,
    /// The shape itself, or what differs from the preset's.
    #[serde(default)]
    pub model: ModelTable,
    /// The folder that `puna data build` wrote.
    pub data: PathBuf,
    /// The folder of the run.
    pub out: Option<PathBuf>,
    /// Of new weights and of the order of sequences.
    #[serde(default)]
    pub seed: u64,
    /// Tokens to train on in all; the paper's 2 trillion are for its sizes.
    pub tokens: Spanned<u64>,
    /// Tokens of a batch: one update.
    pub batch_tokens: Option<Spanned<u64>>,
    /// Tokens of a sequence; the preset's context.
    pub seq_len: Option<Spanned<usize>>,
    /// Sequences that pass together: a matter of speed and memory, never of results.
    pub micro_batch: Option<Spanned<usize>>,
    /// Run blocks again on the way back instead of keeping what they computed: the same results, less memory.
    #[serde(default)]
    pub recompute: bool,
    /// What factors of products with weights are rounded to. `auto` is bf16 where this CPU has fast instructions
    /// for it, else f32.
    pub precision: Option<Spanned<PrecisionChoice>>,
    /// Let attention see no further back than its document's beginning. The paper does not say; off by default.
    #[serde(default)]
    pub within_documents: bool,
    /// AdamW and the learning rate.
    #[serde(default)]
    pub optimizer: OptimizerTable,
    /// What is measured and shown on the way.
    #[serde(default)]
    pub eval: EvalTable,
    /// When checkpoints are written, and which are kept.
    #[serde(default)]
    pub checkpoint: CheckpointTable,
    /// What to do when training goes wrong.
    #[serde(default)]
    pub guard: Guard,
    /// What energy is estimated by.
    #[serde(default)]
    pub estimate: EstimateTable,
}

/// Dimensions of a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTable {
    /// Model width.
    pub dim: Option<usize>,
    /// Feed-forward inner width.
    pub hidden_dim: Option<usize>,
    /// Blocks.
    pub n_layers: Option<usize>,
    /// Query heads.
    pub n_heads: Option<usize>,
    /// Key and value heads; as many as query heads by default.
    pub n_kv_heads: Option<usize>,
    /// Epsilon of RMSNorm.
    pub norm_eps: Option<f32>,
    /// Base of RoPE's frequencies.
    pub rope_theta: Option<f32>,
    /// Whether the output matrix is the embedding.
    pub tied_output: Option<bool>,
}

/// What factors of products with weights are rounded to; master weights, their gradients and all sums are f32 always.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bf16 where the CPU has fast instructions for it, else f32.
    Auto,
    /// f32: the same on every CPU.
    F32,
    /// bf16, or an error.
    Bf16,
}

/// AdamW and the learning rate over time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerTable {
    /// The highest learning rate; the preset's.
    #[serde(deserialize_with = "maybe_rate")]
    pub lr: Option<f64>,
    /// Steps of linear warm-up: the paper's 2,000, or a tenth of all steps where that is less.
    pub warmup_steps: Option<u64>,
    /// The lowest learning rate at the end of the cosine, as a part of the highest.
    #[serde(deserialize_with = "share")]
    pub min_lr_ratio: f64,
    /// Decay of the mean of gradients.
    #[serde(deserialize_with = "decay")]
    pub beta1: f32,
    /// Decay of the mean of their squares.
    #[serde(deserialize_with = "decay")]
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decay of matrices.
    pub weight_decay: f32,
    /// The longest gradient.
    #[serde(deserialize_with = "positive")]
    pub clip: f64,
}

impl Default for OptimizerTable {
    fn default() -> Self {
        let OptimizerConfig { beta1, beta2, eps, weight_decay, clip } = OptimizerConfig::default();
        let (lr, warmup_steps, min_lr_ratio) = (None, None, 0.1);
        Self { lr, warmup_steps, min_lr_ratio, beta1, beta2, eps, weight_decay, clip }
    }
}

impl OptimizerTable {
    /// What AdamW needs of it.
    pub(super) fn numbers(&self) -> OptimizerConfig {
        let &Self { beta1, beta2, eps, weight_decay, clip, .. } = self;
        OptimizerConfig { beta1, beta2, eps, weight_decay, clip }
    }
}

/// What is measured and shown on the way.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalTable {
    /// Steps from one measurement to the next; zero for none.
    pub every: u64,
    /// Held-out windows of each source that are read; zero for all.
    pub windows: u64,
    /// Beginnings that the model continues.
    pub prompts: Vec<String>,
    /// Tokens of a continuation.
    pub sample_tokens: usize,
}

impl Default for EvalTable {
    fn default() -> Self {
        let prompts = vec!["Once upon a time".to_owned()];
        Self { every: 250, windows: 32, prompts, sample_tokens: 64 }
    }
}

/// When checkpoints are written, and which are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointTable {
    /// Steps from one checkpoint to the next.
    #[serde(deserialize_with = "at_least_one")]
    pub every: u64,
    /// How many of the last are kept, beside the best.
    #[serde(deserialize_with = "at_least_one")]
    pub keep: u64,
}

impl Default for CheckpointTable {
    fn default() -> Self {
        Self { every: 250, keep: 2 }
    }
}

/// What counts as going wrong, and what follows.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// What to do then.
    pub on_fault: OnFault,
    /// Nats above the running mean of the loss that are a spike.
    #[serde(deserialize_with = "positive")]
    pub spike: f64,
    /// Faults in a row after which skipping and rolling back end.
    #[serde(deserialize_with = "at_least_one")]
    pub most_faults: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { on_fault: OnFault::Stop, spike: 2.0, most_faults: 3 }
    }
}

/// What to do with a batch whose loss or gradient is not finite, or whose loss is a spike.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum OnFault {
    /// Save what there was before it, and end.
    #[default]
    Stop,
    /// Leave it out.
    Skip,
    /// Go back to the last checkpoint, and leave it out from there on.
    RollBack,
}

/// What energy is estimated by.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EstimateTable {
    /// Power of this machine while it trains, W.
    #[serde(deserialize_with = "positive")]
    pub watts: f64,
    /// Carbon dioxide of a kilowatt-hour, g. The default is the world's mean of 2023 (IEA).
    #[serde(deserialize_with = "positive")]
    pub grams_per_kwh: f64,
}

impl Default for EstimateTable {
    fn default() -> Self {
        Self { watts: 100.0, grams_per_kwh: 480.0 }
    }
}

fn number<'de, D: Deserializer<'de>>(
    input: D,
    expected: &str,
    fits: fn(f64) -> bool,
) -> Result<f64, D::Error> {
    let found = f64::deserialize(input)?;
    if fits(found) {
        return Ok(found);
    }
    Err(D::Error::custom(format!("expected {expected}, found {found}")))
}

fn share<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    number(input, "a number, 0 to 1", |x| (0.0..=1.0).contains(&x))
}

fn positive<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    number(input, "a number above 0", |x| x.is_finite() && x > 0.0)
}

fn maybe_rate<'de, D: Deserializer<'de>>(input: D) -> Result<Option<f64>, D::Error> {
    number(input, "a number above 0, at most 1", |x| x > 0.0 && x <= 1.0).map(Some)
}

fn decay<'de, D: Deserializer<'de>>(input: D) -> Result<f32, D::Error> {
    number(input, "a number, 0 to below 1", |x| (0.0..1.0).contains(&x)).map(|x| x as f32)
}

fn at_least_one<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let found = i64::deserialize(input)?;
    u64::try_from(found).ok().filter(|&n| n > 0).ok_or_else(|| {
        D::Error::custom(format!("expected a whole number, 1 or more, found {found}"))
    })
}

/// A configuration with every number decided, whatever it came from.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The network.
    pub model: ModelConfig,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Sequences of a batch.
    pub n_seqs: usize,
    /// Sequences that pass together, a divisor of `n_seqs`.
    pub micro_batch: usize,
    /// Updates in all.
    pub n_steps: u64,
    /// Updates of warm-up.
    pub n_warmup: u64,
    /// The highest learning rate.
    pub lr: f64,
}

impl PretrainConfig {
    /// Reads a configuration; `file` is its name for messages.
    ///
    /// # Errors
    /// No TOML, an unknown key, a missing one, a value out of range: with line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, RecipeError> {
        toml::from_str(text).map_err(|e| located(file, text, e.span().unwrap_or(0..0), e.message()))
    }

    /// The precision of products on an instruction set.
    ///
    /// # Errors
    /// The set lacks what was asked for, with line and column.
    pub fn precision(&self, file: &str, text: &str, isa: Isa) -> Result<Precision, RecipeError> {
        let choice = self.precision.as_ref();
        let span = choice.map_or(0..0, Spanned::span);
        precision_of(choice.map(|choice| *choice.get_ref()), isa)
            .map_err(|message| located(file, text, span, &message))
    }

    /// Decides every number, for a vocabulary of `vocab_size`.
    ///
    /// # Errors
    /// Numbers that do not fit each other, with line and column.
    pub fn settle(
        &self,
        file: &str,
        text: &str,
        vocab_size: usize,
    ) -> Result<Settled, RecipeError> {
        let fail = |span, message: String| located(file, text, span, &message);
        let preset = self.preset.map(Preset::values);
        let missing =
            |key: &str| fail(0..0, format!("expected a preset or `{key}`, found neither"));
        let m = &self.model;
        let of_preset = preset.as_ref().map(|p| &p.model);
        let pick = |own: Option<usize>, key: &str, of: fn(&ModelConfig) -> usize| {
            own.or(of_preset.map(of)).ok_or_else(|| missing(&format!("model.{key}")))
        };
        let seq_len = match &self.seq_len {
            Some(seq_len) => *seq_len.get_ref(),
            None => of_preset.ok_or_else(|| missing("seq_len"))?.max_seq_len,
        };
        let n_heads = pick(m.n_heads, "n_heads", |c| c.n_heads)?;
        let dim = pick(m.dim, "dim", |c| c.dim)?;
        if n_heads == 0 || !dim.is_multiple_of(n_heads) {
            return Err(fail(
                0..0,
                format!("model: expected dim in whole heads, found {dim} in {n_heads}"),
            ));
        }
        // Other heads than the preset's have keys and values of their own, unless it is said.
        let n_kv_heads = match (m.n_kv_heads, m.n_heads, of_preset) {
            (Some(n), ..) => n,
            (None, None, Some(preset)) => preset.n_kv_heads,
            _ => n_heads,
        };
        let model = ModelConfig {
            dim,
            hidden_dim: pick(m.hidden_dim, "hidden_dim", |c| c.hidden_dim)?,
            n_layers: pick(m.n_layers, "n_layers", |c| c.n_layers)?,
            n_heads,
            n_kv_heads,
            head_dim: dim / n_heads,
            vocab_size,
            max_seq_len: seq_len,
            norm_eps: m.norm_eps.unwrap_or(1e-5),
            rope: Rope {
                theta: m.rope_theta.unwrap_or(1e4),
                scaling: RopeScaling::None,
                layout: RopeLayout::Interleaved,
            },
            tied_output: m.tied_output.or(of_preset.map(|c| c.tied_output)).unwrap_or(false),
        };
        model.validate().map_err(|e| fail(0..0, format!("model: {e}")))?;

        let batch_tokens = match &self.batch_tokens {
            Some(n) => *n.get_ref(),
            None => preset.as_ref().ok_or_else(|| missing("batch_tokens"))?.batch_tokens,
        };
        let batch_span = self.batch_tokens.as_ref().map_or(0..0, Spanned::span);
        if batch_tokens == 0 || !batch_tokens.is_multiple_of(seq_len as u64) {
            let message = format!(
                "batch_tokens: expected whole sequences of {seq_len}, found {batch_tokens}"
            );
            return Err(fail(batch_span, message));
        }
        let n_seqs = (batch_tokens / seq_len as u64) as usize;
        let micro_batch = match &self.micro_batch {
            Some(n) => *n.get_ref(),
            None => default_micro_batch(n_seqs, seq_len),
        };
        if micro_batch == 0 || !n_seqs.is_multiple_of(micro_batch) {
            let span = self.micro_batch.as_ref().map_or(0..0, Spanned::span);
            let message = format!(
                "micro_batch: expected a divisor of the {n_seqs} sequences of a batch, found {micro_batch}"
            );
            return Err(fail(span, message));
        }
        let tokens = *self.tokens.get_ref();
        if tokens < batch_tokens {
            let message =
                format!("tokens: expected at least a batch of {batch_tokens}, found {tokens}");
            return Err(fail(self.tokens.span(), message));
        }
        let n_steps = tokens.div_ceil(batch_tokens);
        let lr = match self.optimizer.lr {
            Some(lr) => lr,
            None => preset.as_ref().ok_or_else(|| missing("optimizer.lr"))?.lr,
        };
        let n_warmup = self.optimizer.warmup_steps.unwrap_or(2000.min(n_steps.div_ceil(10)));
        Ok(Settled { model, seq_len, n_seqs, micro_batch, n_steps, n_warmup, lr })
    }
}

/// The precision that a setting means on an instruction set, or what to say where it has none.
pub(crate) fn precision_of(choice: Option<PrecisionChoice>, isa: Isa) -> Result<Precision, String> {
    let precision = match choice.unwrap_or(PrecisionChoice::Auto) {
        PrecisionChoice::Auto => Precision::best(isa),
        PrecisionChoice::F32 => Precision::F32,
        PrecisionChoice::Bf16 => Precision::Bf16,
    };
    match precision.is_available(isa) {
        true => Ok(precision),
        false => Err(format!("precision: expected \"auto\" or \"f32\" with {isa}, found \"bf16\"")),
    }
}

/// The largest divisor of the batch with no more than some thousand tokens: enough for products to be efficient.
fn default_micro_batch(n_seqs: usize, seq_len: usize) -> usize {
    let most = (8192 / seq_len).clamp(1, n_seqs);
    (1..=most).rev().find(|n| n_seqs.is_multiple_of(*n)).unwrap_or(1)
}

fn located(file: &str, text: &str, span: Range<usize>, message: &str) -> RecipeError {
    DataError::in_config(file, text, span, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(text: &str) -> Result<Settled, String> {
        let config = PretrainConfig::parse("run.toml", text).map_err(|e| e.to_string())?;
        config.settle("run.toml", text, 4096).map_err(|e| e.to_string())
    }

    #[test]
    fn presets_are_completed_and_overridden() {
        let settled = settle("preset = \"7m\"\ndata = \"d\"\ntokens = 10_000_000\n").unwrap();
        assert_eq!((settled.seq_len, settled.model.vocab_size), (1024, 4096));
        assert_eq!(settled.n_steps, 10_000_000u64.div_ceil(settled.n_seqs as u64 * 1024));
        assert_eq!(settled.n_seqs % settled.micro_batch, 0);
        let text = "preset = \"7m\"\ndata = \"d\"\ntokens = 9000\nseq_len = 256\nbatch_tokens = 1024\n[model]\nn_layers = 2\n[optimizer]\nlr = 0.5\n";
        let settled = settle(text).unwrap();
        assert_eq!((settled.model.n_layers, settled.n_seqs, settled.n_steps), (2, 4, 9));
        assert_eq!((settled.lr, settled.n_warmup), (0.5, 1));
    }

    #[test]
    fn bf16_is_refused_where_there_is_none() {
        let text = "preset = \"7m\"\ndata = \"d\"\ntokens = 9000\nprecision = \"bf16\"\n";
        let config = PretrainConfig::parse("run.toml", text).unwrap();
        let error = config.precision("run.toml", text, Isa::Avx2).unwrap_err().to_string();
        assert!(error.contains("4:13") && error.contains("\"f32\" with avx2"), "{error}");
        let precision = config.precision("run.toml", text, Isa::Avx512Bf16).unwrap();
        assert_eq!(precision, Precision::Bf16);
        let text = text.replace("bf16", "f16");
        let error = PretrainConfig::parse("run.toml", &text).unwrap_err().to_string();
        assert!(error.contains("`auto`, `f32`") || error.contains("expected one of"), "{error}");
    }

    #[test]
    fn mistakes_are_named_with_line_and_column() {
        let base = "preset = \"7m\"\ndata = \"d\"\n";
        for (text, expected) in [
            ("tokens = 10_000_000\ncolour = 3\n", "run.toml:4:1: unknown field `colour`"),
            ("tokens = 5\n", "run.toml:3:10: tokens: expected at least a batch"),
            ("tokens = 1e9\n", "run.toml:3:10: invalid type"),
            (
                "tokens = 10_000_000\nbatch_tokens = 1000\n",
                "run.toml:4:16: batch_tokens: expected whole sequences of 1024, found 1000",
            ),
            (
                "tokens = 10_000_000\nmicro_batch = 7\n",
                "run.toml:4:15: micro_batch: expected a divisor",
            ),
            (
                "tokens = 10_000_000\n[optimizer]\nlr = 3\n",
                "run.toml:5:6: expected a number above 0, at most 1, found 3",
            ),
            (
                "tokens = 10_000_000\n[checkpoint]\nkeep = 0\n",
                "run.toml:5:8: expected a whole number, 1 or more, found 0",
            ),
            (
                "tokens = 10_000_000\n[guard]\non_fault = \"hope\"\n",
                "run.toml:5:12: unknown variant `hope`",
            ),
            ("", "missing field `tokens`"),
            (
                "tokens = 10_000_000\n[model]\nn_heads = 7\n",
                "model: expected dim in whole heads, found 288 in 7",
            ),
        ] {
            let found = settle(&format!("{base}{text}")).unwrap_err();
            assert!(found.contains(expected), "{found}\nexpected {expected}");
        }
        let found = settle("data = \"d\"\ntokens = 9000\n").unwrap_err();
        assert!(found.contains("expected a preset or `seq_len`, found neither"), "{found}");
    }
}
