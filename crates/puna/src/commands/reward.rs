//! `puna reward`: models that score answers.

use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
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
    after_help = "Prints a JSON object a line: the line of the dialogue in the file, the reward, and the score, which is its sigmoid.\n\n\
                  Example: puna reward score run/ dialogues.jsonl"
)]
struct ScoreArgs {
    /// A run of puna reward train, or one of its checkpoints
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// Dialogues, in any form of docs/data-forms.md
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to do with a dialogue that cannot be scored: end with its line, or tell it and go on
    #[arg(long, default_value = "refuse")]
    unfit: Unfit,
    #[command(flatten)]
    threads: ThreadsArg,
}

/// What is done with a dialogue that cannot be scored.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unfit {
    Refuse,
    Skip,
}

/// Trains or scores.
pub(crate) fn run(args: &RewardArgs) -> anyhow::Result<()> {
    match &args.command {
        RewardCommand::Train(args) => args.stage.run(|file, text, folder, options, cpu| {
            Ok(Box::new(Reward::new(file, text, folder, options, cpu)?))
        }),
        RewardCommand::Score(args) => score(args),
    }
}

/// Dialogues that are scored and printed together.
const CHUNK: usize = 256;

fn score(args: &ScoreArgs) -> anyhow::Result<()> {
    let cpu = Cpu::new(args.threads.n_threads()).context("PUNA_ISA")?;
    let scorer = Scorer::open(&args.model, &environment::open_options(None, None), &cpu)?;
    let on_problem = match args.unfit {
        Unfit::Refuse => OnProblem::Refuse,
        Unfit::Skip => OnProblem::Skip,
    };
    let (records, problems) = read_chat(&args.file, None, on_problem)?;
    // All are checked before the first is scored.
    let mut dialogues = Vec::new();
    for record in &records {
        let place = || format!("{}: line {}", args.file.display(), record.line);
        match (scorer.tokens(&record.messages), args.unfit) {
            (Ok(ids), _) => dialogues.push((record.line, ids)),
            (Err(e), Unfit::Refuse) => return Err(e).with_context(place),
            (Err(e), Unfit::Skip) => note!("left out: {}: {e}", place()),
        }
    }
    if problems.n_records() > 0 {
        note!("left out: {problems}");
    }
    let mut out = BufWriter::new(stdout().lock());
    for chunk in dialogues.chunks(CHUNK) {
        let texts: Vec<_> = chunk.iter().map(|(_, ids)| ids.clone()).collect();
        for ((line, _), score) in chunk.iter().zip(scorer.score(&cpu, &texts)?) {
            let object = json!({"line": line, "reward": score.0, "score": score.probability()});
            writeln!(out, "{object}")?;
        }
    }
    out.flush()?;
    Ok(())
}
