//! What can be wrong with a run.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use puna_data::DataError;
use puna_formats::FormatError;
use puna_hub::HubError;
use puna_tokenizer::chat::ChatError;
use thiserror::Error;

/// Why a run cannot begin, or cannot go on.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of a run that is not what was written.
    #[error("{}: {what}: expected {expected}, found {found}", path.display())]
    Run {
        /// The file or folder.
        path: PathBuf,
        /// What is at fault.
        what: String,
        /// What it had to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Training that must not go on: the program's own checks have found something.
    #[error("{0}")]
    Check(String),
    /// A configuration that means nothing, or training data that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A model cannot be opened.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A conversation cannot be made tokens.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl RecipeError {
    /// For `map_err`: the system's reason with the file it is about.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn run(
        path: &Path,
        what: impl Display,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        let (what, expected) = (what.to_string(), expected.to_string());
        Self::Run { path: path.to_path_buf(), what, expected, found: found.to_string() }
    }
}
