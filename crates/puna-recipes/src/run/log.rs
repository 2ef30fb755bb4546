//! The log of a run: a JSON object a line, and the same numbers for TensorBoard.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::tensorboard::EventFile;
use crate::RecipeError;

/// One step.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct StepRecord {
    /// Updates made, this one included.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Mean loss of the batch before the update, in nats a token; nothing if it is not finite.
    pub loss: Option<f64>,
    /// Learning rate of the update.
    pub lr: f64,
    /// Length of the gradient before clipping; nothing if it is not finite.
    pub grad_norm: Option<f64>,
    /// Speed of the step; not part of what a run computes.
    pub tokens_per_sec: f64,
    /// Share of the machine's peak; stages that do more than train do not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_share: Option<f64>,
    /// Held-out bits per byte of each source, where they were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bits_per_byte: Vec<(String, f64)>,
    /// What else a recipe measures, by name; finite numbers.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
    /// Continuations of the prompts, where they were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<String>,
    /// What was wrong with the step, if it was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What happened to the run before the step: it went on after a stop, or went back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

/// The two files of a log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    lines: File,
    events: EventFile,
    /// Events that the next step will tell.
    pending: Vec<String>,
    /// Tokens that the last step told.
    tokens: u64,
}

/// Name of the log in a run's folder.
pub(super) const LOG: &str = "log.jsonl";

impl Log {
    /// Opens the log of a run that has made `step` steps; what later steps had written, before the run was cut off, is
    /// dropped, but for the events that they told.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn open(folder: &Path, step: u64) -> Result<Self, RecipeError> {
        let path = folder.join(LOG);
        let records = if path.exists() { Self::read(folder)? } else { Vec::new() };
        let (kept, dropped): (Vec<_>, Vec<_>) = records.into_iter().partition(|r| r.step <= step);
        let pending = dropped.into_iter().flat_map(|record| record.events).collect();
        let io = |e| RecipeError::io(&path)(e);
        let mut text = String::new();
        for record in &kept {
            text.push_str(&line(record));
        }
        let temporary = folder.join(".log.jsonl.tmp");
        fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path)).map_err(io)?;
        let lines = OpenOptions::new().append(true).open(&path).map_err(io)?;
        let mut events = EventFile::create(folder)?;
        for record in &kept {
            events.write(record)?;
        }
        let tokens = kept.last().map_or(0, |record| record.tokens);
        Ok(Self { path, lines, events, pending, tokens })
    }

    /// Goes back to `step`, as [`Log::open`] does; events that no step has told yet are kept.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn go_back(&mut self, folder: &Path, step: u64) -> Result<(), RecipeError> {
        let untold = std::mem::take(&mut self.pending);
        *self = Self::open(folder, step)?;
        self.pending.extend(untold);
        Ok(())
    }

    /// All steps of a log. A last line that was cut off is left out.
    ///
    /// # Errors
    /// It cannot be read, or a line is no step.
    pub fn read(folder: &Path) -> Result<Vec<StepRecord>, RecipeError> {
        Ok(read_lines(folder)?.0)
    }

    /// Something that happened to the run; the next step tells it.
    pub fn tell(&mut self, event: String) {
        self.pending.push(event);
    }

    /// The same, unless it is to be told already, as after steps that are done again.
    pub(crate) fn tell_once(&mut self, event: String) {
        if !self.pending.contains(&event) {
            self.tell(event);
        }
    }

    /// Tokens trained on so far.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Adds a step, which is given the events that no step has told yet.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, record: &mut StepRecord) -> Result<(), RecipeError> {
        record.events.append(&mut self.pending);
        self.tokens = record.tokens;
        self.lines.write_all(line(record).as_bytes()).map_err(RecipeError::io(&self.path))?;
        self.events.write(record)
    }
}

/// The lines of a log, each a `T`, and whether its end was cut off.
pub(super) fn read_lines<T: DeserializeOwned>(
    folder: &Path,
) -> Result<(Vec<T>, bool), RecipeError> {
    let path = folder.join(LOG);
    let bytes = fs::read(&path).map_err(RecipeError::io(&path))?;
    // A cut may go through a character, so that what is left is no text.
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate();
    let parsed = lines.map(|(i, line)| {
        serde_json::from_slice(line)
            .map_err(|e| RecipeError::run(&path, format!("line {}", i + 1), "a step", e))
    });
    Ok((parsed.collect::<Result<_, _>>()?, whole < bytes.len()))
}

fn line(record: &StepRecord) -> String {
    let mut line = serde_json::to_string(record).expect("numbers and strings are JSON");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> StepRecord {
        StepRecord { step, loss: Some(1.5), ..StepRecord::default() }
    }

    #[test]
    fn steps_come_back_and_later_ones_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        (1..=5).for_each(|step| log.write(&mut record(step)).unwrap());
        drop(log);
        // Cut off in the middle of a line.
        let path = folder.path().join(LOG);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 10]).unwrap();
        assert_eq!(Log::read(folder.path()).unwrap().len(), 4);
        let mut log = Log::open(folder.path(), 3).unwrap();
        log.write(&mut record(4)).unwrap();
        let steps: Vec<u64> = Log::read(folder.path()).unwrap().iter().map(|r| r.step).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }

    #[test]
    fn a_cut_through_a_character_is_a_cut() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        log.write(&mut record(1)).unwrap();
        log.write(&mut StepRecord { samples: vec!["ŝafo".to_owned()], ..record(2) }).unwrap();
        let path = folder.path().join(LOG);
        let bytes = fs::read(&path).unwrap();
        let half = bytes.iter().position(|&byte| byte >= 0x80).unwrap() + 1;
        fs::write(&path, &bytes[..half]).unwrap();
        assert_eq!(Log::read(folder.path()).unwrap(), [record(1)]);
    }

    #[test]
    fn events_are_told_by_the_next_step_and_outlive_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        log.write(&mut record(1)).unwrap();
        log.tell("went on".to_owned());
        (2..=3).for_each(|step| log.write(&mut record(step)).unwrap());
        let mut log = Log::open(folder.path(), 2).unwrap();
        log.tell("went on again".to_owned());
        log.go_back(folder.path(), 1).unwrap();
        log.tell("went back".to_owned());
        log.write(&mut record(2)).unwrap();
        let found = Log::read(folder.path()).unwrap();
        assert_eq!((found[0].events.len(), found[1].step), (0, 2));
        assert_eq!(found[1].events, ["went on", "went on again", "went back"]);
    }

    #[test]
    fn lines_that_are_no_steps_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LOG), "{\"step\": 1}\n").unwrap();
        let message = Log::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("log.jsonl: line 1: expected a step"), "{message}");
    }
}
