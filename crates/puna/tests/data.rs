//! `puna data`: the whole program on small texts.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Run, run};
use serde_json::Value;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a configuration of one source and its text.
    fn prepare(&self, top: &str) -> String {
        let stories: Vec<String> = (0..50)
            .map(|i| {
                format!("Once upon a time there were {i} little pigs.\n\nThey lived in a wood.")
            })
            .collect();
        fs::create_dir_all(self.path("texts")).unwrap();
        fs::write(self.path("texts/pigs.txt"), stories.join("\n<|end|>\n")).unwrap();
        let source = "[[source]]\nname = \"pigs\"\npaths = [\"texts/pigs.txt\"]\nformat = \"text\"\n\
                      marker = \"<|end|>\"\nweight = 1\norigin = \"made up\"\nlicence = \"CC0-1.0\"\n";
        fs::write(
            self.path("c.toml"),
            format!("{top}\n[held_out]\nfraction = 0.2\nnear_duplicates = 0.2\n{source}"),
        )
        .unwrap();
        self.text("c.toml")
    }

    fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn tokenizer() -> String {
    format!("{}/../../models/stories260K.tokenizer.model", env!("CARGO_MANIFEST_DIR"))
}

fn build(config: &str, extra: &[&str]) -> Run {
    run(&[&["data", "build", config, "--tokenizer", &tokenizer()], extra].concat())
}

#[test]
fn what_is_built_is_told_and_shown() {
    let folder = Folder::new();
    // The list of words lies beside the configuration, not among the texts.
    let filter = "[filter]\nwords = { list = \"words.txt\" }";
    let config = folder.prepare(&format!("out = \"out\"\nshard_tokens = 300\n{filter}"));
    fs::write(folder.path("words.txt"), "# One of the fifty.\n49\n").unwrap();
    let built = build(&config, &["--threads", "2"]);
    built.expect(0, &["wrote ", "out in "]);
    for part in ["SOURCE", "pigs", "100.0 %", "CC0-1.0"] {
        assert!(built.stdout.contains(part), "{part}: {}", built.stdout);
    }
    let out = folder.text("out");
    let shown = run(&["data", "show", &out, "--check"]);
    assert_eq!(shown.expect(0, &[]).stdout, built.stdout);
    let json: Value =
        serde_json::from_str(&run(&["data", "show", &out, "--json"]).expect(0, &[]).stdout)
            .unwrap();
    let source = &json["sources"][0];
    let documents = |side: &str| source[side]["documents"].as_u64().unwrap();
    assert_eq!(documents("train") + documents("held_out"), 49);
    assert_eq!(source["removed"]["words"]["n"], 1);
    assert_eq!(source["files"][0]["file"], "texts/pigs.txt");
    assert_eq!(source["origin"], "made up");
    assert_eq!(folder.listing(), ["c.toml", "out", "texts", "words.txt"]);

    // What is held out and what is not, as text.
    let text = |more: &[&str]| {
        let run = run(&[&["data", "text", &out, "--source", "pigs"], more].concat());
        run.expect(0, &[]).stdout.clone()
    };
    let (held_out, train) = (text(&[]), text(&["--train", "--marker", "<|endofdoc|>"]));
    let both: Vec<&str> =
        [&*held_out, &train].into_iter().flat_map(|t| t.split("<|endofdoc|>\n")).collect();
    assert_eq!(both.len(), 49);
    for i in 0..49 {
        let story =
            format!("Once upon a time there were {i} little pigs.\n\nThey lived in a wood.\n");
        assert!(both.contains(&&*story), "{i}: {both:?}");
    }
    run(&["data", "text", &out, "--source", "cows"])
        .expect(2, &["--source: expected one of pigs, found cows"]);

    // The same bytes elsewhere, by other paths and another number of threads.
    let moved = Folder::new();
    moved.prepare("shard_tokens = 300");
    let other = moved.text("other");
    let config = folder.text("c.toml");
    let texts = moved.path("").to_str().unwrap().to_owned();
    let args = ["--texts", &texts, "--out", &other, "--threads", "1", "--json"];
    let printed: Value =
        serde_json::from_str(&build(&config, &args).expect(0, &[]).stdout).unwrap();
    assert_eq!(printed, json);
    for entry in fs::read_dir(folder.path("out")).unwrap() {
        let path = entry.unwrap().path();
        let twin = moved.path("other").join(path.file_name().unwrap());
        assert!(fs::read(&path).unwrap() == fs::read(twin).unwrap(), "{}", path.display());
    }
}

#[test]
fn what_is_there_is_replaced_on_demand_and_only_by_something_whole() {
    let folder = Folder::new();
    let config = folder.prepare("out = \"out\"");
    build(&config, &[]).expect(0, &[]);
    let manifest = fs::read(folder.path("out/manifest.json")).unwrap();
    build(&config, &[]).expect(1, &["out exists already", "--force"]);
    fs::write(folder.path("texts/pigs.txt"), "").unwrap();
    build(&config, &["--force"]).expect(1, &["pigs.txt: expected texts, found an empty file"]);
    assert!(fs::read(folder.path("out/manifest.json")).unwrap() == manifest);
    fs::write(folder.path("texts/pigs.txt"), "Another story.").unwrap();
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("0.2", "0")).unwrap();
    build(&config, &["--force"]).expect(0, &["wrote "]);
    assert!(fs::read(folder.path("out/manifest.json")).unwrap() != manifest);
    fs::write(folder.path("out/notes"), "precious").unwrap();
    build(&config, &["--force"]).expect(1, &["found notes in it", "left as it is"]);
    assert_eq!(folder.listing(), ["c.toml", "out", "texts"]);
}

#[test]
fn mistakes_are_told_and_nothing_is_left_behind() {
    let folder = Folder::new();
    let config = folder.prepare("sede = 1");
    build(&config, &[]).expect(2, &["c.toml:1:1: unknown field `sede`"]);
    let config = folder.prepare("seed = 1");
    build(&config, &[]).expect(2, &["c.toml has no `out`: give --out"]);
    let out = folder.text("out");
    run(&["data", "build", &config, "--out", &out]).expect(2, &["give --tokenizer"]);
    let missing = ["data", "build", &config, "--out", &out, "--tokenizer", "none.model"];
    run(&missing).expect(1, &["none.model: "]);
    fs::write(folder.path("texts/pigs.txt"), b"\xff").unwrap();
    build(&config, &["--out", &out]).expect(1, &["pigs.txt: line 1: expected UTF-8"]);
    run(&["data", "show", &folder.text("texts")]).expect(1, &["manifest.json"]);
    assert_eq!(folder.listing(), ["c.toml", "texts"]);
}
