//! `pull`, `list`, `rm`, and what was pulled used as a MODEL.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Run, puna, run_command};
use puna_testkit::hub_server::{Fault, HubServer, Repository, noise};
use serde_json::Value;
use tempfile::TempDir;

/// A server, and a user with an empty store.
struct World {
    server: HubServer,
    home: TempDir,
}

impl World {
    fn new(repositories: Vec<Repository>) -> Self {
        Self { server: HubServer::start(repositories), home: tempfile::tempdir().unwrap() }
    }

    /// With the built-in model and its vocabulary as `tiny/stories`.
    fn with_stories() -> Self {
        let (model, tokenizer) = (story("stories260K.bin"), story("stories260K.tokenizer.model"));
        let files: [(&str, &[u8]); 4] = [
            ("stories.bin", &model),
            ("tokenizer.model", &tokenizer),
            ("LICENSE", b"MIT License\n\nDo as you like.\n"),
            ("README.md", b"# Stories\n"),
        ];
        Self::new(vec![Repository::new("tiny/stories", &files)])
    }

    /// The program in this world, not started yet.
    fn puna(&self, args: &[&str]) -> Command {
        let mut command = puna(args);
        for name in [
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_OFFLINE",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", self.server.url());
        command.env("HF_HOME", self.home.path()).env("PUNA_HOME", self.home.path().join("store"));
        command
    }

    fn run(&self, args: &[&str]) -> Run {
        run_command(args, self.puna(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(args).expect(0, &[]).stdout).expect("stdout is JSON")
    }
}

fn story(name: &str) -> Vec<u8> {
    fs::read(puna_testkit::workspace_root().join("models").join(name)).unwrap()
}

#[test]
fn a_pulled_model_is_used_by_its_name() {
    let world = World::with_stories();
    let pull = ["pull", "tiny/stories:stories.bin"];
    // Nobody is there to be asked, so nothing is fetched.
    world.run(&pull).expect(2, &["MIT License", "Do as you like", "--accept-licence"]);
    assert_eq!(world.run(&["list"]).expect(0, &["no models in"]).stdout, "");
    let accept = [&pull[..], &["--accept-licence"]].concat();
    world
        .run(&accept)
        .expect(0, &["licence of tiny/stories: mit", "pulled tiny/stories:stories.bin: 1.1 MB"]);
    world.run(&pull).expect(0, &["up to date"]);

    let generate = |model: &str| {
        let args = ["generate", "--temperature", "0", "-n", "12", model, "Once upon a time"];
        let mut command = world.puna(&args);
        command.env("HF_HUB_OFFLINE", "1");
        run_command(&args, command).expect(0, &[]).stdout.clone()
    };
    let expected = generate("stories260K");
    for name in ["tiny/stories", "stories", "tiny/stories:stories.bin", "Tiny/Stories"] {
        assert_eq!(generate(name), expected, "{name}");
    }
    world.run(&["generate", "tiny/stories"]).expect(2, &["the prompt is missing: tiny/stories is"]);
    let inspect = world.run(&["inspect", "stories"]);
    assert!(
        inspect.expect(0, &[]).stdout.contains("licence     mit, accepted 20"),
        "{}",
        inspect.stdout
    );
    let object = world.json(&["inspect", "stories", "--json"]);
    assert_eq!(object["licence"]["id"], "mit");
    let ids = world.run(&["tokenize", "--model", "stories", "--encode", "Once upon"]);
    assert_eq!(ids.expect(0, &[]).stdout, "403 407\n");

    let list = world.run(&["list"]);
    assert!(list.expect(0, &[]).stdout.starts_with("NAME "), "{}", list.stdout);
    assert!(list.stdout.contains("tiny/stories:stories.bin  1.1 MB"), "{}", list.stdout);
    let listed = world.json(&["list", "--json"]);
    assert_eq!(listed[0]["name"], "tiny/stories:stories.bin");
    assert_eq!(listed[0]["licence"]["sha256"], object["licence"]["sha256"]);

    world.run(&["rm", "storys"]).expect(1, &["no pulled model is called"]);
    world.run(&["rm", "stories"]).expect(0, &["removed tiny/stories:stories.bin: 1.1 MB freed"]);
    world.run(&["generate", "tiny/stories", "x"]).expect(1, &["puna pull tiny/stories"]);
    // The licence was accepted once for all.
    world.run(&pull).expect(0, &["licence accepted 20"]);
}

#[test]
fn one_of_several_is_named() {
    let (small, large) = (noise(2000), noise(3000));
    let files: [(&str, &[u8]); 2] = [("m.Q4_0.gguf", &small), ("m.Q8_0.gguf", &large)];
    let world = World::new(vec![Repository::new("o/m", &files)]);
    world.run(&["pull", "o/m", "--accept-licence"]).expect(
        2,
        &["o/m has several models; name one, as in o/m:Q4_0", "1  Q4_0  2.0 kB", "2  Q8_0  3.0 kB"],
    );
    for name in ["o/m:q4_0", "hf.co/o/m:m.Q8_0.gguf"] {
        world.run(&["pull", name, "--accept-licence"]).expect(0, &["pulled o/m:Q"]);
    }
    world.run(&["inspect", "m"]).expect(1, &["\"m\" may be o/m:Q4_0 or o/m:Q8_0; say which"]);
    world
        .run(&["rm", "m:Q4_0", "m:Q8_0"])
        .expect(0, &["o/m:Q4_0: 2.0 kB freed", "o/m:Q8_0: 3.0 kB"]);
}

#[test]
fn the_terms_of_llama_2_are_shown() {
    let text = b"LLAMA 2 COMMUNITY LICENSE AGREEMENT\nthe agreement itself";
    let model = noise(2000);
    let files: [(&str, &[u8]); 3] =
        [("m.gguf", &model), ("LICENSE.txt", text), ("USE_POLICY.md", b"# Acceptable Use Policy")];
    let world = World::new(vec![Repository {
        card: serde_json::json!({}),
        ..Repository::new("o/m", &files)
    }]);
    let shown = [
        "the agreement itself",
        "# Acceptable Use Policy",
        "700 million",
        "improve another large language model",
        "licence of o/m: llama2",
    ];
    world.run(&["pull", "o/m"]).expect(2, &shown);
    assert!(!world.server.seen().iter().any(|s| s.target.contains("m.gguf")));
    world.run(&["pull", "o/m", "--accept-license"]).expect(0, &shown);
    assert!(world.run(&["list"]).stdout.contains("llama2"));
}

#[test]
fn wrong_words_and_places_are_told() {
    let world = World::with_stories();
    world.run(&["pull", "stories"]).expect(2, &["expected ORG/NAME", "\"stories\""]);
    world.run(&["pull", "tiny/storys"]).expect(1, &["no such repository"]);
    world.run(&["rm"]).expect(2, &["NAME"]);
    let blocked = world.home.path().join("store");
    fs::write(&blocked, "a file where the store should be").unwrap();
    let run = world.run(&["pull", "tiny/stories:stories.bin", "--accept-licence"]);
    run.expect(1, &["error: ", "store"]);
    assert_eq!(fs::read(&blocked).unwrap(), b"a file where the store should be");
}

#[test]
fn what_the_hub_says_controls_no_terminal() {
    let files: [(&str, &[u8]); 2] = [("m.gguf", &noise(2000)), ("evil\x1b[2J.Q4_0.gguf", b"x")];
    let card = serde_json::json!({ "license": "other", "license_name": "my\x1b]0;title\x07" });
    let world = World::new(vec![Repository { card, ..Repository::new("o/m", &files) }]);
    let run = world.run(&["pull", "o/m", "--accept-licence"]);
    run.expect(0, &["1 file left out", "licence of o/m: my]0;title\n", "pulled o/m"]);
    assert!(!run.stderr.contains('\x1b'), "{}", run.stderr);
}

#[test]
fn a_damaged_description_hides_no_other_model() {
    let (one, two) = (noise(2000), noise(3000));
    let files: [(&str, &[u8]); 2] = [("m.Q4_0.gguf", &one), ("m.Q8_0.gguf", &two)];
    let world = World::new(vec![Repository::new("o/m", &files)]);
    for name in ["o/m:Q4_0", "o/m:Q8_0"] {
        world.run(&["pull", name, "--accept-licence"]).expect(0, &[]);
    }
    let damaged = world.home.path().join("store/manifests/o/m/Q4_0.json");
    fs::write(&damaged, "{").unwrap();
    let list = world.run(&["list"]);
    assert!(list.expect(0, &["Q4_0.json: expected the description"]).stdout.contains("o/m:Q8_0"));
    world.run(&["rm", "o/m:Q8_0"]).expect(1, &["Q4_0.json: expected the description"]);
    fs::remove_file(&damaged).unwrap();
    world.run(&["rm", "m"]).expect(0, &["removed o/m:Q8_0: 3.0 kB freed"]);
    world.run(&["rm", "--unfinished"]).expect(0, &["2.0 kB freed"]);
}

/// Elsewhere file systems have Unicode names only.
#[cfg(target_os = "linux")]
#[test]
fn a_store_may_have_any_path() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let world = World::with_stories();
    let store = world.home.path().join(OsStr::from_bytes(b"st\xffre"));
    let args = ["pull", "tiny/stories:stories.bin", "--accept-licence"];
    let mut command = world.puna(&args);
    command.env("PUNA_HOME", &store);
    run_command(&args, command).expect(0, &[]);
    assert!(store.join("models").is_dir());
}

#[test]
fn passwords_are_not_told() {
    let world = World::with_stories();
    let args = ["pull", "tiny/stories:stories.bin", "--accept-licence"];
    for (name, value, expected) in [
        (
            "HF_ENDPOINT",
            "https://me:s3cret@127.0.0.1:1",
            "HF_ENDPOINT: expected an address without",
        ),
        ("HTTP_PROXY", "bad://me:s3cret@127.0.0.1:1", "HTTPS_PROXY: expected an address"),
    ] {
        let mut command = world.puna(&args);
        command.env(name, value);
        let run = run_command(&args, command);
        run.expect(1, &[expected]);
        assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    }
}

/// A repository with one large file, which is no model and arrives slowly the first three times it is asked for.
fn slow_world(n: usize) -> World {
    let world = World::new(vec![Repository::new("o/big", &[("big.gguf", &noise(n))])]);
    world.server.fail("big.gguf", Fault::Slow(Duration::from_micros(500)), 3);
    world
}

#[test]
fn a_killed_pull_goes_on() {
    let n = 40 << 20;
    let world = slow_world(n);
    let args = ["pull", "o/big", "--accept-licence"];
    let mut child = world.puna(&args).stderr(Stdio::null()).spawn().unwrap();
    let blobs = world.home.path().join("store").join("blobs");
    let is_counted = |entry: fs::DirEntry| {
        let counts = fs::read(entry.path()).unwrap_or_default();
        let is_ranges = entry.path().extension().is_some_and(|e| e == "ranges");
        // After size and length, a count that is not zero.
        is_ranges && counts.len() > 16 && counts[16..].iter().any(|&byte| byte != 0)
    };
    let started = Instant::now();
    while !fs::read_dir(&blobs).is_ok_and(|entries| entries.flatten().any(is_counted)) {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing was recorded");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    world.run(&["list"]).expect(0, &["1 unfinished file"]);
    world.server.take_seen();
    world.run(&args).expect(0, &["pulled o/big"]);
    let seen = world.server.take_seen();
    let asked: usize =
        seen.iter().filter(|s| s.storage).filter_map(|s| s.range).map(|(a, b)| b - a).sum();
    assert!(asked > 0 && asked < n, "{asked} of {n} bytes were asked for again");
    assert_eq!(world.json(&["list", "--json"])[0]["n_bytes"], n);
}

#[test]
fn two_processes_pull_the_same_model() {
    let n = 4 << 20;
    let world = slow_world(n);
    let args = ["pull", "o/big", "--accept-licence"];
    let start = || world.puna(&args).stderr(Stdio::piped()).spawn().unwrap();
    let (one, two) = (start(), start());
    for child in [one, two] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let fetched = world.server.seen().iter().filter(|s| s.storage).count();
    assert_eq!(fetched, 1);
    assert_eq!(world.json(&["list", "--json"]).as_array().unwrap().len(), 1);
}
