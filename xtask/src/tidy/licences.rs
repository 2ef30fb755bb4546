//! Licences of the crates and of the page's packages that we build on: permissive ones only, listed in THIRD_PARTY.md.

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use serde_json::Value;
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

The built-in models: `stories7m` with its vocabulary and `stories7m-chat`, trained by Puna, CC BY-SA 4.0, and the texts they
were trained on, see models/stories7m/NOTICE and models/stories7m-chat/NOTICE; `stories260K` with its vocabulary, by Andrej Karpathy, MIT, see models/NOTICE.

The crates that Puna and its tests are built with, on all platforms together, from crates.io. `cargo xtask notices` writes
this list.

| crate | version | licence |
|---|---|---|
";

const PAGE_LOCK: &str = "ui/package-lock.json";

const PAGE_HEAD: &str = "
The packages that the page of the server is built with, from npm. Their texts are in ui/dist/licences.txt, which is
served beside the page.

| package | version | licence |
|---|---|---|
";

/// What is known of a crate or package.
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// Writes the list anew.
pub(crate) fn write() -> Result<()> {
    let root = crate::root();
    let text = list(&crates(&root)?, &page_packages(&root)?);
    std::fs::write(root.join(LIST), text).with_context(|| format!("cannot write {LIST}"))
}

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let (crates, page) = (crates(root)?, page_packages(root)?);
    let mut problems: Vec<String> = crates
        .iter()
        .chain(&page)
        .filter(|package| !is_permissive(&package.licence))
        .map(|package| format!("{} {}: licence {}", package.name, package.version, package.licence))
        .collect();
    let written =
        std::fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    if written != list(&crates, &page) {
        problems.push(format!("{LIST} is out of date: run `cargo xtask notices`"));
    }
    Ok(problems)
}

/// All crates of the lock file that are not ours, sorted by name and version.
fn crates(root: &Path) -> Result<Vec<Package>> {
    let manifest = root.join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).exec()?;
    let mut packages: Vec<_> =
        metadata.packages.into_iter().filter(|package| package.source.is_some()).collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    let known = packages.into_iter().map(|package| Package {
        name: package.name.to_string(),
        version: package.version.to_string(),
        licence: package.license.unwrap_or_else(|| "none".to_owned()),
    });
    Ok(known.collect())
}

/// All packages of npm's lock file that are neither optional nor for building and tests alone, sorted by name.
fn page_packages(root: &Path) -> Result<Vec<Package>> {
    let lock = std::fs::read_to_string(root.join(PAGE_LOCK))
        .with_context(|| format!("cannot read {PAGE_LOCK}"))?;
    let lock: Value =
        serde_json::from_str(&lock).with_context(|| format!("cannot parse {PAGE_LOCK}"))?;
    let entries =
        lock["packages"].as_object().with_context(|| format!("{PAGE_LOCK}: no packages"))?;
    let mut packages: Vec<_> = entries
        .iter()
        .filter(|(_, entry)| entry["dev"] != true && entry["optional"] != true)
        .filter_map(|(path, entry)| {
            let field = |name: &str| entry[name].as_str().unwrap_or("none").to_owned();
            let (_, name) = path.rsplit_once("node_modules/")?;
            let (version, licence) = (field("version"), field("license"));
            Some(Package { name: name.to_owned(), version, licence })
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

fn list(crates: &[Package], page: &[Package]) -> String {
    let mut text = String::new();
    for (head, packages) in [(HEAD, crates), (PAGE_HEAD, page)] {
        text.push_str(head);
        for Package { name, version, licence } in packages {
            writeln!(text, "| {name} | {version} | {licence} |").expect("writing to a string");
        }
    }
    text
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
