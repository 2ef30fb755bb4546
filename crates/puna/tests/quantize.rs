//! `puna quantize` and `puna imatrix`: the whole program on the built-in model.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Run, run};
use serde_json::Value;

const TEXT: &str =
    "Once upon a time there was a little girl named Lily. She loved to play in the park.\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self) -> String {
        let path = self.path("text");
        fs::write(&path, TEXT.repeat(30)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Names of what is in the folder, but for the text.
    fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "text").collect();
        names.sort();
        names
    }
}

fn quantize(out: &Path, extra: &[&str]) -> Run {
    run(&[&["quantize", "stories260K", out.to_str().unwrap()], extra].concat())
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.expect(0, &[]).stdout).unwrap()
}

#[test]
fn the_proof_is_told_stored_and_found_again() {
    let folder = Folder::new();
    let (out, text) = (folder.path("q.gguf"), folder.text());
    let told = quantize(&out, &["--type", "q8_0", "--proof", &text]);
    told.expect(
        0,
        &["rows of 172 are no multiple of 32", "f16 is used instead for layers.0-4.w_down"],
    );
    for part in ["wrote ", "31 q8_0", "5 f16", "in windows of 512", "KL divergence", "top-1"] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    let out = out.to_str().unwrap();
    let beside = run(&["perplexity", out, "--against", "stories260K", "--file", &text, "--json"]);
    let beside = &json(&beside)["result"];
    let stored = &json(&run(&["inspect", out, "--json"]))["proof"];
    assert_eq!(stored["status"], "measured");
    assert_eq!(
        stored["kl"],
        serde_json::json!({ "mean": beside["kl"]["mean"], "error": beside["kl"]["error"] })
    );
    assert_eq!(stored["perplexity"], beside["model"]["perplexity"]);
    assert_eq!(stored["top_1_agreement"], beside["top_1_agreement"]);
    assert_eq!(stored["ln_ratio"], beside["ln_ratio"]);
    assert_eq!((&stored["parent"], &stored["kv_type"]), (&"stories260K".into(), &"f16".into()));
    assert_eq!(stored["text"], "text", "no folder of this machine stands in the file");
    let inspected = run(&["inspect", out]);
    assert!(inspected.expect(0, &[]).stdout.contains("proof       KL divergence"));
    let says = run(&["generate", out, "Once upon a time", "-n", "8", "--temperature", "0"]);
    assert!(says.expect(0, &[]).stdout.contains("there was a little"), "{}", says.stdout);
}

#[test]
fn every_type_is_made_the_same_by_any_number_of_threads_and_is_closer_the_larger_it_is() {
    let folder = Folder::new();
    let text = folder.text();
    let mut found = Vec::new();
    for kind in [
        "q8_0", "q6_k", "q5_1", "q5_0", "q5_k_m", "q4_1", "q4_0", "q4_k_m", "q4_k_s", "q3_k_m",
        "q2_k",
    ] {
        let (a, b) = (folder.path("a.gguf"), folder.path("b.gguf"));
        let args = ["--type", kind, "--proof", &text, "--json", "--force"];
        let proof = json(&quantize(&a, &[&args[..], &["--threads", "1"]].concat()));
        quantize(&b, &[&args[..], &["--threads", "3"]].concat()).expect(0, &[]);
        assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "{kind}: threads");
        found.push((kind, proof["proof"]["result"]["kl"]["mean"].as_f64().unwrap()));
    }
    let kl = |kind: &str| found.iter().find(|(k, _)| *k == kind).unwrap().1;
    for (better, worse) in [("q8_0", "q5_1"), ("q5_1", "q4_1"), ("q5_0", "q4_0"), ("q6_k", "q4_0")]
    {
        assert!(kl(better) < kl(worse), "{found:?}");
    }
    assert!(kl("q8_0") < 0.01 && kl("q4_0") < 0.5, "{found:?}");
}

#[test]
fn too_far_from_the_parent_leaves_no_file() {
    let folder = Folder::new();
    let (out, text) = (folder.path("q.gguf"), folder.text());
    let strict = ["--type", "q4_0", "--proof", &text, "--max-kl", "1e-6"];
    quantize(&out, &strict)
        .expect(1, &["mean KL divergence", "at most 0.000001", "no file was written"]);
    assert_eq!(folder.listing(), [""; 0]);
    fs::write(&out, "old").unwrap();
    quantize(&out, &[&strict[..], &["--force"]].concat()).expect(1, &["no file was written"]);
    assert_eq!(fs::read(&out).unwrap(), b"old");
    quantize(&out, &["--type", "q4_0", "--proof", &text]).expect(1, &["q.gguf exists already"]);
    assert_eq!(fs::read(&out).unwrap(), b"old");
    quantize(&out, &["--type", "q4_0", "--proof", &text, "--max-kl", "1", "--force"])
        .expect(0, &[]);
    assert_eq!(folder.listing(), ["q.gguf"]);
}

#[test]
fn no_proof_is_recorded_and_the_built_in_text_is_told() {
    let folder = Folder::new();
    let out = folder.path("q.gguf");
    quantize(&out, &["--type", "q4_0", "--no-proof"]).expect(0, &[]);
    let proof = &json(&run(&["inspect", out.to_str().unwrap(), "--json"]))["proof"];
    assert_eq!(*proof, serde_json::json!({ "status": "none: it was not asked for" }));
    // What comes of a quantised file keeps its proof only as long as its blocks.
    quantize(&out, &["--type", "q8_0", "--force"]).expect(0, &["built-in text, which is small"]);
    let (same, other) = (folder.path("same.gguf"), folder.path("other.gguf"));
    let convert = |to: &Path, extra: &[&str]| {
        run(&[&["convert", out.to_str().unwrap(), to.to_str().unwrap()], extra].concat())
            .expect(0, &[]);
        json(&run(&["inspect", to.to_str().unwrap(), "--json"]))["proof"]["status"].clone()
    };
    assert_eq!(convert(&same, &[]), "measured");
    assert_eq!(convert(&other, &["--dtype", "f32"]), Value::Null);
    // A model that is quantised again to the same types does not keep what was proven of its parent.
    let again = folder.path("again.gguf");
    let args = ["--type", "q8_0", "--no-proof"];
    run(&[&["quantize", out.to_str().unwrap(), again.to_str().unwrap()], &args[..]].concat())
        .expect(0, &["is quantised already"]);
    let metadata = json(&run(&["inspect", again.to_str().unwrap(), "--json"]))["metadata"].clone();
    let keys: Vec<&String> = metadata.as_object().unwrap().keys().collect();
    let proof: Vec<_> = keys.iter().filter(|key| key.starts_with("puna.proof")).collect();
    assert_eq!(proof, [&"puna.proof"]);
}

#[test]
fn an_importance_matrix_is_used_and_must_be_the_models() {
    let folder = Folder::new();
    let (text, file) = (folder.text(), folder.path("i.gguf"));
    let file = file.to_str().unwrap();
    let measure = ["imatrix", "stories260K", file, "--file", &text];
    run(&measure).expect(0, &["35 matrices over", "tokens of"]);
    run(&measure).expect(1, &["i.gguf exists already"]);
    let (with, without) = (folder.path("with.gguf"), folder.path("without.gguf"));
    let args = ["--type", "q4_0", "--proof", &text, "--json"];
    let kl = |run: Run| json(&run)["proof"]["result"]["kl"]["mean"].as_f64().unwrap();
    let weighed = kl(quantize(&with, &[&args[..], &["--imatrix", file]].concat()));
    let plain = kl(quantize(&without, &args));
    assert!(weighed < plain, "on the text it was made of: {weighed} with, {plain} without");

    let other = folder.path("other.gguf");
    let mine = puna_testkit::testdata("models/mha/gguf/f32.gguf");
    let refused = run(&[
        "quantize",
        mine.to_str().unwrap(),
        other.to_str().unwrap(),
        "--type",
        "q4_0",
        "--no-proof",
        "--imatrix",
        file,
    ]);
    refused.expect(1, &["i.gguf", "belongs to another model"]);
    assert!(!other.exists());
    let nonsense = quantize(&other, &["--type", "q4_0", "--imatrix", &text]);
    nonsense.expect(1, &["text", "no importance matrix"]);
}

#[test]
fn what_cannot_be_is_told() {
    let folder = Folder::new();
    let out = folder.path("q.gguf");
    quantize(&out, &["--type", "q4"]).expect(2, &["q4_k_m"]);
    quantize(&out, &[]).expect(2, &["--type"]);
    quantize(&out, &["--type", "q4_0", "--no-proof", "--proof", "x"]).expect(2, &["--no-proof"]);
    quantize(&out, &["--type", "q4_0", "--no-proof", "--max-kl", "1"]).expect(2, &["--max-kl"]);
    quantize(&out, &["--type", "q4_0", "--max-kl", "-1"]).expect(2, &["0 or more"]);
    quantize(&folder.path("no/q.gguf"), &["--type", "q4_0", "--no-proof"]).expect(1, &["q.gguf"]);
    fs::write(folder.path("file"), "").unwrap();
    quantize(&folder.path("file/q.gguf"), &["--type", "q4_0", "--no-proof"]).expect(1, &["q.gguf"]);
    let short = folder.path("short");
    fs::write(&short, "Once").unwrap();
    let short = short.to_str().unwrap();
    quantize(&out, &["--type", "q4_0", "--proof", short]).expect(1, &["at least 512 tokens"]);
    quantize(&out, &["--type", "q4_0", "--ctx", "3"]).expect(2, &["at least 4 tokens"]);
    let long = ["--type", "q4_0", "--ctx", "1024", "--max-kl", "0"];
    quantize(&out, &long).expect(1, &["--ctx 1024 is longer than this model's 512"]);
    assert_eq!(folder.listing(), ["file", "short"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named_before_the_work() {
    let folder = Folder::new();
    let is_folder = folder.path("folder");
    fs::create_dir(&is_folder).unwrap();
    let missing = folder.path("no/such/folder/i.gguf");
    for (out, part) in [(&missing, "i.gguf"), (&is_folder, "folder is a folder")] {
        // There is no such model and no such text: neither is looked for.
        let args = ["imatrix", "no-such-model", out.to_str().unwrap(), "--file", "none", "--force"];
        run(&args).expect(1, &[part]);
    }
    assert_eq!(folder.listing(), ["folder"]);
}
