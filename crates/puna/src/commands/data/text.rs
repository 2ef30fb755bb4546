//! `puna data text`: training data as text again.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use puna_data::{Corpus, Side};

use crate::failure::Usage;

/// Write the documents of a source as text
#[derive(Args)]
#[command(
    after_help = "What is written is what a model is trained or measured on: after the filters, as the tokens spell it.\n\n\
                  Example: puna data text stories/ --source readers > held-out.txt"
)]
pub(crate) struct TextArgs {
    /// A folder that puna data build wrote
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The source
    #[arg(long, value_name = "NAME")]
    source: String,
    /// Write what is trained on instead of what is held out
    #[arg(long)]
    train: bool,
    /// The line that stands between documents
    #[arg(long, value_name = "LINE", default_value = "<|endofdoc|>")]
    marker: String,
}

/// Decodes and writes, a document at a time.
pub(crate) fn run(args: &TextArgs) -> anyhow::Result<()> {
    let corpus = Corpus::open(&args.folder)?;
    let names: Vec<&str> = corpus.manifest().sources.iter().map(|s| s.name.as_str()).collect();
    let Some(source) = names.iter().position(|name| *name == args.source) else {
        let (found, names) = (&args.source, names.join(", "));
        bail!(Usage(format!("--source: expected one of {names}, found {found}")));
    };
    let side = if args.train { Side::Train } else { Side::HeldOut };
    let mut out = BufWriter::new(io::stdout().lock());
    for (idx, text) in corpus.texts(source, side).enumerate() {
        if idx > 0 {
            writeln!(out, "{}", args.marker)?;
        }
        writeln!(out, "{}", text?)?;
    }
    Ok(out.flush()?)
}
