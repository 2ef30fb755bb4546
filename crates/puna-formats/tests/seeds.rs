//! Replays the fuzzers' seeds, among them every input that once made a parser fail.

#[path = "../../../fuzz/targets/formats.rs"]
mod targets;

use puna_testkit::workspace_root;

/// Runs every seed. Those that begin with `sound-` must be accepted: if none were, the fuzzer would only
/// ever see the first checks.
#[track_caller]
fn replay(target: &str, run: fn(&[u8]) -> bool) {
    let folder = workspace_root().join("fuzz/seeds").join(target);
    let mut n_sound = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let accepted = run(&std::fs::read(&path).unwrap());
        if path.file_name().unwrap().to_str().unwrap().starts_with("sound-") {
            assert!(accepted, "{}", path.display());
            n_sound += 1;
        }
    }
    assert!(n_sound > 0, "{} has no sound seed", folder.display());
}

#[test]
fn gguf() {
    replay("gguf", targets::model);
}

#[test]
fn imatrix() {
    replay("imatrix", targets::imatrix);
}

#[test]
fn llama2c() {
    replay("llama2c", targets::model);
}

#[test]
fn safetensors() {
    replay("safetensors", targets::safetensors);
}

#[test]
fn index() {
    replay("index", targets::index);
}

#[test]
fn torch() {
    replay("torch", targets::torch);
}

#[test]
fn pickle() {
    replay("pickle", targets::pickle);
}

#[test]
fn hf_config() {
    replay("hf_config", targets::hf_config);
}

#[test]
fn params() {
    replay("params", targets::params);
}
