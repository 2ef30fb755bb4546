//! `puna data`: texts to training data, and what such data are.

mod build;
mod report;
mod show;
mod text;

use clap::{Args, Subcommand};

/// Make training data of texts, and tell what is in them
#[derive(Args)]
#[command(
    subcommand_value_name = "ACTION",
    subcommand_help_heading = "Actions",
    disable_help_subcommand = true
)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Build(build::BuildArgs),
    Show(show::ShowArgs),
    Text(text::TextArgs),
}

/// Builds or shows.
pub(crate) fn run(args: &DataArgs) -> anyhow::Result<()> {
    match &args.action {
        Action::Build(args) => build::run(args),
        Action::Show(args) => show::run(args),
        Action::Text(args) => text::run(args),
    }
}
