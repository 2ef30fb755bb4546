//! `puna pretrain`: from training data to a base model.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use puna_data::Corpus;
use puna_kernels::Cpu;
use puna_recipes::{Ending, Pretrain, PretrainConfig, RecipeError, Report, StepRecord};

use crate::args::ThreadsArg;
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::{system, units};

/// Train a base model on data of puna data build
#[derive(Args)]
#[command(
    after_help = "The plan comes first: parameters, work, memory, steps, and at a measured speed time and energy. The run's \
                  folder then holds log.jsonl, a file for TensorBoard, and checkpoints that transformers and every command \
                  of puna can open. The weights are the same bytes for any number of threads, any micro_batch and any \
                  interruption. Ctrl-C saves and ends; --resume goes on.\n\n\
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
    let interrupt = Interrupt::install()?;
    let stop = || interrupt.is_set();
    let mut line = Line::new();
    let mut on = |report: Report<'_>| line.tell(&report);
    let ending = match args.resume {
        true => pretrain.resume(&out, &stop, &mut on),
        false => pretrain.begin(&out, &text, &stop, &mut on),
    };
    line.bar.finish_and_clear();
    match ending? {
        Ending::Complete => note!("done: {}", out.display()),
        Ending::Stopped => {
            note!("saved in {}; --resume goes on", out.display());
            bail!(Interrupted);
        }
        Ending::Fault(fault) => bail!(RecipeError::Check(format!(
            "{fault}; what was before it is saved in {}, and the setting guard.on_fault says what else may follow",
            out.display()
        ))),
    }
    Ok(())
}

/// One live line; what is worth keeping stays above it.
struct Line {
    bar: ProgressBar,
}

impl Line {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{msg}").expect("the template is well-formed");
        Self { bar: ProgressBar::new_spinner().with_style(style) }
    }

    fn tell(&mut self, report: &Report<'_>) {
        match report {
            Report::Step { record, eta_secs } => self.step(record, *eta_secs),
            Report::Checkpoint { step } => self.keep(&format!("step {step}: saved")),
            Report::Note(note) => self.keep(&format!("note: {note}")),
        }
    }

    fn step(&mut self, record: &StepRecord, eta_secs: f64) {
        if let (Some(loss), Some(norm)) = (record.loss, record.grad_norm) {
            self.bar.set_message(format!(
                "step {}: loss {loss:.4}, rate {:.2e}, gradient {norm:.3}, {:.0} tokens/s, {:.0} % of the peak, {} left",
                record.step,
                record.lr,
                record.tokens_per_sec,
                100.0 * record.peak_share,
                units::seconds(eta_secs)
            ));
        }
        if !record.bits_per_byte.is_empty() {
            let of = |(source, bits): &(String, f64)| format!("{source} {bits:.3}");
            let sources: Vec<String> = record.bits_per_byte.iter().map(of).collect();
            let loss = record.loss.unwrap_or(f64::NAN);
            self.keep(&format!(
                "step {}: loss {loss:.4}, held-out bits per byte: {}",
                record.step,
                sources.join(", ")
            ));
        }
        for sample in &record.samples {
            self.keep(&format!("  {}", sample.replace('\n', "\n  ")));
        }
    }

    /// A line that stays.
    fn keep(&self, text: &str) {
        self.bar.suspend(|| note!("{text}"));
    }
}
