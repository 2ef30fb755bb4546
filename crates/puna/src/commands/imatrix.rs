//! `puna imatrix`: how important the columns of each matrix are on a text.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use puna_formats::Existing;

use crate::interrupt::Interrupt;
use crate::measuring::{MeasuringArgs, read_text, watched};
use crate::units;

/// Measure which weights matter on a text, for puna quantize
#[derive(Args)]
#[command(
    after_help = "The file holds the mean square of each input of each matrix, in the form of llama.cpp's imatrix tool, \
                  which reads it too. The text should be like what the model is for; 100,000 tokens do.\n\n\
                  Example: puna imatrix Llama-2-7b/ --file calibration.txt 7b.imatrix.gguf"
)]
pub(crate) struct ImatrixArgs {
    /// A file, a folder or a name
    model: String,
    /// The file to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The text
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    measuring: MeasuringArgs,
}

/// Measures and writes.
pub(crate) fn run(args: &ImatrixArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    existing.check_writable(&args.out)?;
    let model = args.measuring.open(&args.model)?;
    let text = read_text(&model, &args.file)?;
    let options = args.measuring.options(&model, None);
    let cpu = args.measuring.cpu()?;
    let interrupt = Interrupt::install()?;
    let imatrix = watched("measuring", &interrupt, |on| {
        puna_hub::importance(&model, &text, options, &cpu, on)
    })?;
    imatrix.write(&args.out, existing)?;
    note!(
        "wrote {}: {} over {} of {} in {}",
        args.out.display(),
        units::count(imatrix.entries.len(), "matrix", "matrices"),
        units::plural(imatrix.n_inputs as usize, "token"),
        text.name,
        units::seconds(started.elapsed().as_secs_f64())
    );
    Ok(())
}
