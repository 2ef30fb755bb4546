//! Where test data lies.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder of the workspace this crate was compiled in.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("this crate lies two folders below the workspace root").to_path_buf()
}

/// A file or folder of the committed `testdata/`.
///
/// # Panics
/// When it does not exist: a committed file that is missing is a mistake, not a reason to skip.
#[must_use]
pub fn testdata(path: impl AsRef<Path>) -> PathBuf {
    let full = workspace_root().join("testdata").join(path);
    assert!(full.exists(), "{} does not exist", full.display());
    full
}

/// The folder of larger test data that is not part of the repository, when this machine has it:
/// `PUNA_SHARED_DATA`, else `shared/data` beside the workspace. Prints why a test is skipped when
/// there is none, so that a test reads `let Some(data) = shared_data() else { return };`.
#[must_use]
pub fn shared_data() -> Option<PathBuf> {
    let folder = match std::env::var_os("PUNA_SHARED_DATA") {
        Some(named) => PathBuf::from(named),
        None => workspace_root().parent()?.join("shared").join("data"),
    };
    if folder.is_dir() {
        return Some(folder);
    }
    // Not `eprintln!`: the test harness would swallow what a passing test says by it.
    let _ = writeln!(std::io::stderr(), "skipped: shared data not present");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_root_holds_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(workspace_root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    #[should_panic(expected = "does not exist")]
    fn missing_committed_data_is_a_failure() {
        let _ = testdata("no such file");
    }
}
