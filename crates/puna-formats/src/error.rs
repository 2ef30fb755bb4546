//! What can be wrong with a model's files.

use std::fmt::Display;
use std::io;

use puna_core::ConfigError;
use thiserror::Error;

/// Why a model cannot be read or written. Every message names the file, the tensor or field at fault, what
/// was expected there and what was found.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The operating system refused.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The file breaks the rules of its format: truncated, corrupted or hostile.
    #[error("{file}: {what}: expected {expected}, found {found}")]
    Malformed {
        /// The file.
        file: String,
        /// The field or structure at fault.
        what: String,
        /// What the format asks for.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The file is sound, but holds something that this program does not do.
    #[error("{file}: {what}: {found} is not supported; supported: {expected}")]
    Unsupported {
        /// The file.
        file: String,
        /// The field, or the tensor whose type it is.
        what: String,
        /// What can be read instead.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The tensors are not those of the network that the configuration describes.
    #[error("{file}: tensor {tensor}: expected {expected}, found {found}")]
    Tensor {
        /// The file or folder.
        file: String,
        /// The tensor, in the file's own words.
        tensor: String,
        /// What the configuration or the format asks for.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The configuration describes no network.
    #[error("{file}: {source}")]
    Config {
        /// The file.
        file: String,
        /// The field at fault.
        source: ConfigError,
    },
    /// What is to be written is there already, and was not to be replaced.
    #[error("{file} exists already and is left as it is")]
    Exists {
        /// The file or folder.
        file: String,
    },
    /// A file was to be written where a folder is.
    #[error("{folder} is a folder, expected the name of a file; it is left as it is")]
    IsFolder {
        /// The folder.
        folder: String,
    },
    /// A path that ends in no name, such as `.` or `..`.
    #[error("{path}: expected a path that ends in the name of what is to be written")]
    NoName {
        /// The path.
        path: String,
    },
    /// What a folder was to replace is none, or holds other things than such a folder does.
    #[error(
        "{folder}: expected a folder with nothing but what would be written anew, which may be replaced, found {found}; it is left as it is"
    )]
    NotReplaced {
        /// The folder.
        folder: String,
        /// What is there.
        found: String,
    },
    /// A file that belongs to the model is not there.
    #[error("{folder}: {missing} is missing: {reason}")]
    MissingFile {
        /// Where it should be.
        folder: String,
        /// Its name.
        missing: String,
        /// What asks for it.
        reason: String,
    },
    /// Not a model, as far as its content tells.
    #[error("{file}: {found}; {hint}")]
    NotAModel {
        /// The file or folder.
        file: String,
        /// What it seems to be.
        found: String,
        /// What to give instead.
        hint: String,
    },
}

impl FormatError {
    pub(crate) fn io(file: impl Display, source: io::Error) -> Self {
        Self::Io { file: file.to_string(), source }
    }

    /// A field of a file that is not what the form asks for.
    pub fn malformed(
        file: impl Display,
        what: impl Display,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        Self::Malformed {
            file: file.to_string(),
            what: what.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    pub(crate) fn unsupported(
        file: impl Display,
        what: impl Display,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        Self::Unsupported {
            file: file.to_string(),
            what: what.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// A tensor that is not what the network asks for.
    pub fn tensor(
        file: impl Display,
        tensor: impl Display,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        Self::Tensor {
            file: file.to_string(),
            tensor: tensor.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    pub(crate) fn missing(
        folder: impl Display,
        missing: impl Display,
        reason: impl Display,
    ) -> Self {
        Self::MissingFile {
            folder: folder.to_string(),
            missing: missing.to_string(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn not_a_model(file: impl Display, found: impl Display, hint: impl Display) -> Self {
        Self::NotAModel { file: file.to_string(), found: found.to_string(), hint: hint.to_string() }
    }
}

/// Text from a file for a message: escaped, and cut where it becomes long.
pub(crate) fn brief(text: &str) -> String {
    cut(&text.escape_debug().take(LONGEST + 1).collect::<String>())
}

/// The beginning of a text that may be long.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Characters of a text that a message shows.
const LONGEST: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(brief("a\nb"), "a\\nb");
        assert_eq!(brief(&"ü".repeat(100)).chars().count(), 61);
    }
}
