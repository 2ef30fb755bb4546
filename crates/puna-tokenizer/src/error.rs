//! What can be wrong with a vocabulary file.

/// A vocabulary that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The bytes end, or hold something else, where the format demands a field.
    #[error("{format}: at byte {offset}: {reason}")]
    Malformed {
        /// Which format was being read.
        format: &'static str,
        /// Where in the file.
        offset: usize,
        /// What was expected and what was found.
        reason: String,
    },
    /// Not JSON, or not of the shape of a `tokenizer.json`.
    #[error("{file}: {source}")]
    Json {
        /// Which of the two files: `tokenizer.json` or `tokenizer_config.json`.
        file: &'static str,
        /// What the JSON reader says, with line and column.
        source: serde_json::Error,
    },
    /// The file asks for something that Llama 2's tokenizer does not have and this crate does not do.
    #[error("{what}: expected {expected}, found {found}")]
    Unsupported {
        /// The setting.
        what: &'static str,
        /// What is supported.
        expected: &'static str,
        /// What the file says.
        found: String,
    },
    /// Two pieces have the same text.
    #[error("vocabulary: piece {piece:?} appears twice, as id {first} and as id {second}")]
    DuplicatePiece {
        /// The text.
        piece: String,
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
    },
    /// One piece is not usable.
    #[error("vocabulary: piece {id}: {reason}")]
    BadPiece {
        /// Its id.
        id: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// The vocabulary as a whole is not usable.
    #[error("vocabulary: {0}")]
    BadVocabulary(String),
    /// A merge rule of `tokenizer.json` is not usable.
    #[error("tokenizer.json: merge {index} ({rule:?}): {reason}")]
    BadMerge {
        /// Position in the list of merges.
        index: usize,
        /// The rule as written.
        rule: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A training text without a character.
    #[error("training text: expected at least one line that is not empty, found none")]
    NoText,
    /// More pieces were asked for than the text has pairs to merge.
    #[error("vocabulary: expected {asked} pieces, but the text gives no more than {most}")]
    VocabTooLarge {
        /// The size asked for.
        asked: usize,
        /// The largest possible.
        most: usize,
    },
    /// Fewer pieces were asked for than cannot be left out.
    #[error(
        "vocabulary: expected {asked} pieces, but {least} are needed before the first merge, {n_chars} of them for \
         single characters"
    )]
    VocabTooSmall {
        /// The size asked for.
        asked: usize,
        /// The smallest possible.
        least: usize,
        /// The characters that the coverage asks for.
        n_chars: usize,
    },
    /// More text in different words than a training can hold.
    #[error("training text: its different words have more than {limit} characters together")]
    TextTooLarge {
        /// The most that can be held.
        limit: usize,
    },
}
