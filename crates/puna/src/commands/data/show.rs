//! `puna data show`: what training data are made of.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use puna_data::{Corpus, DataError};

use super::report;
use crate::failure::Interrupted;
use crate::interrupt::Interrupt;
use crate::progress;

/// Tell what training data are made of
#[derive(Args)]
#[command(after_help = "Example: puna data show stories/ --check")]
pub(crate) struct ShowArgs {
    /// A folder that puna data build wrote
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Compare every shard with its hash
    #[arg(long)]
    check: bool,
    /// Print the manifest
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Opens and prints.
pub(crate) fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let corpus = Corpus::open(&args.folder)?;
    if args.check {
        let interrupt = Interrupt::install()?;
        let bar = progress::over_work("checking");
        let outcome = corpus.check(&mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            !interrupt.is_set()
        });
        bar.finish_and_clear();
        match outcome {
            Err(DataError::Stopped) => bail!(Interrupted),
            outcome => outcome?,
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(writeln!(out, "{}", serde_json::to_string(corpus.manifest())?)?);
    }
    report::write(&mut out, corpus.manifest())?;
    Ok(())
}
