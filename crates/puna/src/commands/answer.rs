//! `puna answer`: answers to a file of prompts.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::ProgressBar;
use puna_kernels::Cpu;
use puna_recipes::AnswerJob;

use crate::args::{ThreadsArg, count};
use crate::claim::Claim;
use crate::environment;
use crate::failure::Interrupted;
use crate::interrupt::Interrupt;
use crate::sampling::SamplingArgs;

/// Answer a file of prompts, many at once
#[derive(Args)]
#[command(
    after_help = "Prompts are JSONL ({\"prompt\": \"...\"} or a list of messages; docs/data-forms.md). Each record is written with a field \
                  `answers` added. An output file that is there is gone on with.\n\n\
                  Example: puna answer MODEL --prompts prompts.jsonl --out answers.jsonl -k 4"
)]
pub(crate) struct AnswerArgs {
    /// A file, a folder or a name
    #[arg(value_name = "MODEL")]
    model: String,
    /// The prompts
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,
    /// Where to write prompts and answers
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Answers to each prompt
    #[arg(short = 'k', long, value_name = "N", default_value = "1", value_parser = count(1))]
    n_answers: usize,
    /// Most tokens of an answer
    #[arg(short = 'n', long, value_name = "N", default_value = "256", value_parser = count(1))]
    n_tokens: usize,
    /// Score answers by a reward model of puna reward train: each gets a field `score`
    #[arg(long, value_name = "DIR")]
    helpfulness: Option<PathBuf>,
    /// And by one on safety, which decides where a prompt's record says `is_safety` or an answer is unsafe
    #[arg(long, value_name = "DIR", requires = "helpfulness")]
    safety: Option<PathBuf>,
    /// Add the adapters in DIR, as PEFT and puna sft write them
    #[arg(long, value_name = "DIR")]
    lora: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    threads: ThreadsArg,
}

/// Answers what has no answers yet.
pub(crate) fn run(args: &AnswerArgs) -> anyhow::Result<()> {
    let cpu = Cpu::new(args.threads.n_threads()).context("PUNA_ISA")?;
    let options = environment::open_options(None, args.lora.as_ref());
    let hints = puna_hub::open_checkpoint(&args.model, &options)?.sampling;
    let job = AnswerJob {
        model: &args.model,
        prompts: &args.prompts,
        helpfulness: args.helpfulness.as_deref(),
        safety: args.safety.as_deref(),
        out: &args.out,
        n_answers: args.n_answers,
        max_new_tokens: args.n_tokens,
        sampling: args.sampling.resolve(&hints),
    };
    let _claim = Claim::of(&args.out)?;
    let interrupt = Interrupt::install()?;
    let bar = ProgressBar::new(0);
    let done =
        puna_recipes::answer(&cpu, &options, &job, &|| interrupt.is_set(), &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })?;
    bar.finish_and_clear();
    if !done {
        bail!(Interrupted);
    }
    note!("done: {}", args.out.display());
    Ok(())
}
