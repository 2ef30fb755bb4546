//! `puna report`: the curves of a run as a page.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use puna_formats::Existing;
use puna_recipes::report_page;

/// Draw the curves of a training run as a page
#[derive(Args)]
#[command(
    after_help = "The page is one HTML file that asks for nothing else: last figures, the curve of every number that the log \
                  has, what happened on the way, what the model wrote, and settings and hashes. It can be drawn while the \
                  run goes on. The same run gives the same page.\n\n\
                  Example: puna report run/ --out run.html"
)]
pub(crate) struct ReportArgs {
    /// The folder of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The page to write, in place of an older one [default: RUN/report.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Draws, writes, and tells where.
pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<()> {
    let page = report_page(&args.run)?;
    let out = args.out.clone().unwrap_or_else(|| args.run.join("report.html"));
    Existing::Replace.write(&out, page.as_bytes())?;
    writeln!(io::stdout().lock(), "{}", out.display())?;
    Ok(())
}
