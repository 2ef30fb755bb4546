//! Platforms other than this machine's: checked by the compiler, or run under an emulator.

use crate::execute;
use anyhow::Result;
use std::process::Command;

/// Targets that must compile; `cargo check` needs no linker or system library of theirs.
const CHECKED: &[&str] = &[
    "x86_64-pc-windows-gnu",
    "x86_64-pc-windows-msvc",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "aarch64-linux-android",
    "aarch64-unknown-linux-gnu",
];

const NEON: &str = "aarch64-unknown-linux-gnu";

/// CPUs to emulate: with all extensions, with the dot product, and without it.
const NEON_CPUS: &[&str] = &["max", "neoverse-n1", "cortex-a72"];

/// Crates whose arithmetic depends on the instruction set.
const NUMERIC: &[&str] = &["puna-core", "puna-kernels", "puna-model"];

/// `cargo check` of everything that ships, for each target; a warning is an error, as it is at home. Nothing is linked,
/// so a compiler and an archiver that do nothing will do for the C and assembly of `ring`.
pub(crate) fn cross() -> Result<()> {
    execute(Command::new("rustup").args(["target", "add"]).args(CHECKED))?;
    for target in CHECKED {
        let check = ["check", "--workspace", "--exclude", "xtask", "--target", target];
        execute(
            Command::new("cargo")
                .args(check)
                .env("RUSTFLAGS", "-D warnings")
                .env("TARGET_CC", "true")
                .env("TARGET_AR", "true"),
        )?;
    }
    Ok(())
}

/// Tests of the numeric crates for aarch64, on each emulated CPU. Needs Debian's
/// `gcc-aarch64-linux-gnu` (linker), `libc6-dev-arm64-cross` (C library) and `qemu-user-static`.
pub(crate) fn neon() -> Result<()> {
    execute(Command::new("rustup").args(["target", "add", NEON]))?;
    for cpu in NEON_CPUS {
        let runner = format!("qemu-aarch64-static -cpu {cpu} -L /usr/aarch64-linux-gnu");
        let packages = NUMERIC.iter().flat_map(|name| ["--package", name]);
        execute(
            Command::new("cargo")
                .args(["test", "--lib", "--tests", "--target", NEON])
                .args(packages)
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner),
        )?;
    }
    Ok(())
}
