//! `puna tokenizer`: making tokenizers; `puna tokenize` uses them.

mod text;
mod train;

use clap::{Args, Subcommand};

/// Train a vocabulary with Llama 2's settings
#[derive(Args)]
#[command(
    subcommand_value_name = "ACTION",
    subcommand_help_heading = "Actions",
    disable_help_subcommand = true
)]
pub(crate) struct TokenizerArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Train(train::TrainArgs),
}

/// Trains.
pub(crate) fn run(args: &TokenizerArgs) -> anyhow::Result<()> {
    match &args.action {
        Action::Train(args) => train::run(args),
    }
}
