//! `puna completions`: a script for the shell.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

/// Print a completion script for your shell
#[derive(Args)]
#[command(
    after_help = "Example: puna completions bash > ~/.local/share/bash-completion/completions/puna"
)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Writes the script to stdout.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    // Made in memory first: the generator panics when its writer fails, and a pipe may be closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::args::command(), "puna", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}
