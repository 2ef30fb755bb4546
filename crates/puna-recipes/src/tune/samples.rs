//! Answers that a stage trains on, in a file that grows while they are sampled.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use puna_tokenizer::chat::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::RecipeError;

/// A message as JSON has it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct JsonMessage {
    pub role: String,
    pub content: String,
}

/// Messages as JSON has them.
pub(crate) fn to_json(messages: &[Message]) -> Vec<JsonMessage> {
    let message =
        |m: &Message| JsonMessage { role: m.role.as_str().to_owned(), content: m.content.clone() };
    messages.iter().map(message).collect()
}

/// A conversation to train on.
#[derive(Deserialize, Serialize)]
pub(crate) struct JsonDialogue {
    pub messages: Vec<JsonMessage>,
}

/// Records in a file, one a line. What was written before a stop is kept: records are a function of their index.
pub(crate) struct Growing<'a> {
    path: &'a Path,
    n: usize,
}

impl<'a> Growing<'a> {
    /// Opens the file, which may be absent, and drops a last line that was cut off.
    pub(crate) fn open(path: &'a Path) -> Result<Self, RecipeError> {
        Self::open_first(path, |n| n)
    }

    /// The same of `total` records that are made `chunk` at a time, and whose bytes may depend on their company: what is
    /// there of an incomplete chunk goes, too.
    pub(crate) fn open_chunks(
        path: &'a Path,
        chunk: usize,
        total: usize,
    ) -> Result<Self, RecipeError> {
        Self::open_first(path, |n| if n >= total { n } else { n / chunk * chunk })
    }

    /// Keeps the first `keep(n)` of the `n` records that are there.
    pub(crate) fn open_first(
        path: &'a Path,
        keep: impl Fn(usize) -> usize,
    ) -> Result<Self, RecipeError> {
        let io = RecipeError::io(path);
        let bytes = if path.exists() { fs::read(path).map_err(&io)? } else { Vec::new() };
        let ends: Vec<usize> = (1..=bytes.len()).filter(|&end| bytes[end - 1] == b'\n').collect();
        let n = keep(ends.len());
        let kept = n.checked_sub(1).map_or(0, |last| ends[last]);
        fs::write(path, &bytes[..kept]).map_err(&io)?;
        Ok(Self { path, n })
    }

    /// Records so far.
    pub(crate) fn len(&self) -> usize {
        self.n
    }

    /// Adds records, all or none of which are there after a stop, but for a line that is dropped.
    pub(crate) fn add<T: Serialize>(&mut self, records: &[T]) -> Result<(), RecipeError> {
        let text: String = records.iter().map(line).collect();
        let mut file =
            OpenOptions::new().append(true).open(self.path).map_err(RecipeError::io(self.path))?;
        file.write_all(text.as_bytes()).map_err(RecipeError::io(self.path))?;
        self.n += records.len();
        Ok(())
    }
}

/// Reads all records of a file.
pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RecipeError> {
    let text = fs::read_to_string(path).map_err(RecipeError::io(path))?;
    let parse = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            RecipeError::run(path, format!("line {}", i + 1), "a record of this run", e)
        })
    };
    text.lines().enumerate().map(parse).collect()
}

/// Writes records at once: the file appears when it is complete.
pub(crate) fn write_lines<T: Serialize>(path: &Path, records: &[T]) -> Result<(), RecipeError> {
    let text: String = records.iter().map(line).collect();
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(RecipeError::io(path))
}

fn line<T: Serialize>(record: &T) -> String {
    let mut line = serde_json::to_string(record).expect("numbers and strings are JSON");
    line.push('\n');
    line
}
