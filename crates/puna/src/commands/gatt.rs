//! `puna gatt`: Ghost Attention.

use clap::Args;
use puna_recipes::Gatt;

use super::training::StageArgs;

/// Teach a model to keep an instruction in mind
#[derive(Args)]
#[command(
    after_help = "The model answers with an instruction in every turn, and learns its last answers with the instruction in the first turn \
                        alone. Recall of the instruction at turns 2, 4, 6 and 20 is measured before and after.\n\n\
                        Example: puna gatt gatt.toml --out run/"
)]
pub(crate) struct GattArgs {
    #[command(flatten)]
    stage: StageArgs,
}

/// Plans and runs.
pub(crate) fn run(args: &GattArgs) -> anyhow::Result<()> {
    args.stage.run(|file, text, folder, options, cpu| {
        Ok(Box::new(Gatt::new(file, text, folder, options, cpu)?))
    })
}
