//! The project's own checks and chores. `cargo xtask` lists them.

mod emulate;
mod peers;
mod platforms;
mod stories;
mod tidy;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
usage: cargo xtask COMMAND

  tidy        check the structure of the tree: dependencies, sizes, words, checksums
  checksums   write testdata/CHECKSUMS anew
  notices     write THIRD_PARTY.md anew
  cross       cargo check for Windows, macOS, Android and aarch64 Linux
  neon        run the tests of the numeric crates for aarch64 under qemu
  avx512      run the tests of the kernels for x86-64 with AVX-512 under Bochs
  golden      make testdata anew with the peers from PyPI and compare
  peers       let the peers from PyPI load and answer with what Puna converts
  clients     let the clients of the server's protocols talk to it
  bench       run the benchmarks that compare Puna with its peers
  stories     make the data of the demonstration of alignment, and judge answers
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy::run(),
        ["checksums"] => tidy::checksums::write(),
        ["notices"] => tidy::licences::write(),
        ["cross"] => platforms::cross(),
        ["neon"] => platforms::neon(),
        ["avx512"] => emulate::x86(),
        ["golden"] => peers::golden(),
        ["peers"] => peers::peers(),
        ["clients"] => peers::clients(),
        ["bench"] => peers::bench(),
        ["stories", ref args @ ..] => stories::run(args),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's folder.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("xtask lies in the workspace").to_path_buf()
}

/// Runs a command in the workspace's folder, showing it first.
fn execute(command: &mut Command) -> Result<()> {
    command.current_dir(root());
    let line: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect();
    let line = line.join(" ");
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}
