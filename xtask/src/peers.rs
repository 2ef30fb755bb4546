//! Independent programs from PyPI, in a virtual environment under `target`.

use crate::{execute, root};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPTS: &str = "testdata/scripts";

/// Makes the golden files anew in a copy of the tree's data, and compares them with the committed ones.
pub(crate) fn golden() -> Result<()> {
    let python = python()?;
    let copy = root().join("target").join("golden");
    if copy.exists() {
        std::fs::remove_dir_all(&copy)
            .with_context(|| format!("cannot remove {}", copy.display()))?;
    }
    std::fs::create_dir_all(&copy).with_context(|| format!("cannot create {}", copy.display()))?;
    execute(Command::new("cp").args(["-r", "testdata", "models"]).arg(&copy))?;
    for script in golden_scripts(&copy)? {
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let args = match (name.as_str(), shared_data()) {
            ("tokenizer_golden.py", Some(data)) => vec![data],
            ("llama_cpp_golden.py", Some(data)) => vec![data.join("weights")],
            _ => Vec::new(),
        };
        execute(Command::new(&python).arg(script).args(args))?;
    }
    let compare = root().join(SCRIPTS).join("compare.py");
    execute(Command::new(&python).arg(compare).arg("testdata").arg(copy.join("testdata")))
}

/// Runs the scripts in which peers judge what the program wrote, on the program as it is now.
pub(crate) fn peers() -> Result<()> {
    let python = python()?;
    execute(Command::new("cargo").args(["build", "--release"]))?;
    let program = root().join("target").join("release").join("puna");
    let scripts = root().join(SCRIPTS);
    let weights = shared_data().map(|data| data.join("weights"));
    execute(
        Command::new(&python).arg(scripts.join("convert_peers.py")).arg(&program).args(weights),
    )?;
    execute(Command::new(&python).arg(scripts.join("training_peers.py")).arg(&program))?;
    execute(Command::new(&python).arg(scripts.join("tuned_peers.py")).arg(&program))?;
    execute(Command::new(&python).arg(scripts.join("perplexity_peers.py")).arg(&program))
}

/// Runs the real clients of the server's protocols against the program as it is now: those of `requirements.txt` and
/// `package.json` beside the script.
pub(crate) fn clients() -> Result<()> {
    let folder = root().join("crates").join("puna-server").join("tests").join("clients");
    let venv = root().join("target").join("clients");
    let python = venv.join("bin").join("python");
    if !python.exists() {
        execute(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let requirements = folder.join("requirements.txt");
    execute(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements),
    )?;
    let node = venv.join("node");
    std::fs::create_dir_all(&node).with_context(|| format!("cannot create {}", node.display()))?;
    execute(Command::new("cp").arg(folder.join("package.json")).arg(&node))?;
    execute(
        Command::new("npm").args(["install", "--silent", "--no-audit", "--prefix"]).arg(&node),
    )?;
    execute(Command::new("cargo").args(["build", "--release"]))?;
    let program = root().join("target").join("release").join("puna");
    execute(Command::new(&python).arg(folder.join("clients.py")).arg(program).arg(node))
}

/// Runs the scripts of `bench` on the program as it is now: the whole of their work, but not the whole table of
/// `beside_llama_cpp.py`, whose large models take most of an hour.
pub(crate) fn bench() -> Result<()> {
    let python = python()?;
    execute(Command::new("cargo").args(["build", "--release"]))?;
    match shared_data() {
        Some(data) => execute(
            Command::new(&python)
                .arg("bench/tokenizer.py")
                .arg(data.join("tokenizer").join("llama2").join("tokenizer.model"))
                .arg(data.join("text").join("novels_eltec.txt.zst")),
        )?,
        None => eprintln!("bench/tokenizer.py skipped: shared data not present"),
    }
    if let Some(data) = shared_data() {
        let text = data.join("text").join("fairytales.txt.zst");
        let script = Path::new("bench").join("tokenizer_train.py");
        execute(Command::new(&python).arg(script).arg(text).args(["--vocab", "8000"]))?;
    }
    execute(Command::new(&python).arg("bench/quantize.py"))?;
    // Its peer is built by hand.
    execute(Command::new(&python).args(["bench/serve.py", "--rounds=1", "--requests=2000"]))?;
    execute(Command::new(&python).args([
        "bench/beside_llama_cpp.py",
        "--shapes=15m,tinyllama-1.1b",
        "--types=q8_0,q4_0",
        "--rounds=1",
    ]))
}

/// The scripts that write golden files, in alphabetical order.
fn golden_scripts(copy: &Path) -> Result<Vec<PathBuf>> {
    let folder = copy.join(SCRIPTS);
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    let mut scripts = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("_golden.py") {
            scripts.push(path);
        }
    }
    scripts.sort();
    Ok(scripts)
}

/// Larger data beside the repository, where the machine has it.
fn shared_data() -> Option<PathBuf> {
    let folder = match std::env::var_os("PUNA_SHARED_DATA") {
        Some(named) => PathBuf::from(named),
        None => root().parent()?.join("shared").join("data"),
    };
    folder.is_dir().then_some(folder)
}

/// The virtual environment's Python, with the peers installed in the versions of `requirements.txt`.
/// `PUNA_PEERS_PYTHON` names another one.
fn python() -> Result<PathBuf> {
    if let Some(python) = std::env::var_os("PUNA_PEERS_PYTHON") {
        return Ok(python.into());
    }
    let venv = root().join("target").join("peers");
    let python = venv.join("bin").join("python");
    if !python.exists() {
        execute(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let requirements = root().join(SCRIPTS).join("requirements.txt");
    execute(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements),
    )?;
    Ok(python)
}
