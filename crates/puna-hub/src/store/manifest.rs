//! The description of a pulled model: which files it has, where they came from, under which licence.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::name::ModelName;
use crate::licence::Acceptance;

/// The version of the description; another is not read.
const VERSION: u32 = 1;

/// Most files of a model.
pub(crate) const MAX_FILES: usize = 10_000;

/// A pulled model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// What it is called.
    pub model: ModelName,
    /// The commit that was fetched, 40 hexadecimal digits.
    pub commit: String,
    /// When it was fetched, UTC.
    pub pulled: String,
    /// What it is, for people: `GGUF Q4_K_M`.
    pub form: String,
    /// The licence it was taken under.
    pub licence: Acceptance,
    /// What to open, as a path in its folder; empty for the folder itself.
    pub open: String,
    /// Its files.
    pub files: Vec<ManifestFile>,
}

/// A file of a pulled model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its path in the repository, with `/`.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of its bytes, 64 hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// A description of today.
    pub fn new(
        model: ModelName,
        commit: String,
        form: String,
        licence: Acceptance,
        open: String,
        files: Vec<ManifestFile>,
    ) -> Self {
        Self { version: VERSION, model, commit, pulled: super::now(), form, licence, open, files }
    }

    /// Bytes of all files.
    pub fn n_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Reads a description.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if manifest.version != VERSION {
            return Err(format!("expected version {VERSION}, found {}", manifest.version));
        }
        if manifest.files.len() > MAX_FILES {
            return Err(format!(
                "expected at most {MAX_FILES} files, found {}",
                manifest.files.len()
            ));
        }
        let ModelName { org, name, .. } = &manifest.model;
        if !super::name::is_part(org) || !super::name::is_part(name) {
            return Err(format!("expected a repository's name, found {org:?}/{name:?}"));
        }
        let mut total = 0u64;
        for file in &manifest.files {
            check_path(&file.path)?;
            if !is_hex(&file.sha256, 64) {
                let (path, found) = (&file.path, &file.sha256);
                return Err(format!("{path}: expected 64 hexadecimal digits, found {found:?}"));
            }
            total = total.checked_add(file.size).ok_or("the sizes of the files overflow")?;
        }
        check_distinct(manifest.files.iter().map(|file| file.path.as_str()))?;
        let opens = |file: &ManifestFile| file.path == manifest.open;
        if !manifest.open.is_empty() && !manifest.files.iter().any(opens) {
            return Err(format!("expected a file of the model to open, found {:?}", manifest.open));
        }
        Ok(manifest)
    }

    /// The description as a file has it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("strings and numbers are JSON")
    }
}

/// Refuses a repository's path that could leave the folder it is put into, on any system.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    const MAX_BYTES: usize = 512;
    let bad_char =
        |c: char| c.is_control() || matches!(c, '\\' | ':' | '<' | '>' | '"' | '|' | '?' | '*');
    let sound_part = |part: &str| !matches!(part, "" | "." | "..") && !part.ends_with(['.', ' ']);
    if path.len() <= MAX_BYTES && !path.contains(bad_char) && path.split('/').all(sound_part) {
        return Ok(());
    }
    Err(format!("expected a path inside the repository, found {path:?}"))
}

/// Refuses paths that are one file's where case does not count, as on Windows and macOS.
pub(crate) fn check_distinct<'a>(paths: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for path in paths {
        if !seen.insert(path.to_lowercase()) {
            return Err(format!("expected files of different names, found {path:?} twice"));
        }
    }
    Ok(())
}

/// Whether `text` is `n` lower-case hexadecimal digits.
pub(crate) fn is_hex(text: &str, n: usize) -> bool {
    text.len() == n && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leaves_its_folder() {
        for sound in ["a", "a/b.gguf", "a..b", "original/consolidated.00.pth", ".gitattributes"] {
            check_path(sound).unwrap();
        }
        let long = "x".repeat(513);
        for bad in [
            "",
            "..",
            "../a",
            "a/../b",
            "/a",
            "a//b",
            "a/",
            "a\\b",
            "C:a",
            "a\0",
            "a\u{1b}[2J",
            "a.",
            "./a",
            &long,
        ] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }
}
