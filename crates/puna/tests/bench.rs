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

#[test]
fn texts_with_and_without_drafts_are_compared() {
    let args = ["bench", "stories260K", "--draft", "8", "--threads", "1,2", "-r", "2"];
    run(&[&args[..], &["-n", "20"]].concat()).expect(0, &["measuring with 2 threads"]);
    let run = run(&[&args[..], &["-p", "4", "-n", "200", "--json"]].concat());
    let object: Value = serde_json::from_str(&run.expect(0, &[]).stdout).unwrap();
    let texts = object["texts"].as_array().unwrap();
    let names: Vec<_> = texts.iter().map(|text| text["text"].as_str().unwrap()).collect();
    assert_eq!(names, ["repeating", "greedy", "drawn"].repeat(2));
    for text in texts {
        for speeds in ["plain_tokens_per_sec", "drafting_tokens_per_sec"] {
            assert_eq!(text[speeds].as_array().unwrap().len(), 2, "{text}");
        }
        assert!(text["ratio"].as_f64().unwrap() > 0.0, "{text}");
    }
    // 199 tokens after the first, nearly all of them foreseen: one in nine is drawn after eight that were drafted.
    assert!(texts[0]["accepted_tokens"].as_u64().unwrap() > 160, "{object}");
    assert!(texts[1]["accepted_tokens"].as_u64().unwrap() > 0, "{object}");
}
