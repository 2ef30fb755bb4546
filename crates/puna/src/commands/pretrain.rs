//! `puna pretrain`: from training data to a base model.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use puna_data::Corpus;
use puna_kernels::Cpu;
use puna_recipes::{Pretrain, PretrainConfig};

use super::training::show_run;
use crate::args::ThreadsArg;
use crate::failure::Usage;
use crate::system;

/// Train a base model on data of puna data build
#[derive(Args)]
#[command(
    after_help = "The plan comes first: parameters, work, memory, steps, and at a measured speed time and energy. The run's \
                  folder then holds log.jsonl, a file for TensorBoard, and checkpoints that transformers and every command \
                  of puna can open. The weights are the same bytes for any number of threads, any micro_batch and any \
                  interruption. Ctrl-C saves and ends; --resume goes on; puna report draws the curves.\n\n\
                  Example: puna pretrain recipes/pretrain-stories.toml --data stories/ --out run/"
)]
pub(crate) struct PretrainArgs {
    /// What to train, on what, and how
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// The training data [default: the configuration's `data`]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder of the run [default: the configuration's `out`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the plan and stop there
    #[arg(long)]
    plan: bool,
    /// Go on with the run in the folder
    #[arg(long, conflicts_with = "plan")]
    resume: bool,
    /// Show curves and figures on the whole terminal instead of one line
    #[arg(long, conflicts_with = "plan")]
    dashboard: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

/// Plans, measures, trains.
pub(crate) fn run(args: &PretrainArgs) -> anyhow::Result<()> {
    let file = args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).with_context(|| file.clone())?;
    let config = PretrainConfig::parse(&file, &text)?;
    let beside = args.config.parent().unwrap_or(Path::new(""));
    let data = args.data.clone().unwrap_or_else(|| beside.join(&config.data));
    let corpus = Corpus::open(&data)?;
    let cpu = Cpu::new(args.threads.n_threads()).context("PUNA_ISA")?;
    let pretrain = Pretrain::new(&file, &text, &config, &corpus, &cpu)?;
    for line in pretrain.plan().lines() {
        note!("{line}");
    }
    if let Some(shortage) = system::available_memory().and_then(|free| pretrain.shortage(free)) {
        bail!(Usage(shortage));
    }
    // A run that goes on was measured when it began.
    if !args.resume {
        let speed = pretrain.measure()?;
        for line in pretrain.plan().costs(&speed) {
            note!("{line}");
        }
    }
    if args.plan {
        return Ok(());
    }
    let configured = config.out.as_ref().map(|out| beside.join(out));
    let missing = || Usage(format!("{file} has no `out`: give --out"));
    let out = args.out.clone().or(configured).ok_or_else(missing)?;
    let n_steps = pretrain.plan().n_steps();
    show_run(&out, n_steps, args.dashboard, args.resume, |stop, on| match args.resume {
        true => pretrain.resume(&out, stop, on),
        false => pretrain.begin(&out, &text, stop, on),
    })
}
