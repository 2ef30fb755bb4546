//! `testdata/CHECKSUMS`: the SHA-256 of every golden file, in the form that `sha256sum --check` reads.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const LIST: &str = "testdata/CHECKSUMS";

/// Writes the list anew.
pub(crate) fn write() -> Result<()> {
    let root = crate::root();
    let mut text = String::new();
    for (file, sum) in sums(&root)? {
        writeln!(text, "{sum}  {file}").expect("writing to a string");
    }
    std::fs::write(root.join(LIST), text).with_context(|| format!("cannot write {LIST}"))
}

/// Compares the list with the files.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let text =
        std::fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let mut listed: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, file)| (file, sum))
        .collect();
    let mut problems = Vec::new();
    for (file, sum) in sums(root)? {
        match listed.remove(file.as_str()) {
            Some(expected) if expected == sum => {}
            Some(_) => problems.push(format!("{file}: differs from {LIST}")),
            None => problems.push(format!("{file}: not in {LIST}")),
        }
    }
    problems
        .extend(listed.keys().map(|file| format!("{LIST}: lists {file}, which does not exist")));
    Ok(problems)
}

/// Path and checksum of all files of `testdata` but its scripts and texts about it.
fn sums(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    for file in super::tracked_files(root)? {
        let is_data = file.starts_with("testdata/")
            && !file.starts_with("testdata/scripts/")
            && !file.ends_with(".md")
            && file != LIST;
        if is_data {
            let bytes =
                std::fs::read(root.join(&file)).with_context(|| format!("cannot read {file}"))?;
            let sum = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            sums.insert(file, sum);
        }
    }
    Ok(sums)
}
