//! `puna ppo`: reinforcement by reward models.

use clap::Args;
use puna_recipes::Ppo;

use super::training::StageArgs;

/// Tune a model by reinforcement, on what reward models like
#[derive(Args)]
#[command(
    after_help = "The model answers prompts, reward models of puna reward train judge, and what they like becomes likelier. The best \
                        checkpoint on held-out prompts is kept beside the last.\n\n\
                        Example: puna ppo ppo.toml --out run/"
)]
pub(crate) struct PpoArgs {
    #[command(flatten)]
    stage: StageArgs,
}

/// Plans and runs.
pub(crate) fn run(args: &PpoArgs) -> anyhow::Result<()> {
    args.stage.run(|file, text, folder, options, cpu| {
        Ok(Box::new(Ppo::new(file, text, folder, options, cpu)?))
    })
}
