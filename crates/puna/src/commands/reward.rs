//! `puna reward`: models that score answers.

use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use puna_data::chat::{OnProblem, read_chat};
use puna_kernels::Cpu;
use puna_recipes::{Reward, Scorer};
use serde_json::json;

use super::training::StageArgs;
use crate::args::ThreadsArg;
use crate::environment;

/// Train a model that scores answers, or score some
#[derive(Args)]
pub(crate) struct RewardArgs {
    #[command(subcommand)]
    command: RewardCommand,
}

#[derive(Subcommand)]
enum RewardCommand {
    Train(TrainArgs),
    Score(ScoreArgs),
}

/// Train a reward model on pairs of answers
#[derive(Args)]
#[command(
    after_help = "The configuration names the model to begin with, files of pairs (docs/data-forms.md), margins and the safety loss. \
                  Checkpoints are folders of LlamaForSequenceClassification with one label, or with [lora] adapters for it in PEFT's form.\n\n\
                  Example: puna reward train reward.toml --out run/"
)]
struct TrainArgs {
    #[command(flatten)]
    stage: StageArgs,
}

/// Score dialogues that end with an answer
#[derive(Args)]
#[command(
    after_help = "Prints a JSON object a line: the number of the dialogue in the file, the reward, and the score, which is its sigmoid.\n\n\
                  Example: puna reward score run/checkpoints/step-00000100 dialogues.jsonl"
)]
struct ScoreArgs {
    /// A checkpoint of puna reward train
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// Dialogues, in any form of docs/data-forms.md
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    threads: ThreadsArg,
}

/// Trains or scores.
pub(crate) fn run(args: &RewardArgs) -> anyhow::Result<()> {
    match &args.command {
        RewardCommand::Train(args) => args.stage.run(|file, text, folder, options, cpu| {
            Ok(Box::new(Reward::new(file, text, folder, options, cpu)?))
        }),
        RewardCommand::Score(args) => score(&args.model, &args.file, args.threads.n_threads()),
    }
}

/// Dialogues that are scored and printed together.
const CHUNK: usize = 256;

fn score(model: &Path, file: &Path, n_threads: usize) -> anyhow::Result<()> {
    let cpu = Cpu::new(n_threads).context("PUNA_ISA")?;
    let scorer = Scorer::open(model, &environment::open_options(None, None), &cpu)?;
    let (records, _) = read_chat(file, None, OnProblem::Refuse)?;
    let mut out = BufWriter::new(stdout().lock());
    for chunk in records.chunks(CHUNK) {
        let dialogues: Vec<_> = chunk.iter().map(|record| record.messages.clone()).collect();
        let scores =
            scorer.score_messages(&cpu, &dialogues).with_context(|| file.display().to_string())?;
        for (record, score) in chunk.iter().zip(scores) {
            let object =
                json!({"line": record.line, "reward": score.0, "score": score.probability()});
            writeln!(out, "{object}")?;
        }
    }
    out.flush()?;
    Ok(())
}
