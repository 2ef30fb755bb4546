//! `puna tokenizer train`: the whole program on small texts.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::{Run, run};
use flate2::Compression;
use flate2::write::GzEncoder;
use puna_tokenizer::Tokenizer;
use serde_json::Value;

const TEXT: &str = "Once upon a time there was a little girl named Lily, who was 7.\n\
                    She loved to play in the park. Once she saw a bird there.\r\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        text(&path)
    }

    fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn train(vocab: &str, inputs: &[&str], out: &Path, extra: &[&str]) -> Run {
    let out = text(out);
    let args = ["tokenizer", "train", "--vocab", vocab, "--out", &out, "--input"];
    run(&[&args, inputs, extra].concat())
}

#[test]
fn a_trained_model_is_told_and_used() {
    let folder = Folder::new();
    let (input, out) = (folder.file("a.txt", TEXT.repeat(20)), folder.path("a.model"));
    let told = train("330", &[&input], &out, &["--user-defined", "<|x|>", " Lily"]);
    told.expect(0, &[]);
    for part in ["a.model: 330 pieces (", " characters) in ", "40 lines", "tokens, 0."] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    let encode = |words: &str| {
        let run = run(&["tokenize", "--model", &text(&out), "--encode", words, "--json"]);
        let ids: Value = serde_json::from_str(&run.expect(0, &[]).stdout).unwrap();
        ids["pieces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(encode("Once Lily<|x|>"), ["▁Once", "▁Lily", "<|x|>"]);
    assert_eq!(encode("77é")[1..], ["7", "7", "<0xC3>", "<0xA9>"]);
}

#[test]
fn the_file_is_the_same_for_any_number_of_threads_and_any_packing_of_the_text() {
    let folder = Folder::new();
    let whole = TEXT.repeat(50);
    let (first, second) = whole.split_at(TEXT.len() * 20);
    // Two members, one after the other, as some programs write.
    let gz: Vec<u8> = [first, second].iter().flat_map(|part| gzip(part)).collect();
    let zst: Vec<u8> = [first, second]
        .iter()
        .flat_map(|part| zstd::encode_all(part.as_bytes(), 3).unwrap())
        .collect();
    let plain = folder.file("plain.txt", &whole);
    let (gz, zst) = (folder.file("a.txt.gz", gz), folder.file("a.txt.zst", zst));
    // A file's end ends a line.
    let (a, b) = (folder.file("a", first.trim_end_matches('\n')), folder.file("b", second));
    let inputs: [&[&str]; 4] = [&[&plain], &[&gz], &[&zst], &[&b, &a]];
    let mut models = Vec::new();
    for (input, threads) in inputs.iter().flat_map(|input| ["1", "2", "7"].map(|n| (input, n))) {
        let out = folder.path("m.model");
        train("320", input, &out, &["--threads", threads, "--force"]).expect(0, &[]);
        models.push(fs::read(&out).unwrap());
    }
    assert!(models.iter().all(|model| *model == models[0]));
    Tokenizer::from_sentencepiece(&models[0]).unwrap();
}

#[test]
fn marker_lines_are_no_text() {
    let folder = Folder::new();
    let plain = folder.file("plain.txt", TEXT.repeat(50));
    let marked = folder.file("marked.txt", format!("{TEXT}<|end|>\r\n{TEXT}<|eof|>\n").repeat(25));
    let models =
        [(&plain, "a.model", &[][..]), (&marked, "b.model", &["--marker", "<|end|>", "<|eof|>"])]
            .map(|(input, name, extra)| {
                let out = folder.path(name);
                train("320", &[input], &out, extra).expect(0, &[]);
                fs::read(&out).unwrap()
            });
    assert!(models[0] == models[1]);
}

fn gzip(text: &str) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text.as_bytes()).unwrap();
    out.finish().unwrap()
}

#[test]
fn bytes_that_are_not_utf8_fail_or_are_counted() {
    let folder = Folder::new();
    let (bad, out) = (folder.file("bad", b"ab ab\nab\xFF\xC3ab\n\xE2\x96"), folder.path("m.model"));
    train("264", &[&bad], &out, &[])
        .expect(1, &["bad: at byte 8 of the text: expected UTF-8, found 0xFF", "--invalid-utf8"]);
    assert_eq!(folder.listing(), ["bad"]);
    let replace = ["--invalid-utf8", "replace"];
    train("264", &[&bad], &out, &replace).expect(0, &["3 sequences of bytes", "became U+FFFD"]);
    let told = train("264", &[&bad], &out, &[&replace[..], &["--force", "--json"]].concat());
    let told: Value = serde_json::from_str(&told.expect(0, &[]).stdout).unwrap();
    assert_eq!(told["text"]["n_invalid_utf8"], 3);
    assert_eq!((&told["n_pieces"], &told["text"]["n_lines"]), (&264.into(), &3.into()));
    assert_eq!(told["n_chars"].as_u64(), Some(4), "a, b, a space, U+FFFD");
}

#[test]
fn what_cannot_be_done_leaves_what_was_there() {
    let folder = Folder::new();
    let (input, empty) = (folder.file("a.txt", TEXT), folder.file("empty", ""));
    let (blank, cut) = (folder.file("blank", "\n\n"), folder.file("cut.gz", &gzip(TEXT)[..30]));
    let out = folder.path("m.model");
    fs::write(&out, "old").unwrap();
    let missing = text(&folder.path("missing"));
    let here = text(folder.0.path());
    let cases: [(&str, &[&str], i32, &[&str]); 8] = [
        ("300", &[&input, &empty], 1, &["empty: expected texts, found an empty file"]),
        ("300", &[&blank], 1, &["expected at least one line that is not empty"]),
        ("300", &[&missing], 1, &["missing: "]),
        ("300", &[&here], 1, &["expected a regular file"]),
        ("300", &[&cut], 1, &["cut.gz: "]),
        ("32000", &[&input], 2, &["expected 32000 pieces, but the text gives no more than "]),
        ("270", &[&input], 2, &["expected 270 pieces, but ", " are needed before the first merge"]),
        (
            "300",
            &[&input, "--user-defined", "<s>"],
            2,
            &["--user-defined: ", "\"<s>\" appears twice"],
        ),
    ];
    for (vocab, inputs, code, parts) in cases {
        train(vocab, inputs, &out, &["--force"]).expect(code, parts);
        assert_eq!(fs::read(&out).unwrap(), b"old");
    }
    train("300", &[&input], &out, &[])
        .expect(1, &["m.model exists already", "--force replaces it"]);
    assert_eq!(fs::read(&out).unwrap(), b"old");
    assert_eq!(folder.listing(), ["a.txt", "blank", "cut.gz", "empty", "m.model"]);
}

/// Lines longer than a block are read in parts: at a space, where that changes nothing.
#[test]
fn lines_of_many_megabytes_are_read_in_parts() {
    let folder = Folder::new();
    let words = "alpha beta gamma ".repeat(400_000);
    let line = folder.file("line", words.trim_end());
    let lines = folder.file("lines", words.trim_end().replace(" alpha", "\nalpha"));
    let (a, b) = (folder.path("a.model"), folder.path("b.model"));
    train("280", &[&line], &a, &[]).expect(0, &[]);
    train("280", &[&lines], &b, &[]).expect(0, &[]);
    assert!(fs::read(a).unwrap() == fs::read(b).unwrap());
    let solid = folder.file("solid", "äö".repeat(1_500_000));
    train("265", &[&solid], &folder.path("c.model"), &[]).expect(0, &[]);
}
