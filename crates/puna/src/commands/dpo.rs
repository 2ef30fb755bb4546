//! `puna dpo`: a model from pairs of answers.

use clap::Args;
use puna_recipes::Dpo;

use super::training::StageArgs;

/// Tune a model on pairs of answers, without a reward model
#[derive(Args)]
#[command(
    after_help = "The configuration names the model, files of pairs (docs/data-forms.md), and beta. The run's folder is that of puna sft.\n\n\
                        Example: puna dpo dpo.toml --out run/"
)]
pub(crate) struct DpoArgs {
    #[command(flatten)]
    stage: StageArgs,
}

/// Plans and runs.
pub(crate) fn run(args: &DpoArgs) -> anyhow::Result<()> {
    args.stage.run(|file, text, folder, options, cpu| {
        Ok(Box::new(Dpo::new(file, text, folder, options, cpu)?))
    })
}
