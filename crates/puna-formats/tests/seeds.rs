//! Replays the fuzzers' seeds, among them every input that once made a parser fail.

#[path = "../../../fuzz/targets/formats.rs"]
mod targets;

use puna_testkit::workspace_root;

#[track_caller]
fn replay(target: &str, run: fn(&[u8])) {
    let folder = workspace_root().join("fuzz/seeds").join(target);
    let mut n_seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        n_seeds += 1;
    }
    assert!(n_seeds > 0, "{} is empty", folder.display());
}

#[test]
fn gguf() {
    replay("gguf", targets::model);
}

#[test]
fn llama2c() {
    replay("llama2c", targets::model);
}
