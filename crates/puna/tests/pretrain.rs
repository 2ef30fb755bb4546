//! `puna pretrain`: the whole program, killed at random moments, on a full disk, stopped and resumed.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{puna, run};

/// A folder with a corpus, a configuration and runs.
struct Desk(tempfile::TempDir);

/// Some hundred steps of milliseconds each, with many checkpoints.
const CONFIG: &str = "data = \"corpus\"\ntokens = 76_800\nbatch_tokens = 256\nseq_len = 32\nseed = 3\n\
                      [model]\ndim = 32\nhidden_dim = 64\nn_layers = 2\nn_heads = 4\n\
                      [optimizer]\nlr = 0.005\n[eval]\nevery = 60\nwindows = 2\nsample_tokens = 4\n\
                      [checkpoint]\nevery = 5\nkeep = 2\n";

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let tales: Vec<String> = (0..300)
            .map(|i| {
                format!("Once there were {i} bears. They saw {} birds and went home.", i * 7 % 50)
            })
            .collect();
        fs::write(desk.path("tales.txt"), tales.join("\n<|end|>\n")).unwrap();
        let source = "[held_out]\nfraction = 0.1\nnear_duplicates = 1.0\n[[source]]\nname = \"tales\"\n\
                      paths = [\"tales.txt\"]\nformat = \"text\"\nmarker = \"<|end|>\"\nweight = 1\n\
                      origin = \"made up\"\nlicence = \"CC0-1.0\"\n";
        fs::write(desk.path("data.toml"), source).unwrap();
        fs::write(desk.path("run.toml"), CONFIG).unwrap();
        let tokenizer =
            format!("{}/../../models/stories260K.tokenizer.model", env!("CARGO_MANIFEST_DIR"));
        let (config, out) = (desk.text("data.toml"), desk.text("corpus"));
        run(&["data", "build", &config, "--tokenizer", &tokenizer, "--out", &out]).expect(0, &[]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The arguments that begin or go on with `run`.
    fn args(&self, run: &str) -> Vec<String> {
        let mut args =
            vec!["pretrain".into(), self.text("run.toml"), "--out".into(), self.text(run)];
        if self.path(run).join("config.toml").exists() {
            args.push("--resume".into());
        }
        args
    }

    fn start(&self, run: &str) -> Child {
        let args = self.args(run);
        let mut command = puna(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Goes on to the end.
    fn complete(&self, name: &str) {
        let args = self.args(name);
        let run = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        run.expect(0, &["300 steps", "done: "]);
    }

    /// The weights and the optimizer after the last step.
    fn result(&self, run: &str) -> [Vec<u8>; 2] {
        let folder = self.path(run).join("checkpoints/step-00000300");
        ["model.safetensors", "optimizer.safetensors"]
            .map(|name| fs::read(folder.join(name)).unwrap())
    }
}

/// Numbers that look random, and are the same every time.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Files below a folder.
fn n_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { n_files(&entry.path()) } else { 1 }).sum()
}

#[test]
fn a_run_that_is_killed_at_any_moment_ends_in_the_same_bytes() {
    let desk = Desk::new();
    desk.complete("whole");
    let (mut state, mut n_kills) = (1, 0);
    for round in 0.. {
        let name = format!("killed-{round}");
        loop {
            let mut child = desk.start(&name);
            // From before the first step to behind the last.
            sleep(Duration::from_millis(random(&mut state) % 1500));
            let has_ended = child.try_wait().unwrap().is_some();
            child.kill().unwrap();
            child.wait().unwrap();
            n_kills += 1;
            if has_ended || n_kills >= 50 {
                break;
            }
        }
        desk.complete(&name);
        assert!(desk.result("whole") == desk.result(&name), "{name} after {n_kills} kills");
        if n_kills >= 50 {
            break;
        }
    }
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_loses_no_checkpoint() {
    let desk = Desk::new();
    desk.complete("whole");
    // Files may not grow beyond some blocks of 512 bytes: less than a checkpoint's, or the log's after some steps.
    for blocks in [8, 40, 64] {
        let name = format!("full-{blocks}");
        let args = desk.args(&name);
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let output = std::process::Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_puna")])
            .args(&args)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{blocks} blocks: {stderr}");
        assert!(stderr.contains("error:") && !stderr.contains("panicked"), "{stderr}");
        desk.complete(&name);
        assert!(desk.result("whole") == desk.result(&name), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_ends() {
    let desk = Desk::new();
    let mut child = desk.start("run");
    let log = desk.path("run").join("log.jsonl");
    let begun = Instant::now();
    while fs::metadata(&log).map_or(0, |file| file.len()) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step within a minute");
        sleep(Duration::from_millis(20));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(n_files(&desk.path("run").join("checkpoints")) > 0);
    desk.complete("run");
    desk.complete("whole");
    assert!(desk.result("whole") == desk.result("run"));
    run(&["report", &desk.text("run")]).expect(0, &[]);
    let page = fs::read_to_string(desk.path("run").join("report.html")).unwrap();
    assert!(page.contains("going on after step "), "the page tells no event");
}

#[test]
fn a_run_is_drawn_as_a_page() {
    let desk = Desk::new();
    // No terminal is there, so the line is shown, and the run is the same.
    let args = [desk.args("run"), vec!["--dashboard".to_owned()]].concat();
    let trained = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    trained.expect(0, &["note: standard output is no terminal", "step 60: loss", "done: "]);
    desk.complete("plain");
    assert!(desk.result("run") == desk.result("plain"));

    let (folder, elsewhere) = (desk.text("run"), desk.text("page.html"));
    let file = desk.path("run").join("report.html");
    let drawn = run(&["report", &folder]);
    assert_eq!(drawn.expect(0, &[]).stdout.trim_end(), file.to_str().unwrap());
    let page = fs::read_to_string(&file).unwrap();
    let state = fs::read_to_string(desk.path("run/checkpoints/step-00000300/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    for part in [
        "step 300 of 300",
        ">Training loss</h3>",
        ">Held-out bits per byte</h3>",
        ">Gradient norm</h3>",
        "Once upon a time",
        state["chain"]["data"].as_str().unwrap(),
        "tokens = 76_800",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    // The same again, elsewhere; and of a log that ends in the middle of a line.
    run(&["report", &folder, "--out", &elsewhere]).expect(0, &[]);
    assert!(fs::read_to_string(&elsewhere).unwrap() == page);
    let log = desk.path("run/log.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, &text[..text.len() - 20]).unwrap();
    run(&["report", &folder, "--out", &elsewhere]).expect(0, &[]);
    let page = fs::read_to_string(&elsewhere).unwrap();
    assert!(page.contains("step 299 of 300") && page.contains("The end of the log is cut off"));

    run(&["report", &desk.text(".")]).expect(1, &["a folder with config.toml, found none"]);
    run(&["report", &desk.text("corpus")]).expect(1, &["a folder with log.jsonl, found none"]);
    run(&["report", &folder, "--out", &desk.text("none/page.html")]).expect(1, &["page.html"]);
}

#[test]
fn what_cannot_be_is_said_in_one_message() {
    let desk = Desk::new();
    let config = desk.text("run.toml");
    run(&["pretrain", &desk.text("none.toml")]).expect(1, &["none.toml"]);
    run(&["pretrain", &config]).expect(2, &["run.toml has no `out`: give --out"]);
    run(&["pretrain", &config, "--data", &desk.text("none"), "--plan"])
        .expect(1, &["manifest.json"]);
    run(&["pretrain", &config, "--out", &desk.text("none"), "--resume"])
        .expect(1, &["expected a folder with config.toml, found none"]);
    let plan = run(&["pretrain", &config, "--plan"]);
    plan.expect(0, &["parameters: dim 32, 2 layers", "300 steps", "tokens/s on", "kWh"]);
    fs::write(desk.path("run.toml"), format!("{CONFIG}\n[guard]\nspikes = 3\n")).unwrap();
    run(&["pretrain", &config, "--plan"]).expect(2, &["run.toml:", "unknown field `spikes`"]);
    let large =
        CONFIG.replace("dim = 32", "dim = 262144").replace("n_layers = 2", "n_layers = 1000");
    fs::write(desk.path("run.toml"), large).unwrap();
    run(&["pretrain", &config, "--plan"]).expect(2, &["training takes", "a smaller network might"]);
}
