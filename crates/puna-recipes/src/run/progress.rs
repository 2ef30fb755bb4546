//! What a run tells while it goes on, and how it ends.

use super::StepRecord;

/// How a run starts.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// From the beginning, in a new folder.
    New {
        /// The text of the configuration, which the folder keeps.
        config: &'a str,
    },
    /// From the newest checkpoint of its folder.
    Resume,
}

/// What happens while a run goes on.
#[derive(Debug)]
pub enum Report<'a> {
    /// A step was made, or left out.
    Step {
        /// What is logged of it.
        record: &'a StepRecord,
        /// Seconds to the end at this speed.
        eta_secs: f64,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// After so many steps.
        step: u64,
    },
    /// Something the user should know.
    Note(String),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are made.
    Complete,
    /// It was asked to stop; a checkpoint was written.
    Stopped,
    /// A step went wrong, as it says; a checkpoint of what was before it was written.
    Fault(String),
}
