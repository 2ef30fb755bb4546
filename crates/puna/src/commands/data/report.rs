//! Training data as a table.

use std::io::{self, Write};

use puna_data::{Amount, Manifest, SourceRecord};

use crate::units;

/// Writes what there is of each source, and what was left out.
pub(super) fn write(out: &mut impl Write, manifest: &Manifest) -> io::Result<()> {
    let total: u64 = manifest.sources.iter().map(|source| source.weight).sum();
    let head = ["SOURCE", "SHARE", "DOCUMENTS", "TEXT", "TOKENS", "HELD OUT", "LICENCE"];
    let mut rows = vec![head.map(str::to_owned)];
    for source in &manifest.sources {
        rows.push([
            source.name.clone(),
            format!("{:.1} %", 100.0 * source.weight as f64 / total as f64),
            source.train.documents.to_string(),
            units::bytes(source.train.bytes),
            units::params(source.train.tokens),
            format!("{} tokens", units::params(source.held_out.tokens)),
            source.licence.clone(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    manifest.sources.iter().try_for_each(|source| write_removed(out, source))
}

/// One line, for a source of which something was left out or changed.
fn write_removed(out: &mut impl Write, source: &SourceRecord) -> io::Result<()> {
    let removed = &source.removed;
    let amounts = [
        (removed.duplicates, "copies"),
        (removed.script, "of another script"),
        (removed.words, "with listed words"),
        (removed.near_duplicates, "passages nearly held-out text"),
        (removed.near_copies, "nearly copies of earlier documents"),
        (removed.min_chars, "too short"),
    ];
    let told = amounts
        .into_iter()
        .filter(|(amount, _)| amount.n > 0)
        .map(|(Amount { n, bytes }, what)| format!("{n} {what} ({})", units::bytes(bytes)));
    let mut told: Vec<String> = told.collect();
    if source.counted_words > 0 {
        told.push(format!("kept {} with listed words", source.counted_words));
    }
    if source.utf8_replaced > 0 {
        told.push(format!("{} stretches of bytes replaced by U+FFFD", source.utf8_replaced));
    }
    if told.is_empty() {
        return Ok(());
    }
    let Amount { n, bytes } = source.read;
    let read = format!("of {n} documents ({})", units::bytes(bytes));
    writeln!(out, "{}: left out {read}: {}", source.name, told.join(", "))
}
