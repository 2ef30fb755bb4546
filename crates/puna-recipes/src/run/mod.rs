//! What a run leaves in its folder: a log, checkpoints, its configuration.

mod adapters;
mod checkpoint;
mod learner;
mod log;
mod memory;
mod progress;
mod report;
mod tensorboard;
mod tensors;

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use checkpoint::{Chain, Checkpoint, Contents, State};
pub(crate) use learner::{Form, Learner};
pub use log::{Log, StepRecord};
pub(crate) use memory::TrainedWeights;
pub use progress::{Ending, Report, Start};
pub use report::report_page;
pub(crate) use tensors::read_scoring_network;

use puna_hub::RESULT;

use crate::RecipeError;

/// Name of the configuration in a run's folder.
const CONFIG: &str = "config.toml";

/// Name of the folder of checkpoints.
const CHECKPOINTS: &str = "checkpoints";

fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Begins a folder with the configuration `config`, which appears last. One that exists must be empty.
    ///
    /// # Errors
    /// Something is there, or the system refuses.
    pub fn create(path: &Path, config: &str) -> Result<Self, RecipeError> {
        let temporary = path.join(".config.toml.tmp");
        // A run that was killed before it began has left no more than this.
        let is_ours = |entry: fs::DirEntry| entry.path() == temporary;
        if fs::read_dir(path).is_ok_and(|entries| !entries.flatten().all(is_ours)) {
            let found = "a folder with files; `--resume` goes on with a run";
            return Err(RecipeError::run(path, "run", "a new or empty folder", found));
        }
        fs::create_dir_all(path).map_err(RecipeError::io(path))?;
        let file = path.join(CONFIG);
        fs::write(&temporary, config)
            .and_then(|()| fs::rename(&temporary, &file))
            .map_err(RecipeError::io(&file))?;
        Self::open(path)
    }

    /// Opens the folder of a run.
    ///
    /// # Errors
    /// It is none.
    pub fn open(path: &Path) -> Result<Self, RecipeError> {
        let folder = Self::find(path)?;
        let checkpoints = path.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints).map_err(RecipeError::io(&checkpoints))?;
        Ok(folder)
    }

    /// The folder of a run, for reading alone.
    fn find(path: &Path) -> Result<Self, RecipeError> {
        if !path.join(CONFIG).is_file() {
            return Err(RecipeError::run(path, "run", "a folder with config.toml", "none"));
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The configuration that the run began with.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn config(&self) -> Result<String, RecipeError> {
        let file = self.path.join(CONFIG);
        fs::read_to_string(&file).map_err(RecipeError::io(&file))
    }

    /// Begins a folder with a configuration, or opens one that began with this very text: for stages whose samples are a
    /// function of all of it.
    ///
    /// # Errors
    /// As [`RunFolder::create`] and [`RunFolder::open`]; another configuration.
    pub(crate) fn start(path: &Path, start: Start<'_>, text: &str) -> Result<Self, RecipeError> {
        if let Start::New { config } = start {
            return Self::create(path, config);
        }
        let folder = Self::open(path)?;
        if folder.config()? != text {
            let expected = "the one that the run began with";
            return Err(RecipeError::run(path, "configuration of the run", expected, "another"));
        }
        Ok(folder)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a step's checkpoint.
    #[must_use]
    pub fn checkpoint(&self, step: u64) -> PathBuf {
        self.path.join(CHECKPOINTS).join(step_name(step))
    }

    /// Steps that have a checkpoint, ascending.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<u64>, RecipeError> {
        let folder = self.path.join(CHECKPOINTS);
        let mut steps = Vec::new();
        for entry in fs::read_dir(&folder).map_err(RecipeError::io(&folder))? {
            let name = entry.map_err(RecipeError::io(&folder))?.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix("step-"));
            steps.extend(step.and_then(|digits| digits.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// What the run is for: the checkpoint that was measured as the best, where one was, else the last.
    ///
    /// # Errors
    /// There is none yet, or it cannot be read.
    pub fn result(&self) -> Result<PathBuf, RecipeError> {
        let steps = self.checkpoints()?;
        let Some(&last) = steps.last() else {
            return Err(RecipeError::run(&self.path, "checkpoints", "at least one", "none"));
        };
        let (state, _) = Checkpoint::read_state(&self.checkpoint(last))?;
        let best = state.best.map(|(step, _)| step).filter(|step| steps.contains(step));
        Ok(self.checkpoint(best.unwrap_or(last)))
    }

    /// The newest whole checkpoint, as `read` gives it, with its step; `None` where there is none at all. All must be of the
    /// same run as `state`.
    ///
    /// # Errors
    /// One is of another run, all are damaged, or the folder cannot be read.
    pub(crate) fn newest_whole(
        &self,
        state: &State,
        read: impl Fn(&Path) -> Result<Checkpoint, RecipeError>,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Option<(u64, Checkpoint)>, RecipeError> {
        let steps = self.checkpoints()?;
        for &step in steps.iter().rev() {
            let path = self.checkpoint(step);
            let found = match Checkpoint::read_state(&path) {
                Ok((found, _)) => {
                    // Another run's checkpoint is no damage.
                    found.check_same_run(state, &path)?;
                    read(&path)
                }
                Err(e) => Err(e),
            };
            match found {
                Ok(checkpoint) => return Ok(Some((step, checkpoint))),
                Err(e) => on(Report::Note(format!("{e}; this checkpoint is passed over"))),
            }
        }
        // To begin anew would remove what may be read yet with some other program.
        if !steps.is_empty() {
            let (expected, found) = ("one that is whole", "none");
            return Err(RecipeError::run(&self.path, "checkpoints", expected, found));
        }
        Ok(None)
    }

    /// Names the checkpoint that the run is for, `best` or else the last, in the folder, and removes all but the last `keep`
    /// and that one.
    ///
    /// # Errors
    /// The name cannot be written, or a checkpoint not be removed.
    pub fn prune(&self, keep: u64, best: Option<u64>) -> Result<(), RecipeError> {
        let steps = self.checkpoints()?;
        let best = best.filter(|step| steps.contains(step));
        if let Some(result) = best.or(steps.last().copied()) {
            let (file, temporary) = (self.path.join(RESULT), self.path.join(".result.tmp"));
            fs::write(&temporary, format!("{CHECKPOINTS}/{}\n", step_name(result)))
                .and_then(|()| fs::rename(&temporary, &file))
                .map_err(RecipeError::io(&file))?;
        }
        let n_old = steps.len().saturating_sub(keep as usize);
        for &step in steps[..n_old].iter().filter(|step| Some(**step) != best) {
            let folder = self.checkpoint(step);
            // Under a name that is no checkpoint's, so that half of one is never taken for one.
            let doomed = folder.with_file_name(format!(".old-{step:08}"));
            fs::rename(&folder, &doomed).map_err(RecipeError::io(&folder))?;
            fs::remove_dir_all(&doomed).map_err(RecipeError::io(&doomed))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_checkpoint_stays_and_is_the_result() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(&folder.path().join("run"), "").unwrap();
        let check = |best, expected: &[u64], result| {
            run.prune(1, best).unwrap();
            assert_eq!(run.checkpoints().unwrap(), expected);
            assert_eq!(puna_hub::result_of(run.path()), run.checkpoint(result));
        };
        for (step, best, expected, result) in [
            (1, None, &[1][..], 1),
            (2, Some(2), &[2], 2),
            (3, Some(2), &[2, 3], 2),
            // One that is gone.
            (4, Some(1), &[4], 4),
        ] {
            fs::create_dir(run.checkpoint(step)).unwrap();
            check(best, expected, result);
        }
    }
}
