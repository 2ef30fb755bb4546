//! What can be wrong with training data.

use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use puna_tokenizer::TokenizerError;
use thiserror::Error;

/// Why a corpus cannot be built or read.
#[derive(Debug, Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A configuration that means nothing.
    #[error("{file}:{line}:{column}: {message}")]
    Config {
        /// The configuration's file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What was expected and what was found.
        message: String,
    },
    /// A text, a list of words or of groups that is not what it should be.
    #[error("{place}: expected {expected}, found {found}")]
    Input {
        /// The file, and the line or row where there is one.
        place: String,
        /// What its form asks for.
        expected: String,
        /// What it has.
        found: String,
    },
    /// A tokenizer that cannot be read.
    #[error("{file}: {source}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: TokenizerError,
    },
    /// A corpus that is not as it was written.
    #[error("{file}: {what}: expected {expected}, found {found}")]
    Corpus {
        /// The file or folder.
        file: String,
        /// The field at fault.
        what: &'static str,
        /// What the format or the manifest asks for.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Somebody asked to stop.
    #[error("stopped")]
    Stopped,
}

impl DataError {
    /// An error about what stands at the bytes `span` of a configuration `text`.
    #[must_use]
    pub fn in_config(file: &str, text: &str, span: Range<usize>, message: &str) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        // Some of the parser's messages have a line for each thing they say.
        let message = message.trim().replace('\n', ", ");
        Self::Config { file: file.to_owned(), line, column, message }
    }

    /// For `map_err`: the system's reason with the file it is about.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn input(place: impl Display, expected: impl Display, found: impl Display) -> Self {
        let (place, expected) = (place.to_string(), expected.to_string());
        Self::Input { place, expected, found: found.to_string() }
    }

    pub(crate) fn corpus(
        file: impl Display,
        what: &'static str,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        let (file, expected) = (file.to_string(), expected.to_string());
        Self::Corpus { file, what, expected, found: found.to_string() }
    }
}
