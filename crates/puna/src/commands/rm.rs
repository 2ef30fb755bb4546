//! `puna rm`: models out of the store.

use clap::Args;
use puna_hub::store::Removed;

use crate::{environment, units};

/// Remove pulled models
#[derive(Args)]
#[command(after_help = "Example: puna rm TheBloke/Llama-2-7B-GGUF:Q4_K_M")]
pub(crate) struct RmArgs {
    /// Names as `puna list` shows them
    #[arg(value_name = "NAME", required_unless_present = "unfinished")]
    names: Vec<String>,
    /// Remove what interrupted pulls left, too
    #[arg(long)]
    unfinished: bool,
}

/// Removes all that are named, or, if one is not there, none.
pub(crate) fn run(args: &RmArgs) -> anyhow::Result<()> {
    let store = environment::store_or_fail()?;
    let found = args.names.iter().map(|name| store.find(name)).collect::<Result<Vec<_>, _>>()?;
    for manifest in found {
        let Removed { freed, .. } = store.remove(&manifest.model)?;
        note!("removed {}: {} freed", manifest.model, units::bytes(freed));
    }
    if args.unfinished {
        let Removed { freed, n_files } = store.remove_unfinished()?;
        let files = units::plural(n_files, "unfinished file");
        note!("removed {files}: {} freed", units::bytes(freed));
    }
    Ok(())
}
