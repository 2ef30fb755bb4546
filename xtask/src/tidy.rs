//! Structure checks. Each returns the problems it finds, one line each; none writes anything.

pub(crate) mod checksums;
mod crates;
mod fuzz;
pub(crate) mod licences;
mod sources;

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Runs all checks on the tree and fails when any finds a problem.
pub(crate) fn run() -> Result<()> {
    let root = crate::root();
    let files = tracked_files(&root)?;
    let mut problems = crates::check(&root)?;
    problems.extend(sources::check(&root, &files)?);
    problems.extend(licences::check(&root)?);
    problems.extend(checksums::check(&root)?);
    problems.extend(fuzz::check(&root)?);
    if problems.is_empty() {
        eprintln!("tidy: {} files, no problem", files.len());
        return Ok(());
    }
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    bail!("tidy found {}", problems.len());
}

/// Paths of all files that git tracks or would, relative to the root, with `/`.
fn tracked_files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let names = names.split('\0').filter(|name| root.join(name).is_file());
    Ok(names.map(str::to_owned).collect())
}
