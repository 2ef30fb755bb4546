//! Instruction sets that this machine may lack, under Bochs: an emulator of a whole PC, which boots Linux with
//! the kernels' unit tests as its first and only process.
//!
//! Linux passes what stands behind `--` on its command line to that process. When it ends, so does the
//! kernel, which says with what status, restarts by a triple fault, and Bochs leaves at that.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::Message;

use crate::{execute, root};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// A CPU that Bochs emulates.
struct Model {
    name: &'static str,
    /// Features it must do without: the kernel does not start with Bochs' tiles, and Bochs 3.0 reads the operand in
    /// memory of `vdpbf16ps` from the wrong place where its displacement is one byte.
    without: &'static str,
    /// The most capable of our instruction sets that it has. All plainer ones of x86-64 are tested with it.
    isa: &'static str,
}

/// The most capable first; the first that Bochs knows is emulated. The one has AVX-VNNI too and needs Bochs 3, the
/// other is known to 2.7.
const MODELS: [Model; 2] = [
    Model {
        name: "sapphire_rapids",
        without: "amx amx_int8 amx_bf16 avx512bf16",
        isa: "avx512vnni",
    },
    Model { name: "corei7_icelake_u", without: "", isa: "avx512vnni" },
];

/// Tests of code that depends on the instruction set. The pool's are left out: its threads would wait for each
/// other on one emulated CPU.
const TESTS: [&str; 9] = [
    "attn::",
    "blocks::",
    "elementwise::",
    "isa::",
    "math::",
    "matmul::",
    "peak::",
    "quantize::",
    "rope::",
];

/// What the kernel says when the tests have ended; a status follows.
const END: &str = "Attempted to kill init! exitcode=";

/// Runs the tests of `puna-kernels` on the most capable CPU that Bochs knows. Needs Debian's `bochs`, `isolinux`,
/// `syslinux-common` and `xorriso`, and fetches a kernel of Debian's.
pub(crate) fn x86() -> Result<()> {
    let model = model()?;
    let work = root().join("target").join("emulate");
    let disc = work.join("disc");
    fs::create_dir_all(&disc).with_context(|| format!("cannot create {}", disc.display()))?;
    let kernel = kernel(&work)?;
    let files = [
        (kernel.as_path(), "vmlinuz"),
        (Path::new("/usr/lib/ISOLINUX/isolinux.bin"), "isolinux.bin"),
        (Path::new("/usr/lib/syslinux/modules/bios/ldlinux.c32"), "ldlinux.c32"),
    ];
    for (from, name) in files {
        fs::copy(from, disc.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let tests = tests()?;
    let tests = fs::read(&tests).with_context(|| format!("cannot read {}", tests.display()))?;
    write(&disc.join("initrd"), &archive("init", &tests))?;
    write(&disc.join("isolinux.cfg"), boot_config(&model).as_bytes())?;
    execute(
        Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-o"])
            .arg(work.join("disc.iso"))
            .args(["-b", "isolinux.bin", "-c", "boot.cat"])
            .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
            .arg(&disc),
    )?;
    write(&work.join("bochsrc"), bochs_config(&model).as_bytes())?;
    // Debian's Bochs has its debugger, which waits for the command to continue.
    write(&work.join("start"), b"continue\n")?;
    eprintln!("{} with {} and what is plainer:", model.name, model.isa);
    watch(&work)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// The most capable model that the installed Bochs knows.
fn model() -> Result<Model> {
    let help = Command::new("bochs").args(["--help", "cpu"]).stdin(Stdio::null()).output();
    let help = help.context("cannot run bochs")?;
    let known = [help.stdout, help.stderr].concat();
    let known = String::from_utf8_lossy(&known);
    let found = MODELS.into_iter().find(|model| known.lines().any(|line| line == model.name));
    found.context("this Bochs knows no CPU with AVX-512, version 2.7 or later is needed")
}

/// The kernel of Debian's that is made for virtual machines, fetched into `work` unless it is there.
fn kernel(work: &Path) -> Result<PathBuf> {
    let boot = work.join("kernel").join("boot");
    if let Some(kernel) = kernel_in(&boot) {
        return Ok(kernel);
    }
    let depends = Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output();
    let depends = depends.context("cannot run apt-cache")?.stdout;
    let depends = String::from_utf8_lossy(&depends);
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .context("apt knows no linux-image-cloud-amd64")?;
    let script = format!(
        "cd {} && apt-get download {package} && dpkg -x {package}_*.deb kernel",
        work.display()
    );
    execute(Command::new("sh").args(["-c", &script]))?;
    kernel_in(&boot).with_context(|| format!("no kernel in {}", boot.display()))
}

fn kernel_in(boot: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(boot).ok()?.filter_map(io::Result::ok).map(|entry| entry.path());
    files.find(|path| path.to_string_lossy().contains("vmlinuz"))
}

/// Builds the unit tests of `puna-kernels` as one static program.
fn tests() -> Result<PathBuf> {
    execute(Command::new("rustup").args(["target", "add", TARGET]))?;
    let mut cargo = Command::new("cargo")
        .args(["test", "--package", "puna-kernels", "--lib", "--no-run", "--target", TARGET])
        .args(["--config", "profile.dev.strip=true", "--message-format", "json-render-diagnostics"])
        .current_dir(root())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = BufReader::new(cargo.stdout.take().expect("a pipe was asked for"));
    let mut tests = None;
    for message in Message::parse_stream(output) {
        if let Message::CompilerArtifact(artifact) = message.context("cannot read from cargo")? {
            tests = artifact.executable.or(tests);
        }
    }
    ensure!(cargo.wait()?.success(), "cargo cannot build the tests");
    Ok(tests.context("cargo built no tests")?.into())
}

/// A file system for Linux to start from with one program in it, in the format that `cpio` calls `newc`: a header
/// of numbers with eight hexadecimal digits, the name and the contents, each filled up to four bytes.
fn archive(name: &str, program: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, contents) in [(name, 0o100_755, program), ("TRAILER!!!", 0, &[][..])] {
        archive.extend(b"070701");
        // inode, mode, owner, group, links, time, size, four devices, length of the name, checksum
        let (size, name_size) = (contents.len(), name.len() + 1);
        for number in [1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            archive.extend(format!("{number:08x}").bytes());
        }
        for part in [&[name.as_bytes(), &[0]].concat(), contents] {
            archive.extend(part);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    }
    archive
}

/// What ISOLINUX starts. `PUNA_ISA` reaches the tests and makes them fail where the CPU lacks the set. They say at once
/// why they fail: what stands in the line's buffer when the kernel ends is lost.
///
/// The kernel must do without what Bochs gets wrong. Bochs 2.7 has protection keys without a place in XSAVE, and tells
/// a wrong size of its compacted form, at either of which the kernel gives up AVX; Bochs 3 gives up itself over
/// five-level page tables. Both have fast short `rep movsb` (FSRM) without fast long ones, at which Linux 6.1's
/// `memmove` checks no length and overwrites its page tables.
fn boot_config(model: &Model) -> String {
    let kernel = "console=ttyS0,115200 quiet nosmp nokaslr no5lvl mitigations=off tsc=reliable \
                  clearcpuid=pku,fsrm,xsavec,xsaves panic=-1 reboot=triple";
    let tests = TESTS.join(" ");
    format!(
        "default tests\nlabel tests\nkernel vmlinuz\n\
         append initrd=initrd {kernel} PUNA_ISA={} -- --nocapture --test-threads=1 {tests}\n",
        model.isa
    )
}

/// A PC without sound or screen (nobody looks at what it offers to VNC), whose serial line is Bochs' output.
fn bochs_config(model: &Model) -> String {
    let without = match model.without {
        "" => String::new(),
        without => format!("exclude_features=\"{without}\", "),
    };
    format!(
        "cpu: model={}, {without}ips=100000000, reset_on_triple_fault=0\n\
         memory: guest=512, host=512\n\
         ata0-master: type=cdrom, path=disc.iso, status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=file, dev=/dev/stdout\n\
         display_library: rfb, options=\"timeout=0\"\n\
         plugin_ctrl: speaker=0\n\
         log: bochs.log\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=ignore\n\
         debug: action=ignore\n",
        model.name
    )
}

/// Starts Bochs, shows what its serial line says, and judges by it: Bochs' own status says nothing.
fn watch(work: &Path) -> Result<()> {
    let mut bochs = Command::new("timeout")
        .args(["2h", "bochs", "-f", "bochsrc", "-rc", "start"])
        .current_dir(work)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(work.join("bochs.err"))?)
        .spawn()
        .context("cannot run bochs")?;
    let mut status = None;
    for line in BufReader::new(bochs.stdout.take().expect("a pipe was asked for")).split(b'\n') {
        let line = line.context("cannot read from bochs")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        eprintln!("  {line}");
        if let Some((_, rest)) = line.split_once(END) {
            status = Some(rest.to_owned());
        }
    }
    bochs.wait()?;
    match status.as_deref() {
        Some("0x00000000") => Ok(()),
        Some(status) => bail!("the tests ended with status {status}"),
        None => bail!("the tests did not end, see {}", work.join("bochs.log").display()),
    }
}
