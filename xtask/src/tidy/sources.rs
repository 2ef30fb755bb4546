//! Sizes of files, words that do not belong in the tree, and where `unsafe` and the environment are.

use anyhow::{Context, Result};
use std::path::Path;

/// Lines a source file may have, tests included.
const MAX_LINES: usize = 1_000;

/// Generated tables that may be longer.
const LONG_FILES: &[&str] = &[];

/// Bytes a committed file may have.
const MAX_BYTES: u64 = 4 << 20;

/// Paths of one machine, and notes that belong in an issue.
const BANNED_WORDS: &[&str] = &["/work/", "/root/", "/home/", "TODO", "FIXME", "XXX"];

/// Code that may stand only in certain files: what, where, why.
const ROOMS: &[(&str, &[&str], &str)] = &[
    (
        "unsafe {",
        &["crates/puna-kernels/", "crates/puna-formats/src/map.rs", "crates/puna/src/system/"],
        "unsafe code lives in the kernels, memory maps and calls to the operating system",
    ),
    (
        "env::var",
        &[
            "crates/puna/",
            "crates/puna-kernels/src/isa",
            "crates/puna-testkit/",
            "crates/puna-hub/build.rs",
            "xtask/",
        ],
        "only programs and the choice of instruction set read the environment",
    ),
];

/// This file holds the words it looks for.
const THIS_FILE: &str = "xtask/src/tidy/sources.rs";

pub(super) fn check(root: &Path, files: &[String]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in files {
        let bytes =
            std::fs::read(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        if bytes.len() as u64 > MAX_BYTES {
            problems.push(format!("{file}: {} bytes, the limit is {MAX_BYTES}", bytes.len()));
        }
        // Golden files hold any text there is.
        if file == THIS_FILE || (file.starts_with("testdata/") && !file.contains("scripts")) {
            continue;
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            problems.extend(check_text(file, text));
        }
    }
    Ok(problems)
}

fn check_text(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let is_rust = file.ends_with(".rs");
    let lines = text.lines().count();
    if is_rust && lines > MAX_LINES && !LONG_FILES.contains(&file) {
        problems.push(format!("{file}: {lines} lines, the limit is {MAX_LINES}"));
    }
    for (i, line) in text.lines().enumerate() {
        for word in BANNED_WORDS.iter().filter(|word| line.contains(*word)) {
            problems.push(format!("{file}:{}: `{word}` does not belong here", i + 1));
        }
        for (code, places, why) in ROOMS {
            let at_home = places.iter().any(|place| file.starts_with(place));
            if is_rust && line.contains(code) && !at_home {
                problems.push(format!("{file}:{}: `{code}`, but {why}", i + 1));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::check_text;

    #[test]
    fn each_rule_finds_its_mistake() {
        let long = "\n".repeat(1_001);
        assert_eq!(check_text("crates/a/src/lib.rs", &long).len(), 1);
        assert_eq!(check_text("docs/long.md", &long).len(), 0);
        assert_eq!(check_text("README.md", "see /root/notes").len(), 1);
        assert_eq!(check_text("crates/puna-core/src/lib.rs", "unsafe { f() }").len(), 1);
        assert_eq!(check_text("crates/puna-kernels/src/dot.rs", "unsafe { f() }").len(), 0);
        assert_eq!(check_text("crates/puna-engine/src/lib.rs", "std::env::var(\"X\")").len(), 1);
    }
}
