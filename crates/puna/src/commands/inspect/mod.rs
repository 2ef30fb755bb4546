//! `puna inspect`: what a model is, and what it takes to run it.

mod report;

use std::io::{self, BufWriter, Write};

use anyhow::bail;
use clap::Args;
use puna_core::{TensorSource, WeightId};
use puna_formats::Checkpoint;
use puna_hub::{Finding, HubError, check_weights, licence_of, open_checkpoint, open_tokenizer};
use puna_model::MemoryPlan;

use crate::args::{ModelArgs, ThreadsArg};
use crate::failure::Interrupted;
use crate::interrupt::Interrupt;
use crate::runtime::BATCH_TOKENS;
use crate::{environment, progress};
use report::Report;

/// Tell what a model is, its parameters, types and memory needed
#[derive(Args)]
#[command(after_help = "Example: puna inspect model.gguf --ctx 2048 --check")]
pub(crate) struct InspectArgs {
    /// A file, a folder or a name
    model: String,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Read every weight and look for NaN, infinities and tensors of zeros
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    options: ModelArgs,
    // Taken as by every command with a MODEL; describing one needs no threads.
    #[command(flatten)]
    _threads: ThreadsArg,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Reads the files' descriptions, and the weights only for `--check`.
pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let options =
        environment::open_options(args.options.tokenizer.as_ref(), args.options.lora.as_ref());
    let checkpoint = open_checkpoint(&args.model, &options)?;
    let licence = licence_of(&args.model, &checkpoint, &options)?;
    let tokenizer = open_tokenizer(&args.model, &options);
    if args.options.tokenizer.is_some() {
        // A tokenizer that was asked for must be there; otherwise its absence is a fact to report.
        tokenizer.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    let source = &*checkpoint.source;
    let ctx = args.options.ctx.unwrap_or(source.config().max_seq_len);
    let findings = if args.check { Some(check(source)?) } else { None };
    let report = Report {
        model: &args.model,
        checkpoint: &checkpoint,
        tokenizer: &tokenizer,
        licence: licence.as_ref(),
        ctx,
        kv_type: args.options.kv_type,
        plan: MemoryPlan::new(source, args.options.kv_type, ctx, BATCH_TOKENS),
        with_tensors: args.tensors,
        findings: findings.as_deref(),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        writeln!(out, "{}", report.to_json())?;
    } else {
        report.write(&mut out)?;
    }
    out.flush()?;
    match findings.as_deref() {
        Some([_, ..]) => bail!("{}: some weights are damaged", args.model),
        _ => Ok(()),
    }
}

fn check(source: &dyn TensorSource) -> anyhow::Result<Vec<Finding>> {
    let interrupt = Interrupt::install()?;
    let bar = progress::over_bytes("checking", n_bytes(source));
    let findings = check_weights(source, &mut |done| {
        bar.set_position(done);
        !interrupt.is_set()
    });
    bar.finish_and_clear();
    match findings {
        Err(HubError::Stopped) => bail!(Interrupted),
        findings => Ok(findings?),
    }
}

/// Stored bytes of all tensors of the network.
fn n_bytes(source: &dyn TensorSource) -> u64 {
    tensors(source).map(|(_, info)| info.n_bytes().unwrap_or(0) as u64).sum()
}

/// Every tensor of the network that the checkpoint has.
fn tensors(
    source: &dyn TensorSource,
) -> impl Iterator<Item = (WeightId, puna_core::TensorInfo)> + '_ {
    WeightId::all(source.config()).filter_map(|id| Some((id, source.info(id)?)))
}

/// How many files, and their bytes together; nothing for a built-in model.
fn files_size(checkpoint: &Checkpoint) -> Option<(usize, u64)> {
    let sizes = checkpoint.files.iter().map(|f| std::fs::metadata(f).map(|m| m.len()));
    let total: u64 = sizes.collect::<Result<Vec<_>, _>>().ok()?.into_iter().sum();
    (!checkpoint.files.is_empty()).then_some((checkpoint.files.len(), total))
}
