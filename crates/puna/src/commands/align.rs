//! `puna align`: stages of alignment as one plan.

use clap::Args;
use puna_recipes::Align;

use super::training::StageArgs;

/// Run stages of alignment as one plan
#[derive(Args)]
#[command(
    after_help = "The plan names stages in order, each with a recipe (sft, gatt, reward, reject, ppo, distill, dpo) and its configuration, \
                  in which \"@NAME\" is what an earlier stage made. A plan that was stopped goes on with --resume where it was. At the \
                  end models are compared on the same prompts.\n\n\
                  Example: puna align plan.toml --out run/"
)]
pub(crate) struct AlignArgs {
    #[command(flatten)]
    stage: StageArgs,
}

/// Plans and runs.
pub(crate) fn run(args: &AlignArgs) -> anyhow::Result<()> {
    args.stage.run(|file, text, folder, options, cpu| {
        Ok(Box::new(Align::new(file, text, folder, options, cpu)?))
    })
}
