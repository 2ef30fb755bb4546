//! `bench`: each kind of work on a small random model, and the fields that `bench/beside_llama_cpp.py` reads.

mod common;

use common::run;
use serde_json::Value;

/// A model of random weights, and `bench` with `args` on it.
fn bench(args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.gguf");
    let path = path.to_str().unwrap();
    run(&["synth", "--shape", "15m", "--type", "q8_0", path]).expect(0, &[]);
    let run = run(&[&["bench", path, "--json"], args].concat());
    serde_json::from_str(&run.expect(0, &[]).stdout).unwrap()
}

#[track_caller]
fn assert_phase(phase: &Value, repetitions: usize) {
    assert_eq!(phase["repetitions"], repetitions);
    for pointer in ["/tokens_per_sec/median", "/gops", "/gb_per_sec", "/median_secs"] {
        assert!(
            phase.pointer(pointer).and_then(Value::as_f64).unwrap() > 0.0,
            "{pointer}: {phase}"
        );
    }
}

#[test]
fn every_work_is_measured_apart() {
    let object = bench(&["-p", "9", "-n", "5", "-r", "2", "--depth", "7", "--parallel", "3,2"]);
    let run = &object["runs"][0];
    assert_phase(&run["prefill"], 2);
    assert_phase(&run["decode"], 5);
    let parallel = run["parallel"].as_array().unwrap();
    assert_eq!(parallel.len(), 2);
    for (phase, n_seqs) in parallel.iter().zip([3, 2]) {
        assert_eq!(phase["sequences"], n_seqs);
        assert_phase(phase, 5);
        // Tokens of all sequences count.
        let secs = phase["median_secs"].as_f64().unwrap();
        let speed = phase["tokens_per_sec"]["median"].as_f64().unwrap();
        assert!((speed * secs - f64::from(n_seqs)).abs() < 1e-6, "{phase}");
    }
    for peak in ["f32_gops", "read_gb_per_sec"] {
        assert!(run["peak"][peak].as_f64().unwrap() > 0.0, "{peak}");
    }
    for peak in ["bf16_gops", "int8_gops"] {
        assert!(run["peak"].get(peak).is_some(), "{peak}");
    }
}

#[test]
fn what_is_not_asked_for_is_not_measured() {
    let object = bench(&["-p", "0", "-n", "3"]);
    let run = &object["runs"][0];
    assert!(run["prefill"].is_null());
    assert_phase(&run["decode"], 3);
    assert_eq!(run["parallel"], serde_json::json!([]));
    let object = bench(&["-p", "3", "-n", "0", "-r", "1"]);
    assert!(object["runs"][0]["decode"].is_null());
    assert_phase(&object["runs"][0]["prefill"], 1);
}

#[test]
fn the_table_names_the_work() {
    let run =
        run(&["bench", "stories260K", "-p", "8", "-n", "4", "--depth", "3", "--parallel", "2"]);
    for part in ["prefill 8@3 ", "decode 4@3 ", "decode 4@3 x2"] {
        assert!(run.expect(0, &[]).stdout.contains(part), "{part}: {}", run.stdout);
    }
}
