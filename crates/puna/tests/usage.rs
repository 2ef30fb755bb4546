//! Wrong usage, help and completions: what the program says before it does anything.

mod common;

use common::{puna, run, run_command};

const COMMANDS: [&str; 28] = [
    "generate",
    "chat",
    "serve",
    "answer",
    "inspect",
    "tokenize",
    "tokenizer",
    "convert",
    "quantize",
    "synth",
    "imatrix",
    "perplexity",
    "data",
    "pretrain",
    "report",
    "sft",
    "gatt",
    "reward",
    "reject",
    "ppo",
    "distill",
    "dpo",
    "align",
    "pull",
    "list",
    "rm",
    "bench",
    "completions",
];

const TRAIN: &[&str] = &["tokenizer", "train", "--input", "Cargo.toml", "--out", "x.model"];

#[test]
fn wrong_usage_exits_with_2() {
    let cases: [(&[&str], &[&str]); 47] = [
        (&[], &["Usage: puna"]),
        (&["generat"], &["generate"]),
        (&["generate"], &["the prompt is missing", "PROMPT"]),
        (&["generate", "a", "b", "c"], &["unexpected argument"]),
        (&["generate", "Cargo.toml"], &["the prompt is missing", "Usage: puna generate"]),
        (&["generate", "--temprature", "x"], &["did you mean '--temperature'?", "--"]),
        (&["generate", "--temperature", "-1", "x"], &["0 or more"]),
        (&["generate", "--temperature", "hot", "x"], &["expected a number"]),
        (&["generate", "--top-p", "1.5", "x"], &["0 to 1"]),
        (&["generate", "-n", "0", "x"], &["-n"]),
        (&["generate", "-n", "-1", "x"], &["-n", "a whole number"]),
        (&["generate", "--seed", "-1", "x"], &["--seed", "a whole number, 0 to"]),
        (&["generate", "--threads", "0", "x"], &["--threads"]),
        (&["generate", "--draft", "17", "x"], &["--draft", "0 to 16"]),
        (&["generate", "--threads", "100000", "x"], &["--threads", "1 to 1024"]),
        (&["bench", "stories260K", "--threads", "1,x"], &["--threads", "a whole number"]),
        (&["bench", "stories260K", "--parallel", "0"], &["--parallel", "1 to 512"]),
        (&["bench", "stories260K", "--parallel", "2", "-n", "0"], &["--parallel with -n 0"]),
        (&["bench", "stories260K", "--draft", "8", "--parallel", "2"], &["cannot be used"]),
        (&["bench", "stories260K", "-p", "0", "-n", "0"], &["nothing to measure"]),
        (&["generate", "--kv-type", "q8", "x"], &["q8_0"]),
        (&["generate", "--logit-bias", "x", "x"], &["expected ID=X"]),
        (&["generate", "--logprobs", "2", "x"], &["--json"]),
        (&["serve", "--host", "0.0.0.0"], &["--api-key-file", "--allow-anyone"]),
        (&["serve", "--host", "example.org"], &["--host"]),
        (&["serve", "--port", "65536"], &["0 to 65535"]),
        (&["serve", "--tls-cert", "x"], &["--tls-key"]),
        (&["serve", "--rate-limit", "0"], &["--rate-limit", "1 to"]),
        (&["inspect"], &["MODEL"]),
        (&["tokenize", "--model", "stories260K"], &["--encode"]),
        (&["tokenize", "--encode", "x"], &["--model"]),
        (&["tokenize", "--model", "stories260K", "--decode", "512"], &["0 to 511", "\"512\""]),
        (&["tokenize", "--model", "stories260K", "--encode", "x", "--file", "y"], &["--file"]),
        (&["tokenizer"], &["Usage: puna tokenizer", "train"]),
        (&["tokenizer", "train", "--vocab", "300", "--out", "x"], &["--input"]),
        (&[TRAIN, &["--vocab", "0"]].concat(), &["--vocab", "1 to"]),
        (&[TRAIN, &["--vocab", "-1"]].concat(), &["--vocab", "a whole number"]),
        (&[TRAIN, &["--vocab", "300", "--character-coverage", "2"]].concat(), &["0.5 to 1"]),
        (&["synth", "--shape", "8b", "--type", "f16", "x"], &["tinyllama-1.1b"]),
        (&["perplexity", "stories260K"], &["--file"]),
        (&["perplexity", "stories260K", "--file", "Cargo.toml", "--ctx", "3"], &["at least 4"]),
        (
            &["perplexity", "stories260K", "--file", "Cargo.toml", "--ctx", "9", "--stride", "9"],
            &["stride: expected 1 to 8"],
        ),
        (&["data"], &["build", "show"]),
        (&["data", "build"], &["CONFIG.toml"]),
        (&["pretrain"], &["CONFIG.toml"]),
        (&["report"], &["RUN"]),
        (&["completions", "tcsh"], &["bash"]),
    ];
    for (args, parts) in cases {
        run(args).expect(2, parts);
    }
    let bench = ["bench", "stories260K", "--depth", "500", "-p", "100"];
    run(&bench).expect(2, &["600 positions, 88 more than the context of 512"]);
    let bench = ["bench", "stories260K", "--draft", "8", "-n", "600"];
    run(&bench).expect(2, &["632 positions of a context of 512"]);
}

/// The rule of exit codes: what a configuration or a variable asks for is as wrong as on the command line.
#[test]
fn wrong_configurations_and_variables_exit_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let (config, out) = (file.to_str().unwrap(), folder.path().join("out"));
    let stages = ["sft", "gatt", "reward train", "reject", "ppo", "distill", "dpo", "align"];
    for command in ["data build", "pretrain"].into_iter().chain(stages) {
        let words = command.split(' ').chain([config, "--out", out.to_str().unwrap()]);
        let args: Vec<&str> = words.collect();
        for (text, message) in [
            ("colour = 3\n", "c.toml:1:1: unknown field `colour`"),
            ("seed = 1\nseed 2\n", "c.toml:2:6: "),
        ] {
            std::fs::write(&file, text).unwrap();
            run(&args).expect(2, &[message]);
        }
        // A file that is not there is a failure, whoever names it.
        std::fs::remove_file(&file).unwrap();
        run(&args).expect(1, &["c.toml: "]);
    }
    assert!(!out.exists());
    let args = ["bench", "stories260K"];
    let mut command = puna(&args);
    command.env("PUNA_ISA", "abacus");
    run_command(&args, command).expect(2, &["PUNA_ISA", "\"abacus\""]);
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let run = run(&["completions", shell]);
        run.expect(0, &[]);
        for command in COMMANDS {
            assert!(run.stdout.contains(command), "{shell}: {command}");
        }
    }
}

/// The help texts are compared whole, so that a new option is a change someone looks at. After a change on purpose:
/// `PUNA_UPDATE=1 cargo test -p puna --test usage`.
#[test]
fn help_is_as_recorded() {
    for command in [
        "",
        "data build",
        "data show",
        "data text",
        "tokenizer train",
        "reward train",
        "reward score",
    ]
    .into_iter()
    .chain(COMMANDS)
    {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let run = run(&args);
        run.expect(0, &[]);
        let name = if command.is_empty() { "puna" } else { command };
        let file = name.replace(' ', "-");
        let path = format!("{}/tests/help/{file}.txt", env!("CARGO_MANIFEST_DIR"));
        // Neither the program's suffix on Windows nor its line ends count.
        let found = run.stdout.replace("puna.exe", "puna").replace("\r\n", "\n");
        if std::env::var_os("PUNA_UPDATE").is_some() {
            std::fs::write(&path, &found).expect("the test folder is writable");
        }
        let recorded = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        assert_eq!(found, recorded, "the help of {name:?} changed; see this test's comment");
    }
}

#[test]
fn version_is_told() {
    let run = run(&["--version"]);
    assert_eq!(run.expect(0, &[]).stdout, format!("puna {}\n", env!("CARGO_PKG_VERSION")));
}
