//! `puna sft`: from a base model to one that answers.

use std::io::{Write, stdout};

use clap::Args;
use puna_recipes::Sft;

use super::training::StageArgs;
use crate::args::count;
use crate::environment;

/// Fine-tune a model on conversations
#[derive(Args)]
#[command(
    after_help = "Conversations are JSONL files of messages ({\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, ...]}), of Alpaca's or \
                  ShareGPT's form, or Parquet. The loss counts the assistant's tokens alone. The run's folder holds log.jsonl, a \
                  file for TensorBoard, and checkpoints that transformers and every command of puna can open; with [lora] in the \
                  configuration, adapters in the form of PEFT, which name the model they are added to and open as it does.\n\n\
                  Example: puna sft recipes/sft-stories.toml --audit 2"
)]
pub(crate) struct SftArgs {
    #[command(flatten)]
    stage: StageArgs,
    /// Print N conversations as training sees them, with what is learned between ⟦ and ⟧, and stop there
    #[arg(long, value_name = "N", value_parser = count(1), conflicts_with_all = ["resume", "dashboard"])]
    audit: Option<usize>,
}

/// Plans and trains, or shows what would be trained.
pub(crate) fn run(args: &SftArgs) -> anyhow::Result<()> {
    let (file, text) = args.stage.read()?;
    let cpu = args.stage.cpu()?;
    let options = environment::open_options(None, None);
    let sft = Sft::new(&file, &text, args.stage.folder(), &options, &cpu)?;
    match args.audit {
        None => args.stage.drive(&sft, &text),
        Some(n) => {
            let mut out = stdout().lock();
            for conversation in sft.audit(n) {
                writeln!(out, "{conversation}\n")?;
            }
            Ok(())
        }
    }
}
