//! `puna synth`: a random-weight model of a published shape.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use puna_hub::HubError;
use puna_hub::synth::{Shape, Storage, Synth};

use crate::failure::Interrupted;
use crate::interrupt::Interrupt;
use crate::{environment, progress, units};

/// Write a random-weight model, for benchmarks and tests
#[derive(Args)]
#[command(
    after_help = "The text such a model writes means nothing; its speed and memory are those of a real one.\n\n\
                  Example: puna synth --shape tinyllama-1.1b --type q8_0 random.gguf"
)]
pub(crate) struct SynthArgs {
    /// The file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Which shape
    #[arg(long, value_name = "SHAPE", ignore_case = true, value_parser = shape())]
    shape: Shape,
    /// How matrices are stored: all in one type, or in a mix of puna quantize
    #[arg(long = "type", value_name = "TYPE", ignore_case = true, value_parser = storage())]
    storage: Storage,
    /// Take the vocabulary of this model or tokenizer file instead of inventing 32,000 pieces
    #[arg(long, value_name = "MODEL")]
    tokenizer: Option<String>,
    /// Seed of the random weights: same seed, same file
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

fn shape() -> impl TypedValueParser<Value = Shape> {
    PossibleValuesParser::new(Shape::ALL.map(Shape::name)).try_map(|name| name.parse::<Shape>())
}

fn storage() -> impl TypedValueParser<Value = Storage> {
    PossibleValuesParser::new(Storage::all().map(Storage::name)).map(|name| {
        let found = Storage::all().find(|storage| storage.name().eq_ignore_ascii_case(&name));
        found.expect("the parser before lets only these names through")
    })
}

/// Writes the file, with a progress bar; Ctrl-C leaves nothing behind.
pub(crate) fn run(args: &SynthArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let tokenizer = match &args.tokenizer {
        Some(model) => {
            Some(puna_hub::open_tokenizer(model, &environment::open_options(None, None))?.0)
        }
        None => None,
    };
    let job = Synth::new(args.shape, args.storage, tokenizer.as_ref(), args.seed);
    for (dtype, n) in job.fallbacks() {
        note!(
            "note: {} with rows that no block of {} divides are stored as {dtype}",
            units::count(n, "matrix", "matrices"),
            args.storage.name()
        );
    }
    let interrupt = Interrupt::install()?;
    let bar = progress::over_bytes("writing", job.n_bytes());
    let outcome = job.write(&args.out, &mut |written| {
        bar.set_position(written);
        !interrupt.is_set()
    });
    bar.finish_and_clear();
    match outcome {
        Err(HubError::Stopped) => bail!(Interrupted),
        other => other?,
    }
    let n_bytes = std::fs::metadata(&args.out).map_or(job.n_bytes(), |file| file.len());
    note!(
        "wrote {}: {} parameters, {} in {}",
        args.out.display(),
        units::params(job.config().n_params()),
        units::bytes(n_bytes),
        units::seconds(started.elapsed().as_secs_f64())
    );
    Ok(())
}
