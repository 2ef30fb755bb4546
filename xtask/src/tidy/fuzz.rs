//! Every fuzz target has seeds, which the ordinary tests replay.

use anyhow::{Context, Result};
use std::path::Path;

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let targets = root.join("fuzz").join("fuzz_targets");
    let mut problems = Vec::new();
    for entry in targets.read_dir().with_context(|| format!("cannot list {}", targets.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_stem().filter(|_| path.extension().is_some_and(|e| e == "rs"))
        else {
            continue;
        };
        let seeds = root.join("fuzz").join("seeds").join(name);
        let has_seed = seeds.read_dir().is_ok_and(|mut files| files.next().is_some());
        if !has_seed {
            problems.push(format!(
                "fuzz target {}: no seed in {}",
                name.display(),
                seeds.display()
            ));
        }
    }
    Ok(problems)
}
