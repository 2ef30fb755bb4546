//! Who may depend on whom, that ARCHITECTURE.md names exactly the crates that exist, and that
//! CONTRIBUTING.md gives a reason for each crate from outside.

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::BTreeSet;
use std::path::Path;

/// The dependency table of ARCHITECTURE.md. The binary may depend on anything; `puna-testkit` is only
/// ever a dev-dependency.
const ALLOWED: &[(&str, &[&str])] = &[
    ("puna-core", &[]),
    ("puna-tokenizer", &[]),
    ("puna-data", &["puna-core", "puna-tokenizer"]),
    ("puna-kernels", &["puna-core"]),
    ("puna-formats", &["puna-core"]),
    ("puna-ops", &["puna-core", "puna-kernels"]),
    ("puna-model", &["puna-core", "puna-kernels"]),
    ("puna-train", &["puna-core", "puna-kernels", "puna-ops", "puna-model"]),
    ("puna-engine", &["puna-core", "puna-kernels", "puna-model"]),
    (
        "puna-hub",
        &["puna-core", "puna-tokenizer", "puna-formats", "puna-kernels", "puna-model", "puna-eval"],
    ),
    ("puna-eval", &["puna-core", "puna-tokenizer", "puna-kernels", "puna-model"]),
    (
        "puna-recipes",
        &[
            "puna-core",
            "puna-tokenizer",
            "puna-data",
            "puna-formats",
            "puna-kernels",
            "puna-ops",
            "puna-model",
            "puna-train",
            "puna-engine",
            "puna-hub",
        ],
    ),
    ("puna-server", &["puna-core", "puna-tokenizer", "puna-engine", "puna-hub"]),
    ("puna-testkit", &["puna-core"]),
    ("xtask", &["puna-data", "puna-formats", "puna-tokenizer"]),
];

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let manifest = root.join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
    let mut problems = dependencies(&metadata);
    let architecture = root.join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&architecture)
        .with_context(|| format!("cannot read {}", architecture.display()))?;
    problems.extend(names(&metadata, &text));
    let contributing = std::fs::read_to_string(root.join("CONTRIBUTING.md"))
        .context("cannot read CONTRIBUTING.md")?;
    problems.extend(reasons(&metadata, &contributing));
    Ok(problems)
}

/// Every crate from outside that one of ours asks for has its reason in CONTRIBUTING.md.
fn reasons(metadata: &Metadata, contributing: &str) -> Vec<String> {
    let asked: BTreeSet<&str> = metadata
        .packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.path.is_none())
        .map(|dependency| dependency.name.as_str())
        .collect();
    let unexplained = asked.iter().filter(|name| !contributing.contains(&format!("`{name}`")));
    unexplained.map(|name| format!("CONTRIBUTING.md: no reason for the crate {name}")).collect()
}

fn dependencies(metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    let members: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let allowed = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name);
        if allowed.is_none() && name != "puna" {
            problems
                .push(format!("{name}: not in the dependency table of xtask and ARCHITECTURE.md"));
        }
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            // Tests may look at the layers above: no cycle can come of it, cargo forbids that.
            if !members.contains(to) || dependency.kind == DependencyKind::Development {
                continue;
            }
            if to == "puna-testkit" || allowed.is_some_and(|(_, to_any)| !to_any.contains(&to)) {
                problems.push(format!("{name}: may not depend on {to}"));
            }
        }
    }
    problems
}

/// Compares the words of `architecture` that look like crate names with the crates.
fn names(metadata: &Metadata, architecture: &str) -> Vec<String> {
    let members: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let named: BTreeSet<&str> = architecture
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .filter(|word| word.starts_with("puna-"))
        .collect();
    let missing = members
        .iter()
        .filter(|name| name.starts_with("puna-") && !named.contains(*name))
        .map(|name| format!("ARCHITECTURE.md: does not name the crate {name}"));
    let invented = named
        .difference(&members)
        .map(|name| format!("ARCHITECTURE.md: names {name}, which does not exist"));
    missing.chain(invented).collect()
}
