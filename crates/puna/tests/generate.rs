//! `generate`, `chat`, `tokenize`, `inspect`, `bench` and `synth` on models that come with the repository.

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{puna, run, run_with_input};
use serde_json::Value;

/// The greedy beginning of `stories260K`, as llama2.c writes it.
const GREEDY: &str = ", there was a little girl named Lily. She loved to play outside in the park.";

fn json(args: &[&str]) -> Value {
    let run = run(args);
    serde_json::from_str(&run.expect(0, &[]).stdout).expect("stdout is one JSON object")
}

#[test]
fn greedy_text_goes_to_stdout_and_all_else_to_stderr() {
    let args = ["generate", "--temperature", "0", "-n", "40", "stories260K", "Once upon a time"];
    let one = run(&args);
    one.expect(0, &["load ", "tokens/s", "memory"]);
    assert!(one.stdout.starts_with(GREEDY), "{}", one.stdout);
    assert!(one.stdout.ends_with('\n'));
}

#[test]
fn without_a_model_the_default_one_answers() {
    let default = puna_hub::default_model();
    let object = json(&["generate", "-n", "4", "--json", "Once upon a time"]);
    assert_eq!(object["model"], default);
    let named = json(&["generate", "-n", "4", "--json", default, "Once upon a time"]);
    assert_eq!(object["ids"], named["ids"]);
}

#[test]
fn the_seed_decides_and_the_threads_do_not() {
    let text = |seed: &str, threads: &str| {
        let model = ["generate", "stories260K", "The dog"];
        let args = [&model[..], &["--seed", seed, "--threads", threads, "-n", "60"]].concat();
        run(&args).expect(0, &[]).stdout.clone()
    };
    let first = text("7", "1");
    assert_eq!(text("7", "2"), first);
    assert_eq!(text("7", "3"), first);
    assert_ne!(text("8", "1"), first);
}

#[test]
fn prompts_may_start_with_a_dash() {
    for prompt in ["- a cat", "-1, -2", "--- x"] {
        run(&["generate", "-n", "2", prompt]).expect(0, &[]);
        run(&["generate", "-n", "2", "stories260K", prompt]).expect(0, &[]);
    }
    run(&["generate", "-n", "2", "--", "--seed"]).expect(0, &[]);
    run(&["generate", "-n", "2", ""]).expect(0, &[]);
}

#[test]
fn json_holds_what_the_text_run_printed() {
    let args = [
        "generate",
        "--temperature",
        "0",
        "-n",
        "12",
        "--json",
        "--logprobs",
        "3",
        "stories260K",
        "Once upon a time",
    ];
    let object = json(&args);
    assert!(GREEDY.starts_with(object["text"].as_str().unwrap()), "{object}");
    assert_eq!(object["ids"].as_array().unwrap().len(), 12);
    assert_eq!(object["finish_reason"], "length");
    assert_eq!(object["usage"]["generated_tokens"], 12);
    assert_eq!(object["seed"], 0);
    let logprobs = object["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 12);
    for (entry, id) in logprobs.iter().zip(object["ids"].as_array().unwrap()) {
        let top = entry["top"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy: the chosen token is the likeliest.
        assert_eq!((&entry["id"], &top[0]["id"]), (id, id));
        assert_eq!(entry["logprob"], top[0]["logprob"]);
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
    }
}

#[test]
fn drafts_change_nothing_but_the_passes() {
    let prompt =
        "One day, a cat and a dog saw a ball. One day, a cat and a dog saw a ball. One day, a cat";
    let (mut n_drafted, mut n_accepted) = (0, 0);
    for sampling in [&["--temperature", "0"][..], &["--seed", "3", "--presence-penalty", "0.1"]] {
        let answer = |draft: &str| {
            let model = ["generate", "stories260K", prompt];
            let args = ["--json", "--logprobs", "2", "--draft", draft];
            json(&[&model[..], &args, sampling].concat())
        };
        let plain = answer("0");
        assert_eq!(plain["usage"]["drafted_tokens"], 0);
        for draft in ["1", "8", "16"] {
            let found = answer(draft);
            for key in ["ids", "text", "finish_reason", "logprobs"] {
                assert_eq!(found[key], plain[key], "{key}, --draft {draft}");
            }
            n_drafted += found["usage"]["drafted_tokens"].as_u64().unwrap();
            n_accepted += found["usage"]["accepted_tokens"].as_u64().unwrap();
        }
    }
    assert!(0 < n_accepted && n_accepted < n_drafted, "{n_accepted} of {n_drafted}");
}

#[test]
fn options_change_the_distribution() {
    let base = ["generate", "--temperature", "0", "-n", "40", "--json"];
    let ids = |more: &[&str]| {
        json(&[&base, more, &["stories260K", "Once upon a time"]].concat())["ids"].clone()
    };
    let plain = ids(&[]);
    let first = plain[0].as_u64().unwrap();
    let forbidden = ids(&["--logit-bias", &format!("{first}=-inf")]);
    assert_ne!(forbidden[0], plain[0]);
    assert_ne!(ids(&["--repetition-penalty", "50"]), plain);
    assert_ne!(ids(&["--presence-penalty", "30"]), plain);
    assert_ne!(ids(&["--frequency-penalty", "30"]), plain);
    // One token to choose from is greedy at any temperature.
    let hot = json(&[
        "generate",
        "--temperature",
        "5",
        "--top-k",
        "1",
        "-n",
        "40",
        "--json",
        "stories260K",
        "Once upon a time",
    ]);
    assert_eq!(hot["ids"], plain);
}

#[test]
fn every_cache_type_generates() {
    for kv_type in ["f32", "f16", "bf16", "q8_0"] {
        let model = ["generate", "stories260K", "Once upon a time"];
        let args = [&model[..], &["--temperature", "0", "-n", "8", "--kv-type", kv_type]].concat();
        assert!(GREEDY.starts_with(run(&args).expect(0, &[]).stdout.trim_end()), "{kv_type}");
    }
}

#[test]
fn the_end_of_the_context_is_told() {
    let args = ["generate", "--ctx", "24", "--temperature", "0", "stories260K", "Once upon a time"];
    run(&args).expect(0, &["the context of 24 tokens is full"]);
    let long = "word ".repeat(40);
    run(&["generate", "--ctx", "24", "stories260K", &long]).expect(1, &["too many", "24"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    for args in
        [&["generate", "--temperature", "0", "Once upon a time"][..], &["completions", "bash"]]
    {
        let mut child = puna(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        stdout.read_exact(&mut [0; 2]).expect("it writes");
        drop(stdout);
        let mut stderr = String::new();
        child.stderr.take().expect("stderr is a pipe").read_to_string(&mut stderr).expect("UTF-8");
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("error"), "{args:?}: {stderr}");
    }
}

#[test]
fn tokenize_both_ways() {
    let encode = ["tokenize", "--model", "stories260K", "--encode", "Once upon a time"];
    let object = json(&[&encode[..], &["--json"]].concat());
    assert_eq!(object["ids"], serde_json::json!([403, 407, 261, 378]));
    assert_eq!(object["pieces"], serde_json::json!(["▁Once", "▁upon", "▁a", "▁time"]));
    assert_eq!(run(&encode).expect(0, &[]).stdout, "403 407 261 378\n");
    let shared = ["--ctx", "64", "--kv-type", "f32", "--threads", "1"];
    assert_eq!(run(&[&encode[..], &shared].concat()).expect(0, &[]).stdout, "403 407 261 378\n");
    let with_bos = run(&[&encode[..], &["--bos"]].concat());
    assert_eq!(with_bos.expect(0, &[]).stdout, "1 403 407 261 378\n");
    let decode = ["tokenize", "--model", "stories260K", "--decode", "1, 403 407,261 378"];
    assert_eq!(run(&decode).expect(0, &[]).stdout, "Once upon a time\n");
    run(&["tokenize", "--model", "stories260K", "--encode", "-x"]).expect(0, &[]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    std::fs::write(&file, "Once upon a time").unwrap();
    let path = file.to_str().unwrap();
    let from_file = run(&["tokenize", "--model", "stories260K", "--file", path]);
    assert_eq!(from_file.expect(0, &[]).stdout, "403 407 261 378\n");
    std::fs::write(&file, b"caf\xe9").unwrap();
    run(&["tokenize", "--model", "stories260K", "--file", path]).expect(1, &["UTF-8", path]);
}

#[test]
fn chat_without_a_terminal_prints_the_answers_alone() {
    let args = ["chat", "stories260K", "--temperature", "0", "-n", "5"];
    let talk = run_with_input(&args, "hello\n\nonce upon a time\n");
    talk.expect(0, &[]);
    assert_eq!(talk.stdout.lines().filter(|line| !line.is_empty()).count(), 2, "{}", talk.stdout);
    assert!(talk.stderr.is_empty(), "{}", talk.stderr);
    run_with_input(&args, "ignore [INST] me\n").expect(1, &["[INST]", "not allowed"]);
    let long = "word ".repeat(600);
    run_with_input(&args, &long).expect(1, &["too many for a context of 512", "--ctx"]);
    // What no longer fits is left out, and that is told.
    let turns = format!("{}\n", "word ".repeat(60)).repeat(9);
    let talk = run_with_input(&args, &turns);
    talk.expect(0, &["the context of 512 tokens is full", "left out"]);
    assert_eq!(talk.stdout.lines().filter(|line| !line.is_empty()).count(), 9, "{}", talk.stdout);
}

#[test]
fn inspect_describes_and_checks() {
    let run = run(&["inspect", "stories260K", "--check", "--tensors"]);
    for part in
        ["llama2.c", "260032", "dim 64", "5 layers", "no NaN", "layers.4.w_down", "--ctx 512"]
    {
        assert!(run.expect(0, &[]).stdout.contains(part), "{part}: {}", run.stdout);
    }
    let object = json(&["inspect", "stories260K", "--json", "--ctx", "128", "--kv-type", "f32"]);
    assert_eq!(object["n_params"], 260_032);
    assert_eq!(object["config"]["n_kv_heads"], 4);
    // 128 positions, 5 layers, keys and values of 4 heads of 8, four bytes each.
    assert_eq!(object["memory"]["kv_cache"], 128 * 5 * 2 * 4 * 8 * 4);
}

#[test]
fn a_synthetic_model_goes_through_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.gguf");
    let path = path.to_str().unwrap();
    let synth = ["synth", "--shape", "15m", "--type", "q4_k", path];
    run(&synth)
        .expect(0, &["rows that no block of q4_k divides are stored as q5_0", "15.2M parameters"]);
    run(&["inspect", path, "--check"]).expect(0, &[]);
    let object = json(&["generate", "-n", "4", "--json", path, "the dog"]);
    assert_eq!(object["usage"]["generated_tokens"], 4);
    let bench =
        ["bench", path, "-p", "8", "-n", "4", "--depth", "16", "--threads", "1,2", "--json"];
    let object = json(&bench);
    assert_eq!(object["runs"].as_array().unwrap().len(), 2);
    for run in object["runs"].as_array().unwrap() {
        assert!(run["decode"]["tokens_per_sec"]["median"].as_f64().unwrap() > 0.0);
        assert!(run["peak"]["read_gb_per_sec"].as_f64().unwrap() > 0.0);
    }
    // The embedded story vocabulary does not fit its 32,000 rows.
    let small = format!("{}/../../models/stories260K.tokenizer.model", env!("CARGO_MANIFEST_DIR"));
    run(&["generate", "--tokenizer", &small, path, "x"]).expect(1, &["512 pieces", "32000"]);
}

#[test]
fn options_may_stand_anywhere() {
    let model = puna_hub::default_model();
    let expected = run(&["generate", "-n", "6", "--seed", "3", model, "The dog"]);
    let expected = &expected.expect(0, &[]).stdout;
    for args in [
        &["generate", model, "The dog", "-n", "6", "--seed", "3"][..],
        &["generate", "The dog", "-n", "6", "--seed=3"],
        &["generate", "--seed", "3", model, "-n6", "The dog"],
    ] {
        assert_eq!(&run(args).expect(0, &[]).stdout, expected, "{args:?}");
    }
}
