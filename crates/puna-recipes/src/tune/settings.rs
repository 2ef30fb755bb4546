//! Settings that the stages after pre-training share. Every error has the line and column of its value.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use puna_core::LayerWeight;
use puna_data::DataError;
use puna_kernels::Cpu;
use puna_ops::Precision;
use puna_train::{LoraShape, OptimizerConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::Base;
use crate::RecipeError;
use crate::pretrain::{PrecisionChoice, precision_of};

/// A configuration's file, for messages, and the folder that its paths start from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub file: &'a str,
    pub text: &'a str,
    pub folder: &'a Path,
}

impl Place<'_> {
    /// Reads the configuration.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, RecipeError> {
        toml::from_str(self.text).map_err(|e| self.error(e.span().unwrap_or(0..0), e.message()))
    }

    /// Refuses a setting that does not fit.
    pub(crate) fn check(
        &self,
        key: &str,
        fits: bool,
        expected: &str,
        found: impl std::fmt::Display,
    ) -> Result<(), RecipeError> {
        if fits {
            return Ok(());
        }
        Err(self.error(self.find(key), &format!("{key}: expected {expected}, found {found}")))
    }

    /// Refuses what is no part of a whole.
    pub(crate) fn part(&self, key: &str, found: f64) -> Result<(), RecipeError> {
        self.check(key, (0.0..=1.0).contains(&found), "a number, 0 to 1", found)
    }

    /// Refuses a zero.
    pub(crate) fn at_least_one(&self, key: &str, found: usize) -> Result<(), RecipeError> {
        self.check(key, found > 0, "1 or more", found)
    }

    /// What factors of products are rounded to: a setting, or what is best on this CPU.
    pub(crate) fn precision(
        &self,
        choice: Option<PrecisionChoice>,
        cpu: &Cpu,
    ) -> Result<Precision, RecipeError> {
        precision_of(choice, cpu.isa())
            .map_err(|message| self.error(self.find("precision"), &message))
    }

    /// The length of rows: a setting, or the model's context, which is the most.
    pub(crate) fn seq_len(
        &self,
        setting: Option<usize>,
        base: &Base,
    ) -> Result<usize, RecipeError> {
        let context = base.config.max_seq_len;
        let seq_len = setting.unwrap_or(context);
        let expected = format!("2 to {context}, the model's context");
        self.check("seq_len", (2..=context).contains(&seq_len), &expected, seq_len)?;
        Ok(seq_len)
    }

    /// The same for rows that hold both answers of a pair, each of which sees itself alone: twice the context by default,
    /// and at most.
    pub(crate) fn pair_len(
        &self,
        setting: Option<usize>,
        base: &Base,
    ) -> Result<usize, RecipeError> {
        let most = 2 * base.config.max_seq_len;
        let seq_len = setting.unwrap_or(most);
        let expected = format!("2 to {most}, twice the model's context");
        self.check("seq_len", (2..=most).contains(&seq_len), &expected, seq_len)?;
        Ok(seq_len)
    }

    /// A mistake at `span`.
    pub(crate) fn error(&self, span: Range<usize>, message: &str) -> RecipeError {
        DataError::in_config(self.file, self.text, span, message).into()
    }

    /// A MODEL as the configuration means it: a path from its folder where there is one, else a name.
    pub(crate) fn model(&self, model: &str) -> String {
        let path = self.path(Path::new(model));
        if path.exists() { path.display().to_string() } else { model.to_owned() }
    }

    /// A path as the configuration means it.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }
}

/// AdamW and the learning rate over time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OptimizerTable {
    /// The highest learning rate; the recipe's where the paper states one.
    pub lr: Option<f64>,
    /// The part of all steps in which the rate rises; at least `min_warmup_steps` of them.
    pub warmup_ratio: f64,
    pub min_warmup_steps: u64,
    /// The lowest learning rate at the end of the cosine, as a part of the highest.
    pub min_lr_ratio: f64,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    pub clip: f64,
}

impl Default for OptimizerTable {
    /// The paper's AdamW (section 2.2), and the warm-up of its reward models (section 3.2.2), which it states for no
    /// other stage.
    fn default() -> Self {
        let OptimizerConfig { beta1, beta2, eps, weight_decay, clip } = OptimizerConfig::default();
        Self {
            lr: None,
            warmup_ratio: 0.03,
            min_warmup_steps: 5,
            min_lr_ratio: 0.1,
            beta1,
            beta2,
            eps,
            weight_decay,
            clip,
        }
    }
}

impl OptimizerTable {
    /// What AdamW needs of it.
    pub(crate) fn numbers(&self) -> OptimizerConfig {
        let &Self { beta1, beta2, eps, weight_decay, clip, .. } = self;
        OptimizerConfig { beta1, beta2, eps, weight_decay, clip }
    }

    /// Steps of warm-up among `n_steps`.
    pub(crate) fn n_warmup(&self, n_steps: u64) -> u64 {
        let share = (self.warmup_ratio * n_steps as f64).ceil() as u64;
        share.max(self.min_warmup_steps).min(n_steps)
    }

    /// Refuses numbers out of range.
    pub(crate) fn check(&self, place: &Place<'_>) -> Result<(), RecipeError> {
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        let decay = |x: f32| (0.0..1.0).contains(&x);
        let lr = self.lr.unwrap_or(1e-5);
        for (name, fits, expected, found) in [
            ("lr", lr > 0.0 && lr <= 1.0, "a number above 0, at most 1", lr),
            ("warmup_ratio", unit(self.warmup_ratio), "a number, 0 to 1", self.warmup_ratio),
            ("min_lr_ratio", unit(self.min_lr_ratio), "a number, 0 to 1", self.min_lr_ratio),
            ("beta1", decay(self.beta1), "a number, 0 to below 1", self.beta1.into()),
            ("beta2", decay(self.beta2), "a number, 0 to below 1", self.beta2.into()),
            ("clip", self.clip > 0.0, "a number above 0", self.clip),
        ] {
            place.check(name, fits, expected, found)?;
        }
        Ok(())
    }
}

impl Place<'_> {
    /// Where the configuration sets `key` or has the table `[key]`, or its beginning.
    pub(crate) fn find(&self, key: &str) -> Range<usize> {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            let rest = line.trim_start().strip_prefix(key);
            if rest.is_some_and(|rest| rest.trim_start().starts_with('=') || key.starts_with('[')) {
                return start..start + line.trim_end().len();
            }
            start += line.len();
        }
        0..0
    }
}

/// When checkpoints are written, and which are kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CheckpointTable {
    /// Steps from one checkpoint to the next.
    #[serde(deserialize_with = "at_least_one")]
    pub every: u64,
    /// How many of the last are kept.
    #[serde(deserialize_with = "at_least_one")]
    pub keep: u64,
}

impl Default for CheckpointTable {
    fn default() -> Self {
        Self { every: 50, keep: 2 }
    }
}

fn at_least_one<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    let found = i64::deserialize(input)?;
    u64::try_from(found).ok().filter(|&n| n > 0).ok_or_else(|| {
        D::Error::custom(format!("expected a whole number, 1 or more, found {found}"))
    })
}

/// Adapters instead of all weights.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LoraTable {
    pub rank: usize,
    pub alpha: f32,
    /// Matrices by Hugging Face's names.
    pub targets: Vec<Target>,
}

impl Default for LoraTable {
    /// Every matrix of a block, with a rank and alpha as in arXiv 2305.14314; the paper has no adapters.
    fn default() -> Self {
        use Target::*;
        Self { rank: 16, alpha: 32.0, targets: vec![Q, K, V, O, Gate, Up, Down] }
    }
}

/// A matrix that can have an adapter.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) enum Target {
    #[serde(rename = "q_proj")]
    Q,
    #[serde(rename = "k_proj")]
    K,
    #[serde(rename = "v_proj")]
    V,
    #[serde(rename = "o_proj")]
    O,
    #[serde(rename = "gate_proj")]
    Gate,
    #[serde(rename = "up_proj")]
    Up,
    #[serde(rename = "down_proj")]
    Down,
}

impl LoraTable {
    /// The adapters' shape.
    pub(crate) fn shape(&self, place: &Place<'_>) -> Result<LoraShape, RecipeError> {
        for (name, fits, expected) in [
            ("rank", self.rank > 0, "a whole number, 1 or more"),
            ("alpha", self.alpha > 0.0 && self.alpha.is_finite(), "a number above 0"),
            ("targets", !self.targets.is_empty(), "at least one matrix"),
        ] {
            place.check(name, fits, expected, "another")?;
        }
        let weight = |target: &Target| match target {
            Target::Q => LayerWeight::Wq,
            Target::K => LayerWeight::Wk,
            Target::V => LayerWeight::Wv,
            Target::O => LayerWeight::Wo,
            Target::Gate => LayerWeight::WGate,
            Target::Up => LayerWeight::WUp,
            Target::Down => LayerWeight::WDown,
        };
        let targets = self.targets.iter().map(weight).collect();
        Ok(LoraShape { rank: self.rank, alpha: self.alpha, targets })
    }
}

/// Settings in words, for a run's state.
pub(crate) fn in_words<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}
