//! `puna list`: the models that were pulled.

use std::io::{self, BufWriter, Write};

use clap::Args;
use puna_hub::store::{Manifest, Removed};
use serde_json::{Value, json};

use crate::{environment, units};

/// List the models that were pulled
#[derive(Args)]
#[command(
    after_help = "Each NAME can be given wherever a command takes a MODEL, shortened as long as it is clear."
)]
pub(crate) struct ListArgs {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Writes a table, or JSON, to stdout.
pub(crate) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let store = environment::store_or_fail()?;
    let (models, unreadable) = store.list_readable()?;
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        writeln!(out, "{}", models.iter().map(to_json).collect::<Value>())?;
    } else if models.is_empty() && unreadable.is_empty() {
        note!("no models in {}; puna pull ORG/NAME fetches one", store.root().display());
    } else if !models.is_empty() {
        write_table(&mut out, &models)?;
    }
    out.flush()?;
    for error in unreadable {
        note!("{error}");
    }
    let Removed { freed, n_files } = store.unfinished()?;
    if n_files > 0 {
        let files = units::plural(n_files, "unfinished file");
        note!("{files}, {}: pull again to go on, or puna rm --unfinished", units::bytes(freed));
    }
    Ok(())
}

/// What stands in a row, in the order of the columns.
fn row(model: &Manifest) -> [String; 5] {
    [
        model.model.to_string(),
        units::bytes(model.n_bytes()),
        model.form.clone(),
        model.licence.id.clone().unwrap_or_else(|| "not stated".to_owned()),
        // The day is enough here.
        model.pulled.chars().take(10).collect(),
    ]
}

fn write_table(out: &mut impl Write, models: &[Manifest]) -> io::Result<()> {
    let head = ["NAME", "SIZE", "FORM", "LICENCE", "PULLED"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(models.iter().map(row)).collect();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn to_json(model: &Manifest) -> Value {
    let files = model.files.iter();
    let files: Value =
        files.map(|f| json!({ "path": f.path, "n_bytes": f.size, "sha256": f.sha256 })).collect();
    json!({
        "name": model.model.to_string(), "n_bytes": model.n_bytes(), "form": model.form,
        "repository": model.model.repository(), "revision": model.model.revision,
        "commit": model.commit, "pulled": model.pulled,
        "licence": {
            "id": model.licence.id, "sha256": model.licence.sha256, "accepted": model.licence.accepted,
        },
        "files": files,
    })
}
