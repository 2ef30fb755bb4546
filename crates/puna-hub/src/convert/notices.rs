//! Licences, notices and use policies: files beside a model that go where its weights go.

use std::fs;
use std::path::{Path, PathBuf};

use puna_formats::Form;

use crate::built_in::{self, BuiltIn};
use crate::licence::{FILE_KEY, MAX_TEXT_BYTES, is_paper};
use crate::{HubError, Opened};

/// The model card's name.
pub(super) const CARD: &str = "README.md";

/// Files that are taken along at most.
const MAX_FILES: usize = 32;

/// Licences and the like: names and bytes.
#[derive(Default)]
pub(super) struct Notices {
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// Which files do not go with the model, and why.
    pub(super) notes: Vec<String>,
}

impl Notices {
    /// Adds a file, or a note why not. Not every file system tells capital letters from small ones.
    fn add(&mut self, name: String, bytes: Vec<u8>) {
        match self.files.iter().find(|(other, _)| other.eq_ignore_ascii_case(&name)) {
            Some((_, first)) if *first == bytes => {}
            Some(_) => self.leave_out(&name, "another file of this name goes with the model"),
            None if self.files.len() == MAX_FILES => {
                self.leave_out(&name, &format!("{MAX_FILES} files are taken at most"));
            }
            None => self.files.push((name, bytes)),
        }
    }

    fn leave_out(&mut self, name: &str, reason: &str) {
        self.notes.push(format!("{name} is left out: {reason}"));
    }
}

/// The metadata key for the text of a file.
pub(super) fn key(name: &str) -> String {
    format!("{FILE_KEY}{name}")
}

/// The files that go with a model: those beside it, in the folder above for Meta's form, those inside a GGUF file, and
/// a built-in model's.
///
/// # Errors
/// One of them cannot be read.
pub(super) fn files(source: &Opened) -> Result<Notices, HubError> {
    let mut found = Notices::default();
    for (name, text) in embedded(source) {
        found.add(name.to_owned(), text.as_bytes().to_vec());
    }
    if source.checkpoint.files.is_empty()
        && let Some(notice) = built_in::find(&source.base).and_then(BuiltIn::notice)
    {
        found.add("NOTICE".to_owned(), notice.to_vec());
    }
    for folder in folders(source) {
        for (name, path) in notices_in(&folder) {
            let io = |source| HubError::Io { path: path.clone(), source };
            let n_bytes = path.metadata().map_err(io)?.len();
            if n_bytes > MAX_TEXT_BYTES {
                let reason = format!("{n_bytes} bytes, {MAX_TEXT_BYTES} are taken at most");
                found.leave_out(&name, &reason);
            } else {
                found.add(name, fs::read(&path).map_err(io)?);
            }
        }
    }
    Ok(found)
}

/// Such files as a GGUF file's metadata hold them. Names come from the file, so only those that a notice can have
/// are believed.
fn embedded(source: &Opened) -> impl Iterator<Item = (&str, &str)> {
    source.checkpoint.gguf_metadata.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(FILE_KEY).filter(|name| is_paper(name))?;
        Some((name, value.as_str()?))
    })
}

fn folders(source: &Opened) -> Vec<PathBuf> {
    let Some(file) = source.checkpoint.files.first() else { return Vec::new() };
    let file = file.canonicalize().unwrap_or_else(|_| file.clone());
    let n_levels = if source.checkpoint.form == Form::Meta { 2 } else { 1 };
    file.ancestors().skip(1).take(n_levels).map(Path::to_owned).collect()
}

/// The notices in a folder with their names, in alphabetical order.
fn notices_in(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, path)| is_paper(name) && path.is_file())
        .collect();
    found.sort();
    found
}

/// The licence's short name: as a GGUF file's metadata state it, or the head of the model card beside the model.
pub(super) fn licence_name(source: &Opened) -> Option<String> {
    let entries = &source.checkpoint.gguf_metadata;
    let entry = entries.iter().find(|(key, _)| key == "general.license");
    let in_metadata = entry.and_then(|(_, value)| value.as_str());
    let known = in_metadata.map(str::to_owned).or_else(|| licence_in_card(source));
    known.filter(|name| !name.is_empty())
}

fn licence_in_card(source: &Opened) -> Option<String> {
    let card = folders(source).first()?.join(CARD);
    if card.metadata().ok()?.len() > MAX_TEXT_BYTES {
        return None;
    }
    let text = fs::read_to_string(card).ok()?;
    let head = text.strip_prefix("---")?;
    let (head, _) = head.split_once("\n---")?;
    let name = head.lines().find_map(|line| line.strip_prefix("license:"))?.trim();
    Some(name.trim_matches(['"', '\'']).to_owned())
}

/// A model card of nothing but a head that states the licence.
pub(super) fn card_head(licence: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let name = match licence {
        plain if plain.bytes().all(is_plain) => plain.to_owned(),
        // A string of JSON is one of YAML.
        other => serde_json::Value::from(other).to_string(),
    };
    format!("---\nlicense: {name}\n---\n")
}
