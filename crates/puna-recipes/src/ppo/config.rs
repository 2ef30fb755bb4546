//! The configuration of PPO.

use std::path::PathBuf;

use serde::Deserialize;

use crate::RecipeError;
use crate::pretrain::PrecisionChoice;
use crate::tune::{CheckpointTable, LoraTable, OptimizerTable, Place, PromptsTable};

/// What to train, by which rewards, and how. Defaults are the paper's (arXiv 2307.09288, section 3.2.3) where it states
/// any; what it leaves open is marked so.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PpoConfig {
    /// The model to begin with, which is also the frozen reference.
    pub model: String,
    /// The folder of the run.
    pub out: Option<PathBuf>,
    /// The folder of the helpfulness reward model.
    pub helpfulness: PathBuf,
    /// That of the safety reward model; without it the helpfulness model alone decides.
    pub safety: Option<PathBuf>,
    /// Below this score of the safety model it decides whatever the prompt.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Files of prompts.
    pub prompts: Vec<PromptsTable>,
    /// Iterations: answers to a batch, then its updates. The paper's 200 to 400.
    #[serde(default = "iterations")]
    pub iterations: u64,
    /// Prompts of an iteration. The paper's 512.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Prompts of an update, each of which is made once. The paper's 64.
    #[serde(default = "mini_batch")]
    pub mini_batch: usize,
    /// Most tokens of an answer. Open in the paper.
    #[serde(default = "max_new_tokens")]
    pub max_new_tokens: usize,
    /// Temperature of answers. Open; 1 draws from the policy itself, which the objective assumes.
    #[serde(default = "one")]
    pub temperature: f32,
    /// What an answer that is cut off at its greatest length loses, of its score's logit. Open; 2. Reward models see whole
    /// answers in training, and without a price a policy learns never to end.
    #[serde(default = "cut_penalty")]
    pub cut_penalty: f64,
    /// What distance from the reference costs. The paper's 0.01 for its smaller models.
    #[serde(default = "kl_coef")]
    pub kl_coef: f64,
    /// The ratio's range around 1. The paper's 0.2.
    #[serde(default = "clip_range")]
    pub clip_range: f64,
    /// Discount of rewards. Open; 1.
    #[serde(default = "gamma")]
    pub gamma: f64,
    /// Decay of advantages (arXiv 1506.02438). Open; 0.95.
    #[serde(default = "lambda")]
    pub lambda: f64,
    /// What the value head's loss counts beside the policy's. Open; 0.1.
    #[serde(default = "value_coef")]
    pub value_coef: f64,
    /// The value head's learning rate. Open; a quarter over the model's width. It begins at zeros, where the rate of the
    /// network would leave it.
    pub value_lr: Option<f64>,
    /// How far a value may move in an iteration before its loss is clipped. Open; 0.2.
    #[serde(default = "clip_range")]
    pub value_clip: f64,
    /// Rows that pass together: a matter of speed and memory, never of results.
    pub micro_batch: Option<usize>,
    #[serde(default)]
    pub recompute: bool,
    /// What factors of products are rounded to.
    pub precision: Option<PrecisionChoice>,
    /// Of answers and of the order of prompts.
    #[serde(default)]
    pub seed: u64,
    /// Adapters instead of all weights; the value head is trained as a whole.
    pub lora: Option<LoraTable>,
    /// AdamW; the paper's learning rate is a constant 1e-6.
    #[serde(default)]
    pub optimizer: OptimizerTable,
    #[serde(default)]
    pub eval: EvalTable,
    #[serde(default)]
    pub checkpoint: CheckpointTable,
}

impl PpoConfig {
    /// Refuses settings out of range.
    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), RecipeError> {
        self.optimizer.check(place)?;
        place.part("fraction", self.eval.fraction)?;
        for (key, n) in [
            ("batch", self.batch),
            ("mini_batch", self.mini_batch),
            ("max_new_tokens", self.max_new_tokens),
        ] {
            place.at_least_one(key, n)?;
        }
        let divides = self.batch.is_multiple_of(self.mini_batch);
        place.check("mini_batch", divides, "a divisor of batch", self.mini_batch)?;
        for (key, found) in [
            ("temperature", f64::from(self.temperature)),
            ("clip_range", self.clip_range),
            ("value_clip", self.value_clip),
        ] {
            place.check(key, found > 0.0, "a number above 0", found)?;
        }
        let value_lr = self.value_lr.unwrap_or_default();
        for (key, found) in [
            ("cut_penalty", self.cut_penalty),
            ("kl_coef", self.kl_coef),
            ("value_coef", self.value_coef),
            ("value_lr", value_lr),
        ] {
            place.check(key, found >= 0.0 && found.is_finite(), "a number, 0 or more", found)?;
        }
        for (key, found) in
            [("gamma", self.gamma), ("lambda", self.lambda), ("threshold", self.threshold)]
        {
            place.check(key, (0.0..=1.0).contains(&found), "a number, 0 to 1", found)?;
        }
        Ok(())
    }
}

/// What is measured and shown on the way, and when the run ends early for it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvalTable {
    /// Iterations from one measurement to the next; zero for none.
    pub every: u64,
    /// The part of all prompts that is held out for it, by a hash of each.
    pub fraction: f64,
    /// Most of them that are answered.
    pub at_most: usize,
    /// Measurements in a row without a new best after which the run ends; zero for never.
    pub patience: u64,
    /// Answers shown.
    pub samples: usize,
}

impl Default for EvalTable {
    fn default() -> Self {
        Self { every: 10, fraction: 0.05, at_most: 128, patience: 5, samples: 3 }
    }
}

fn threshold() -> f64 {
    puna_train::rl::SAFETY_THRESHOLD
}

fn iterations() -> u64 {
    200
}

fn batch() -> usize {
    512
}

fn mini_batch() -> usize {
    64
}

fn max_new_tokens() -> usize {
    256
}

fn one() -> f32 {
    1.0
}

fn cut_penalty() -> f64 {
    2.0
}

fn kl_coef() -> f64 {
    0.01
}

fn clip_range() -> f64 {
    0.2
}

fn gamma() -> f64 {
    1.0
}

fn lambda() -> f64 {
    0.95
}

fn value_coef() -> f64 {
    0.1
}
