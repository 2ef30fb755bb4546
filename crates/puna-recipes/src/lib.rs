//! How a model is made: one readable file for each stage of training, top to bottom, and the folder that a run leaves.
//!
//! A recipe has its configuration with the paper's values as defaults, a plan that derives every number before anything
//! runs, and its loop in the open.

mod align;
mod answer;
mod distill;
mod dpo;
mod error;
mod gatt;
mod numbers;
mod ppo;
mod pretrain;
mod recipe;
mod reject;
mod reward;
mod run;
mod sft;
mod tune;

pub use align::Align;
pub use answer::{AnswerJob, answer};
pub use distill::Distill;
pub use dpo::Dpo;
pub use error::RecipeError;
pub use gatt::Gatt;
pub use numbers::TimeSpan;
pub use ppo::Ppo;
pub use pretrain::{Guard, MachineSpeed, OnFault, Plan, Preset, Pretrain, PretrainConfig};
pub use recipe::Recipe;
pub use reject::Reject;
pub use reward::{Reward, Score, Scorer};
pub use run::{Ending, Log, Report, RunFolder, Start, StepRecord, report_page};
pub use sft::Sft;
