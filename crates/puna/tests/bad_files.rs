//! Files that are not what they should be: one clear message with the file's name, never a panic.

mod common;

use std::fs;
use std::path::Path;

use common::run;

/// Bytes of the built-in model.
fn story_bytes() -> Vec<u8> {
    fs::read(format!("{}/../../models/stories260K.bin", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn story_tokenizer() -> String {
    format!("{}/../../models/stories260K.tokenizer.model", env!("CARGO_MANIFEST_DIR"))
}

/// `generate` on the file at `path` fails with these words, among them the file's name.
fn check(path: &Path, parts: &[&str]) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let run = run(&["generate", "--tokenizer", &story_tokenizer(), path.to_str().unwrap(), "x"]);
    run.expect(1, parts).expect(1, &[name]);
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    assert!(run.stderr.trim_end().lines().count() <= 2, "more than one message: {}", run.stderr);
}

#[test]
fn damaged_models_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let story = story_bytes();
    let mut nan = story.clone();
    // The first weight of the first norm: after the header of 28 bytes and the embeddings.
    nan[28 + 512 * 64 * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    // The first weight of the first query matrix, after all five of those norms.
    let mut nan_matrix = story.clone();
    nan_matrix[28 + (512 + 5) * 64 * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut negative = story.clone();
    negative[8..12].copy_from_slice(&(-5i32).to_le_bytes());
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        ("empty.bin", Vec::new(), &[]),
        ("text.bin", b"This is no model.".to_vec(), &["not a model"]),
        ("cut.bin", story[..story.len() / 2].to_vec(), &[]),
        ("header.bin", story[..20].to_vec(), &[]),
        ("nan.bin", nan, &["attn_norm", "NaN"]),
        ("nan_matrix.bin", nan_matrix, &["not a number", "inspect", "--check"]),
        ("negative.bin", negative, &[]),
        ("magic.gguf", b"GGUF".to_vec(), &["expected", "found"]),
        (
            "counts.gguf",
            [b"GGUF\x03\0\0\0".as_slice(), &[0xff; 16]].concat(),
            &["expected", "found"],
        ),
    ];
    for (name, bytes, parts) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        check(&path, parts);
    }
}

#[test]
fn a_damaged_weight_is_found_by_inspect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.bin");
    let mut bytes = story_bytes();
    bytes[28..32].copy_from_slice(&f32::INFINITY.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let run = run(&["inspect", path.to_str().unwrap(), "--check"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("tok_embeddings: 1 infinite, the first at 0"), "{}", run.stdout);
    assert!(run.stderr.contains("damaged.bin"), "{}", run.stderr);
}

#[test]
fn what_is_not_there_is_met_with_help() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("story.bin");
    fs::write(&model, story_bytes()).unwrap();
    let model = model.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["generate", "stories260", "x"], &["did you mean stories260K"]),
        (&["generate", "no/such/file", "x"], &["no file, folder or model", "no/such/file"]),
        (&["generate", model, "x"], &["no tokenizer found", "tokenizer.model", "--tokenizer"]),
        (&["generate", "--tokenizer", "missing.model", model, "x"], &["missing.model"]),
        (&["inspect", folder.path().to_str().unwrap()], &["without a model in it"]),
        (&["tokenize", "--model", model, "--encode", "x"], &["no tokenizer found"]),
    ];
    for (args, parts) in cases {
        run(args).expect(1, parts);
    }
    let beside = folder.path().join("story.tokenizer.model");
    fs::copy(story_tokenizer(), &beside).unwrap();
    run(&["generate", "-n", "2", model, "x"]).expect(0, &[]);
    fs::write(&beside, "not a tokenizer").unwrap();
    run(&["generate", model, "x"]).expect(1, &["story.tokenizer.model"]);
}

#[test]
fn what_does_not_fit_into_memory_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.gguf");
    let path = path.to_str().unwrap();
    run(&["synth", "--shape", "15m", "--type", "q4_0", path]).expect(0, &[]);
    // The longest context there is takes 232 GB; a machine that has them cannot show the refusal.
    let longest = ["--ctx", "16777216", "--kv-type", "f32"];
    let inspect = run(&[&["inspect", path, "--json"], &longest[..]].concat());
    let object: serde_json::Value = serde_json::from_str(&inspect.expect(0, &[]).stdout).unwrap();
    let memory = &object["memory"];
    assert!(memory["total"].as_u64() > Some(200_000_000_000), "{memory}");
    if memory["free"].as_u64().is_none_or(|free| Some(free) > memory["total"].as_u64()) {
        eprintln!("skipped: this machine has the memory");
        return;
    }
    run(&[&["generate", path, "x"], &longest[..]].concat())
        .expect(2, &["needs 2", " free; try --ctx "]);
}
