//! `puna distill`: safety context distillation.

use clap::Args;
use puna_recipes::Distill;

use super::training::StageArgs;

/// Teach a model what a safety preprompt makes it say
#[derive(Args)]
#[command(
    after_help = "The model answers prompts with a preprompt and without; answers that the safety model scores higher with it are learned \
                        without it.\n\n\
                        Example: puna distill distill.toml --out run/"
)]
pub(crate) struct DistillArgs {
    #[command(flatten)]
    stage: StageArgs,
}

/// Plans and runs.
pub(crate) fn run(args: &DistillArgs) -> anyhow::Result<()> {
    args.stage.run(|file, text, folder, options, cpu| {
        Ok(Box::new(Distill::new(file, text, folder, options, cpu)?))
    })
}
