//! `puna reject`: rejection sampling.

use clap::Args;
use puna_recipes::Reject;

use super::training::StageArgs;

/// Fine-tune a model on the best of many answers
#[derive(Args)]
#[command(
    after_help = "The model answers every prompt many times, reward models of puna reward train choose, and the best answers are trained on.\n\n\
                        Example: puna reject reject.toml --out run/"
)]
pub(crate) struct RejectArgs {
    #[command(flatten)]
    stage: StageArgs,
}

/// Plans and runs.
pub(crate) fn run(args: &RejectArgs) -> anyhow::Result<()> {
    args.stage.run(|file, text, folder, options, cpu| {
        Ok(Box::new(Reject::new(file, text, folder, options, cpu)?))
    })
}
