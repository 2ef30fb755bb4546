//! Licences of the crates we build on: permissive ones only, listed in THIRD_PARTY.md.

use anyhow::{Context, Result};
use cargo_metadata::{MetadataCommand, Package};
use std::fmt::Write as _;
use std::path::Path;

const LIST: &str = "THIRD_PARTY.md";

/// A crate must offer one of these, alone or joined by AND with others of them.
const PERMISSIVE: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const HEAD: &str = "\
# Third-party code and data

The built-in models: `stories7m` with its vocabulary, trained by Puna, CC BY-SA 4.0, and the texts it was trained on, see
models/stories7m/NOTICE; `stories260K` with its vocabulary, by Andrej Karpathy, MIT, see models/NOTICE.

The crates that Puna and its tests are built with, on all platforms together, from crates.io. `cargo xtask notices` writes
this list.

| crate | version | licence |
|---|---|---|
";

/// Writes the list anew.
pub(crate) fn write() -> Result<()> {
    let root = crate::root();
    let text = list(&packages(&root)?);
    std::fs::write(root.join(LIST), text).with_context(|| format!("cannot write {LIST}"))
}

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let packages = packages(root)?;
    let mut problems: Vec<String> = packages
        .iter()
        .filter(|package| !is_permissive(licence(package)))
        .map(|package| {
            format!("{} {}: licence {}", package.name, package.version, licence(package))
        })
        .collect();
    let written =
        std::fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    if written != list(&packages) {
        problems.push(format!("{LIST} is out of date: run `cargo xtask notices`"));
    }
    Ok(problems)
}

/// All crates of the lock file that are not ours, sorted by name and version.
fn packages(root: &Path) -> Result<Vec<Package>> {
    let manifest = root.join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).exec()?;
    let mut packages: Vec<_> =
        metadata.packages.into_iter().filter(|package| package.source.is_some()).collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(packages)
}

fn list(packages: &[Package]) -> String {
    let mut text = HEAD.to_owned();
    for package in packages {
        let (name, version) = (&package.name, &package.version);
        writeln!(text, "| {name} | {version} | {} |", licence(package))
            .expect("writing to a string");
    }
    text
}

fn licence(package: &Package) -> &str {
    package.license.as_deref().unwrap_or("none")
}

/// Whether an SPDX expression can be met with permissive licences: each part joined by AND has an
/// alternative among them. Parentheses occur only around alternatives, `/` is an old OR.
fn is_permissive(expression: &str) -> bool {
    expression.split(" AND ").all(|part| {
        let part = part.trim_matches(['(', ')']).replace('/', " OR ");
        part.split(" OR ").any(|name| PERMISSIVE.contains(&name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::is_permissive;

    #[test]
    fn alternatives_and_conjunctions() {
        assert!(is_permissive("MIT OR GPL-3.0"));
        assert!(is_permissive("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(is_permissive("MIT/Apache-2.0"));
        assert!(!is_permissive("MIT AND GPL-3.0"));
        assert!(!is_permissive("MPL-2.0"));
        assert!(!is_permissive("none"));
    }
}
