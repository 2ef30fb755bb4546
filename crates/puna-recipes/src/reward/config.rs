//! The configuration of a reward model's training.

use std::path::PathBuf;

use puna_train::rl::Margins;
use serde::Deserialize;

use crate::pretrain::PrecisionChoice;
use crate::sft::Unfit;
use crate::tune::{CheckpointTable, LoraTable, OptimizerTable, PairsTable};

/// What to train, on what, and how. Defaults are the paper's (arXiv 2307.09288, section 3.2.2).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RewardConfig {
    /// The model to begin with: the paper's are chat models.
    pub model: String,
    /// The folder of the run.
    pub out: Option<PathBuf>,
    /// Files of pairs.
    pub data: Vec<PairsTable>,
    /// Tokens of a row, into which pairs are packed: both answers of one lie in one row. Twice the model's context.
    pub seq_len: Option<usize>,
    /// Pairs of a batch: one update. The paper's 512.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Times that every pair is seen. The paper's one: more overfits.
    #[serde(default = "epochs")]
    pub epochs: u64,
    /// Rows that pass together: a matter of speed and memory, never of results.
    pub micro_batch: Option<usize>,
    /// Run blocks again on the way back instead of keeping what they computed.
    #[serde(default)]
    pub recompute: bool,
    /// What factors of products are rounded to.
    pub precision: Option<PrecisionChoice>,
    /// Of the order of pairs and of the new head.
    #[serde(default)]
    pub seed: u64,
    /// How much higher a chosen answer's score is to be, by strength (table 27).
    #[serde(default)]
    pub margin: MarginChoice,
    /// What the safety loss counts beside the comparison, for pairs with a safety label; the paper has it in its safety
    /// model and states no weight.
    #[serde(default)]
    pub safety_weight: f64,
    /// What the square of both rewards' sum counts; not in the paper. Comparisons leave open where rewards lie; PPO and the
    /// safety threshold need them around 0. With high rates, 0.01 keeps them there.
    #[serde(default)]
    pub center_weight: f64,
    /// What to do with pairs that do not fit a row, or that their file has wrong.
    #[serde(default)]
    pub unfit: Unfit,
    /// Adapters instead of all weights; the head is trained as a whole.
    pub lora: Option<LoraTable>,
    /// AdamW and the learning rate; the paper's rate is 1e-5, and 5e-6 for its largest models.
    #[serde(default)]
    pub optimizer: OptimizerTable,
    /// What is measured on the way.
    #[serde(default)]
    pub eval: EvalTable,
    /// When checkpoints are written, and which are kept.
    #[serde(default)]
    pub checkpoint: CheckpointTable,
}

/// Margins by strength.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MarginChoice {
    /// None.
    #[default]
    None,
    /// 0, 1/3, 2/3, 1.
    Small,
    /// 0, 1, 2, 3.
    Large,
}

impl From<MarginChoice> for Margins {
    fn from(choice: MarginChoice) -> Self {
        match choice {
            MarginChoice::None => Self::None,
            MarginChoice::Small => Self::Small,
            MarginChoice::Large => Self::Large,
        }
    }
}

/// What is measured on the way.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvalTable {
    /// Steps from one measurement to the next; zero for none but the last.
    pub every: u64,
    /// The part of all pairs that is held out for it, by a hash of the prompt.
    pub fraction: f64,
}

impl Default for EvalTable {
    fn default() -> Self {
        Self { every: 25, fraction: 0.05 }
    }
}

fn batch() -> usize {
    512
}

fn epochs() -> u64 {
    1
}
