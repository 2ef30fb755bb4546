//! What the stages after pre-training have in common, seen from outside.

use std::path::Path;

use crate::{Ending, RecipeError, Report, Start};

/// A stage whose configuration is read and whose data and models are open: nothing is trained yet.
pub trait Recipe {
    /// What the run will be, a line a fact.
    fn plan(&self) -> Vec<String>;

    /// Updates of the whole run.
    fn n_steps(&self) -> u64;

    /// Bytes that it takes.
    fn memory(&self) -> u64;

    /// Where the configuration wants the run's folder, as it says it.
    fn out(&self) -> Option<&Path>;

    /// Runs into the folder `path`, from the beginning or from its newest checkpoint.
    ///
    /// # Errors
    /// The folder is not as `start` needs it, a file cannot be written, or the program's own checks find something.
    fn run(
        &self,
        path: &Path,
        start: Start<'_>,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Ending, RecipeError>;
}
