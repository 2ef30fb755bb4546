//! `puna convert`: a model in another form.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use puna_core::DType;
use puna_formats::Existing;
use puna_formats::gguf::WriteOptions;
use puna_hub::convert::{Conversion, Target, Written};
use puna_hub::{HubError, OpenOptions};
use puna_kernels::Cpu;

use crate::args::{ThreadsArg, size};
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::{environment, progress, units};

/// Bytes of one safetensors file unless told otherwise; `transformers` cuts there too.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Write a model in another form: GGUF or a Hugging Face folder
#[derive(Args)]
#[command(
    after_help = "Without --dtype every matrix keeps its type, bit for bit; a Hugging Face folder, which has no quantised types, \
                   gets their exact values as f32. Licence and notice files beside the weights go with them.\n\n\
                  Examples:\n  \
                  puna convert Llama-2-7b/ llama-2-7b.gguf --dtype f16\n  \
                  puna convert llama-2-7b.Q8_0.gguf Llama-2-7b-hf/ --dtype bf16"
)]
pub(crate) struct ConvertArgs {
    /// The model to read, in any form
    #[arg(value_name = "IN")]
    model: String,
    /// The file (GGUF) or folder (safetensors) to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Which form to write [default: gguf if OUT ends in .gguf, else safetensors]
    #[arg(long, value_name = "FORM", ignore_case = true)]
    to: Option<FormArg>,
    /// How to store matrices [default: as they are]
    #[arg(long, value_name = "TYPE", ignore_case = true, value_parser = float_type())]
    dtype: Option<DType>,
    /// Split into files of at most SIZE of weights, such as 4GB or 500MB [default: 5GB for safetensors, one GGUF file]
    #[arg(long, value_name = "SIZE", value_parser = size())]
    split_size: Option<u64>,
    /// Take the tokenizer from FILE instead of the model's own
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Add the adapters in DIR, as PEFT and puna sft write them
    #[arg(long, value_name = "DIR")]
    lora: Option<PathBuf>,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

/// `--to`.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum FormArg {
    Gguf,
    Safetensors,
}

fn float_type() -> impl TypedValueParser<Value = DType> {
    let floats = DType::ALL.into_iter().filter(|dtype| dtype.is_float());
    PossibleValuesParser::new(floats.map(DType::name)).try_map(|name| name.parse::<DType>())
}

/// Writes the model, with a progress bar; Ctrl-C leaves nothing behind.
pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let target = target(args)?;
    let options = environment::open_options(args.tokenizer.as_ref(), args.lora.as_ref());
    let options = OpenOptions { padded: true, ..options };
    let source = puna_hub::open(&args.model, &options)?;
    let cpu = Cpu::new(args.threads.n_threads()).context("PUNA_ISA")?;
    let job = Conversion::new(&source, target, args.dtype, &cpu)?;
    let default_bytes = if target == Target::Gguf { u64::MAX } else { SHARD_BYTES };
    let options = WriteOptions {
        existing: if args.force { Existing::Replace } else { Existing::Keep },
        max_file_bytes: args.split_size.unwrap_or(default_bytes),
    };
    let interrupt = Interrupt::install()?;
    let bar = progress::over_bytes("converting", job.n_bytes());
    let outcome = job.write(&args.out, &options, &mut |written| {
        bar.set_position(written);
        !interrupt.is_set()
    });
    bar.finish_and_clear();
    match outcome {
        Err(HubError::Stopped) => bail!(Interrupted),
        Err(error) => Err(error.into()),
        Ok(written) => {
            report(args, &written, started.elapsed().as_secs_f64());
            Ok(())
        }
    }
}

/// The form asked for, or the one that OUT's name tells.
fn target(args: &ConvertArgs) -> anyhow::Result<Target> {
    let named_gguf = args.out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
    let out = args.out.display();
    match args.to {
        Some(FormArg::Gguf) if !named_gguf => {
            bail!(Usage(format!("--to gguf writes a file NAME.gguf, found {out}")))
        }
        Some(FormArg::Safetensors) if named_gguf => {
            bail!(Usage(format!("--to safetensors writes a folder, found {out}, a name for GGUF")))
        }
        Some(FormArg::Gguf) => Ok(Target::Gguf),
        None if named_gguf => Ok(Target::Gguf),
        Some(FormArg::Safetensors) | None => Ok(Target::HuggingFace),
    }
}

fn report(args: &ConvertArgs, written: &Written, secs: f64) {
    for note in &written.notes {
        note!("note: {note}");
    }
    let out = match &written.files[..] {
        [only] if args.out.is_file() => only.display().to_string(),
        files => format!("{} ({})", args.out.display(), units::plural(files.len(), "file")),
    };
    let (size, time) = (units::bytes(written.n_bytes), units::seconds(secs));
    note!("wrote {out}: {size} in {time}");
}
