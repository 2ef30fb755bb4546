//! How a model is made: one readable file for each stage of training, top to bottom, and the folder that a run leaves.
//!
//! A recipe has its configuration with the paper's values as defaults, a plan that derives every number before anything
//! runs, and its loop in the open.

mod error;
mod numbers;
mod pretrain;
mod run;

pub use error::RecipeError;
pub use numbers::TimeSpan;
pub use pretrain::{
    Ending, Guard, MachineSpeed, OnFault, Plan, Preset, Pretrain, PretrainConfig, Report,
};
pub use run::{Log, RunFolder, StepRecord, report_page};
