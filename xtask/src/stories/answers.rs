//! Files of requests and of answers to them.

use std::fs;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::request::Request;

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Message {
    pub(super) role: String,
    pub(super) content: String,
}

/// A line: a prompt with what it asks for, perhaps answers.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Record {
    pub(super) prompt: Vec<Message>,
    pub(super) request: Request,
    #[serde(default)]
    pub(super) answers: Vec<Answer>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) text: String,
    /// It ended by itself, not at a limit.
    pub(super) complete: bool,
}

impl Record {
    /// The user's last message.
    pub(super) fn text(&self) -> &str {
        self.prompt.last().map(|message| message.content.as_str()).unwrap_or_default()
    }
}

/// Reads JSONL; each line must have a prompt that ends with the user.
pub(super) fn read(file: &str) -> Result<Vec<Record>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let mut records = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = format!("{file}:{}", i + 1);
        let record: Record = serde_json::from_str(line).context(at.clone())?;
        match record.prompt.last() {
            Some(last) if last.role == "user" => records.push(record),
            last => bail!("{at}: expected a prompt that ends with the user, found {last:?}"),
        }
    }
    if records.is_empty() {
        bail!("{file}: expected a record a line, found none");
    }
    Ok(records)
}

/// Reads answers, each record with at least one.
pub(super) fn read_answered(file: &str) -> Result<Vec<Record>> {
    let records = read(file)?;
    if let Some(record) = records.iter().find(|record| record.answers.is_empty()) {
        bail!("{file}: expected answers to every prompt, found none to {:?}", record.text());
    }
    Ok(records)
}
