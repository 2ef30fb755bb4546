//! Licences, notices and use policies: files beside a model that go where its weights go.

use std::fs;
use std::path::{Path, PathBuf};

use puna_formats::Form;
use puna_formats::gguf::Value;

use crate::{HubError, Opened, built_in};

/// How the names of such files begin, in lower case.
const PREFIXES: [&str; 6] = ["license", "licence", "copying", "notice", "use_policy", "use-policy"];

/// How they may end.
const ENDINGS: [Option<&str>; 6] =
    [None, Some("txt"), Some("md"), Some("pdf"), Some("rst"), Some("html")];

/// Largest file that is taken along; Llama 2's are below 10 kB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Files that are taken along at most.
const MAX_FILES: usize = 32;

/// In front of a file's name, the key under which a GGUF file holds its text.
const KEY_PREFIX: &str = "puna.file.";

/// A file's name and its bytes.
pub(super) type Notice = (String, Vec<u8>);

/// The metadata key for the text of a file.
pub(super) fn key(name: &str) -> String {
    format!("{KEY_PREFIX}{name}")
}

/// The files that go with a model: those beside it, in the folder above for Meta's form, those inside a GGUF file, and
/// the built-in model's.
///
/// # Errors
/// One of them cannot be read.
pub(super) fn files(source: &Opened) -> Result<Vec<Notice>, HubError> {
    let mut found: Vec<Notice> = embedded(source).collect();
    if source.checkpoint.files.is_empty() {
        let notice = built_in::find(&source.name).and_then(|model| model.notice);
        found.extend(notice.map(|bytes| ("NOTICE".to_owned(), bytes.to_vec())));
    }
    for folder in folders(source) {
        for path in notices_in(&folder) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if found.len() < MAX_FILES && found.iter().all(|(other, _)| *other != name) {
                let bytes = fs::read(&path).map_err(|source| HubError::Io { path, source })?;
                found.push((name, bytes));
            }
        }
    }
    Ok(found)
}

/// Such files as a GGUF file's metadata hold them. Names come from the file, so only those that a notice can have
/// are believed.
fn embedded(source: &Opened) -> impl Iterator<Item = Notice> {
    source.checkpoint.gguf_metadata.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(KEY_PREFIX).filter(|name| is_notice(name))?;
        match value {
            Value::String(text) => Some((name.to_owned(), text.clone().into_bytes())),
            _ => None,
        }
    })
}

/// Whether a file is called like a licence, a notice or a use policy, and stays in its folder on every system.
fn is_notice(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._- ".contains(&b));
    let lower = name.to_ascii_lowercase();
    let ending = Path::new(&lower).extension().and_then(|ending| ending.to_str());
    plain && PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) && ENDINGS.contains(&ending)
}

fn folders(source: &Opened) -> Vec<PathBuf> {
    let Some(file) = source.checkpoint.files.first() else { return Vec::new() };
    let file = file.canonicalize().unwrap_or_else(|_| file.clone());
    let n_levels = if source.checkpoint.form == Form::Meta { 2 } else { 1 };
    file.ancestors().skip(1).take(n_levels).map(Path::to_owned).collect()
}

/// The notices in a folder, in alphabetical order.
fn notices_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_notice))
        .filter(|path| {
            path.metadata().is_ok_and(|file| file.is_file() && file.len() <= MAX_FILE_BYTES)
        })
        .collect();
    paths.sort();
    paths
}

/// The licence that a model card (`README.md`) states in its head, by Hugging Face's short name.
pub(super) fn licence_name(source: &Opened) -> Option<String> {
    let card = folders(source).first()?.join("README.md");
    if card.metadata().ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    let text = fs::read_to_string(card).ok()?;
    let head = text.strip_prefix("---")?;
    let (head, _) = head.split_once("\n---")?;
    let name = head.lines().find_map(|line| line.strip_prefix("license:"))?.trim();
    (!name.is_empty()).then(|| name.trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_notices_are_notices() {
        for name in
            ["LICENSE", "LICENSE.txt", "Notice", "USE_POLICY.md", "COPYING", "LICENCE-2.txt"]
        {
            assert!(is_notice(name), "{name}");
        }
        for name in ["license.json", "config.json", "LICENSE/../config", "licenses.py", "NOTICE\0"]
        {
            assert!(!is_notice(name), "{name}");
        }
    }
}
