//! The configuration of supervised fine-tuning.

use std::path::PathBuf;

use puna_data::chat::OnProblem;
use serde::Deserialize;

use crate::RecipeError;
use crate::pretrain::PrecisionChoice;
use crate::tune::{CheckpointTable, LoraTable, OptimizerTable, Place};

/// What to fine-tune, on what, and how. Defaults are the paper's (arXiv 2307.09288, section 3.1).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SftConfig {
    /// The model to begin with.
    pub model: String,
    /// The folder of the run.
    pub out: Option<PathBuf>,
    /// Files of conversations.
    pub data: Vec<DataTable>,
    /// Tokens of a row, into which conversations are packed; the model's context. The paper's is 4,096.
    pub seq_len: Option<usize>,
    /// Rows of a batch: one update. The paper's 64.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Times that every conversation is seen.
    #[serde(default = "epochs")]
    pub epochs: u64,
    /// Rows that pass together: a matter of speed and memory, never of results.
    pub micro_batch: Option<usize>,
    /// Run blocks again on the way back instead of keeping what they computed.
    #[serde(default)]
    pub recompute: bool,
    /// What factors of products are rounded to.
    pub precision: Option<PrecisionChoice>,
    /// Of the order of conversations and of new adapters.
    #[serde(default)]
    pub seed: u64,
    /// What to do with conversations that do not fit a row, or that their file has wrong.
    #[serde(default)]
    pub unfit: Unfit,
    /// Adapters instead of all weights.
    pub lora: Option<LoraTable>,
    /// AdamW and the learning rate; the paper's rate is 2e-5.
    #[serde(default)]
    pub optimizer: OptimizerTable,
    /// What is measured and shown on the way.
    #[serde(default)]
    pub eval: EvalTable,
    /// When checkpoints are written, and which are kept.
    #[serde(default)]
    pub checkpoint: CheckpointTable,
}

/// A file of conversations.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataTable {
    /// The file: JSONL, also packed as `.zst` or `.gz`, or Parquet.
    pub path: PathBuf,
    /// Take no more than the first so many of its conversations, in an order drawn from the seed.
    pub at_most: Option<usize>,
    /// Take every conversation so many times in an epoch.
    #[serde(default = "one")]
    pub repeat: usize,
    /// Which of its answers are learned.
    #[serde(default)]
    pub learn: Learn,
}

/// Which answers of a conversation are learned.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Learn {
    /// All of them.
    #[default]
    All,
    /// The last one: what stands before it need not be what the model should say, as in Ghost Attention.
    Last,
}

/// What to do with a record that cannot be used.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unfit {
    /// End with its file and line.
    #[default]
    Refuse,
    /// Leave it out, and tell how many there were of each kind.
    Skip,
}

impl From<Unfit> for OnProblem {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Refuse => Self::Refuse,
            Unfit::Skip => Self::Skip,
        }
    }
}

/// What is measured and shown on the way.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvalTable {
    /// Steps from one measurement to the next; zero for none.
    pub every: u64,
    /// The part of all conversations that is held out for it, chosen by a hash of each.
    pub fraction: f64,
    /// Requests that the model answers.
    pub prompts: Vec<String>,
    /// Tokens of an answer.
    pub sample_tokens: usize,
}

impl Default for EvalTable {
    fn default() -> Self {
        Self { every: 25, fraction: 0.02, prompts: Vec::new(), sample_tokens: 128 }
    }
}

impl SftConfig {
    /// The configuration that a stage ends with: `table` is its own `[sft]`, to which it adds the model and the files.
    pub(crate) fn of_stage(
        table: &toml::Table,
        model: &str,
        files: Vec<DataTable>,
        place: &Place<'_>,
    ) -> Result<Self, RecipeError> {
        let mut table = table.clone();
        table.insert("model".to_owned(), model.into());
        table.insert("data".to_owned(), toml::Value::Array(Vec::new()));
        let config: Result<Self, _> = table.try_into();
        let config = config
            .map_err(|e| place.error(place.find("[sft]"), &format!("[sft]: {}", e.message())))?;
        Ok(Self { data: files, ..config })
    }
}

fn batch() -> usize {
    64
}

fn epochs() -> u64 {
    2
}

fn one() -> usize {
    1
}
