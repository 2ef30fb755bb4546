//! `puna perplexity`: the whole program.

mod common;

use common::{run, run_with_input};
use serde_json::Value;

const TEXT: &str =
    "Once upon a time there was a little girl named Lily. She loved to play in the park.\n";

fn text_file(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn tells_figures_for_people_and_programs() {
    let folder = tempfile::tempdir().unwrap();
    let file = text_file(&folder, "text", TEXT.repeat(8).as_bytes());
    let args = ["perplexity", "stories260K", "--file", &file, "--ctx", "64"];
    let told = run(&args);
    told.expect(0, &[]);
    for part in ["in windows of 64", "perplexity ", " ± ", "bits per byte"] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    let json = |extra: &[&str]| -> Value {
        let run = run(&[&args[..], extra, &["--json"]].concat());
        run.expect(0, &[]);
        serde_json::from_str(&run.stdout).unwrap()
    };
    let alone = json(&["--threads", "1"]);
    let beside = json(&["--against", "stories260K", "--threads", "2"]);
    assert_eq!(alone["result"], beside["result"]["parent"], "any threads, alone or not");
    assert_eq!(beside["result"]["kl"]["mean"], 0.0);
    assert_eq!(beside["result"]["top_1_agreement"]["mean"], 1.0);
    assert_eq!(beside["text"]["ctx"], 64);
}

#[test]
fn what_cannot_be_measured_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let short = text_file(&folder, "short", b"Once upon a time");
    let bytes = text_file(&folder, "bytes", b"Once \xff");
    let measure = |file: &str| run_with_input(&["perplexity", "stories260K", "--file", file], "");
    measure(&short).expect(1, &["short: expected at least 512 tokens", "shorter --ctx"]);
    measure(&bytes).expect(1, &["bytes: expected UTF-8, found other bytes at byte 5"]);
    measure("no/such/file").expect(1, &["no/such/file"]);
    let args = ["perplexity", "stories260K", "--file", &short, "--against", "nothing"];
    run(&args).expect(1, &["no file, folder or model is called \"nothing\""]);
}
