//! The folder of a run of training stands for the model that came of it.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

/// Name of the file in a run's folder that holds the path, relative to it, of the checkpoint that the run is for.
pub const RESULT: &str = "result";

/// What to open for `path`: of a run's folder the checkpoint that it is for, of anything else itself.
#[must_use]
pub fn result_of(path: &Path) -> Cow<'_, Path> {
    let is_run = path.join("config.toml").is_file();
    match fs::read_to_string(path.join(RESULT)) {
        Ok(result) if is_run => Cow::Owned(path.join(result.trim_end())),
        _ => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stands_for_its_result() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RESULT), "checkpoints/step-00000005\n").unwrap();
        assert_eq!(result_of(folder.path()), folder.path());
        fs::write(folder.path().join("config.toml"), "").unwrap();
        assert_eq!(result_of(folder.path()), folder.path().join("checkpoints/step-00000005"));
    }
}
