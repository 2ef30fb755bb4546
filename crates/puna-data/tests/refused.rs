//! Bad configurations and bad texts: one message that says where, what was expected and what was found.

mod common;

use common::{Desk, config};
use puna_data::{Config, Corpus, DataError, Job};

#[test]
fn a_bad_configuration_is_told_with_line_and_column() {
    let source = "name = \"a\"\npaths = [\"a\"]\nformat = \"text\"\nmarker = \"--\"\nweight = 1\n\
                  origin = \"o\"\nlicence = \"l\"";
    let with = |top: &str, change: (&str, &str)| {
        format!("{top}\n[[source]]\n{}", source.replace(change.0, change.1))
    };
    let top = |top: &str| with(top, ("", ""));
    let own = |from: &str, to: &str| with("", (from, to));
    let cases: [(String, &str); 25] = [
        (top("sede = 1"), "1:1: unknown field `sede`, expected one of "),
        (top("seed = \"x\""), "1:8: invalid type: string \"x\", expected u64"),
        (top("seed = "), "1:8: "),
        (top("shard_tokens = 8"), "1:16: expected a whole number, 64 to 67108864, found 8"),
        (
            top("invalid_utf8 = \"drop\""),
            "1:16: unknown variant `drop`, expected `fail` or `replace`",
        ),
        (top("[held_out]\nfraction = 0.6"), "2:12: expected a number, 0 to 0.5, found 0.6"),
        (top("[held_out]\nfraction = nan"), "2:12: expected a number, 0 to 0.5, found NaN"),
        (top("[held_out]\nnear_duplicates = -1.0"), "2:19: expected a number, 0 to 1, found -1"),
        (
            top("[held_out]\nnear_duplicates = { run_words = 1 }"),
            "2:33: expected a whole number, 2 to 64, found 1",
        ),
        (top("[held_out]\nnear_duplicates = { runs = 6 }"), "2:21: unknown field `runs`"),
        (top("near_copies = 2"), "1:15: expected a number, 0 to 1, found 2"),
        (top("[held_out]\ngroups = [\"x\", \"x\"]"), "2:16: \"x\" stands here twice"),
        (
            top("[filter]\nscript = { name = \"latin\" }"),
            "2:19: expected Unicode's name of a script, such as \"Latin\", found \"latin\"",
        ),
        (top("[filter]\nmin_chars = -1"), "2:13: "),
        (top("[filter]\nmin_char = 1"), "2:1: unknown field `min_char`, expected one of "),
        (own("weight = 1", "weight = 0"), "7:10: expected a whole number, 1 to 1000000, found 0"),
        (own("weight = 1", "weight = 0.5"), "7:10: "),
        (own("weight = 1\n", ""), "2:1: missing field `weight`"),
        (
            own("\"a\"", "\"a b\""),
            "3:8: expected a name of 1 to 64 letters, digits, `-` and `_`, found \"a b\"",
        ),
        (own("[\"a\"]", "[]"), "4:9: expected at least one path, found none"),
        (
            own("marker = \"--\"", "text_field = \"x\""),
            "6:14: `text_field` does not go with format = \"text\"",
        ),
        (own("\"text\"", "\"jsonl\""), "6:10: `marker` does not go with format = \"jsonl\""),
        (
            own("marker = \"--\"", ""),
            "3:8: missing key `marker`: the line that stands between documents",
        ),
        (own("\"--\"", "\" \""), "6:10: expected one line without space around it, found \" \""),
        (
            format!("{}\n[[source]]\n{}", top(""), source.replace("\"a\"\n", "\"A\"\n")),
            "11:8: expected a name of its own, found \"A\" again",
        ),
    ];
    for (text, expected) in cases {
        let message = Config::parse("c.toml", &text).expect_err(&text).to_string();
        assert!(message.starts_with(&format!("c.toml:{expected}")), "{message}, not {expected}");
        assert!(!message.contains('\n'), "{message}");
    }
    let message = Config::parse("c.toml", "seed = 1").unwrap_err().to_string();
    assert_eq!(message, "c.toml:1:1: missing field `source`");
}

#[test]
fn bad_texts_are_named() {
    let desk = Desk::new();
    desk.write("empty.txt", "");
    desk.write("blank.txt", "\n \n<|end|>\n");
    desk.write("bytes.txt", b"fine\n<|end|>\nno\xfft\n");
    desk.write("cut.txt.zst", "x".repeat(5000));
    let cut = std::fs::read(desk.path("cut.txt.zst")).unwrap();
    std::fs::write(desk.path("cut.txt.zst"), &cut[..cut.len() - 3]).unwrap();
    std::fs::write(desk.path("no.txt.gz"), "This is no gzip file.").unwrap();
    desk.write("a.jsonl", "{\"text\": \"fine\"}\n\n{\"text\": 1}\n");
    desk.write("b.jsonl", "{\"text\": \"fine\"}\n{\"txt\": \"x\"}\n");
    desk.write("c.jsonl", "{\"text\": \"fine\"}\n{\"text\": \n");
    desk.write("a.parquet", "no Parquet");
    desk.write("fine.txt", "Some text.");
    desk.write("words", "# no\ntwo words\n");
    std::fs::create_dir(desk.path("folder")).unwrap();
    let cases: [(&str, &str, &str); 12] = [
        ("empty.txt", "", "empty.txt: expected texts, found an empty file"),
        (
            "blank.txt",
            "",
            "source \"a\": expected documents to train on, found none: 0 read, 0 held out, 0 copies, 0 of another \
             script, 0 with listed words, 0 nearly held-out text, 0 nearly copies, 0 too short",
        ),
        (
            "bytes.txt",
            "",
            "bytes.txt: line 3: expected UTF-8 (or invalid_utf8 = \"replace\"), found the byte 0xff 2 bytes further on",
        ),
        ("cut.txt.zst", "", "cut.txt.zst: "),
        ("no.txt.gz", "", "no.txt.gz: invalid gzip header"),
        ("a.jsonl", "", "a.jsonl: line 3: expected a string in the field \"text\", found a number"),
        (
            "b.jsonl",
            "",
            "b.jsonl: line 2: expected a string in the field \"text\", found no such field",
        ),
        ("c.jsonl", "", "c.jsonl: line 2: expected a JSON object, found none: "),
        ("a.parquet", "", "a.parquet: expected a Parquet file, found "),
        ("missing.txt", "", "missing.txt: "),
        ("folder", "", "folder: expected a regular file, found something else"),
        (
            "fine.txt",
            "filter = { words = { list = \"words\" } }",
            "words: line 2: expected one word, found \"two words\"",
        ),
    ];
    for (path, keys, expected) in cases {
        let message = desk.refused(&config("", path, keys));
        assert!(message.starts_with(expected), "{message}, not {expected}");
        assert!(!message.contains('\n'), "{message}");
    }
    let held_out = config("[held_out]\ngroups = [\"Oz\"]", "fine.txt", "");
    let expected =
        "config.toml:2:11: expected the name of a group, found \"Oz\", of which no document is";
    assert_eq!(desk.refused(&held_out), expected);
    let short = config("[filter]\nmin_chars = 11", "fine.txt", "");
    assert!(desk.refused(&short).ends_with("1 too short"));
    desk.write("no.tsv", "book\tn\nA\t2\n");
    let groups = "groups = { list = \"no.tsv\", name = \"book\", documents = \"n\" }";
    let message = desk.refused(&config("", "fine.txt", groups));
    assert_eq!(
        message,
        "no.tsv: expected groups for the 1 documents of the source, found groups for 2"
    );
}

#[test]
fn a_marker_that_never_comes_does_not_fill_the_memory() {
    let desk = Desk::new();
    desk.write("a.txt", "All in one line. ".repeat((1 << 26) / 17 + 1));
    let expected =
        "a.txt: line 1: expected a document of at most 67108864 bytes, found a longer one";
    assert_eq!(desk.refused(&config("", "a.txt", "")), expected);
}

#[test]
fn work_can_be_stopped() {
    let desk = Desk::new();
    desk.write("a.txt", common::as_text(&common::stories(20, 1)));
    let config = Config::parse("c.toml", &config("", "a.txt", "")).unwrap();
    let (texts, tokenizer) = (desk.path(""), common::tokenizer());
    for n_calls in 0..4 {
        let out = desk.path(&format!("out-{n_calls}"));
        std::fs::create_dir(&out).unwrap();
        let job = Job { config: &config, texts: &texts, tokenizer: &tokenizer, n_threads: 2 };
        let mut left = n_calls;
        let stopped = puna_data::build(&job, &out, &mut |done, total| {
            assert!(done <= total && total > 0);
            left -= 1;
            left >= 0
        });
        assert!(matches!(stopped, Err(DataError::Stopped)), "{n_calls}");
    }
}

type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn a_damaged_corpus_is_noticed() {
    let desk = Desk::new();
    desk.write("a.txt", common::as_text(&common::stories(20, 1)));
    let build = |out: &str| desk.build(out, &config("shard_tokens = 500", "a.txt", "")).unwrap();
    let mut n = 0;
    let mut damaged = |file: &str, change: Change<'_>| {
        n += 1;
        let out = format!("out-{n}");
        build(&out);
        let path = desk.path(&out).join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
        let opened = Corpus::open(&desk.path(&out));
        let outcome = opened.and_then(|corpus| corpus.check(&mut |_, _| true));
        outcome.expect_err(file).to_string()
    };
    let shard = "train.a.00001.bin";
    let cases: [(&str, Change<'_>, &str); 8] = [
        (shard, &|b| b.truncate(b.len() - 1), "length: expected 500 ids of 2 bytes"),
        (shard, &|b| b[0] = 0, "beginning: expected PUNADATA, a token shard, found something else"),
        (shard, &|b| b[8] = 9, "version: expected 1, found 9"),
        (shard, &|b| b[50] ^= 1, "header: expected "),
        (shard, &|b| b[99] ^= 1, "SHA-256: expected "),
        (shard, &|b| b.truncate(10), "length: expected at least 80 bytes, found 10"),
        (
            "manifest.json",
            &|b| b.truncate(100),
            "content: expected the manifest of a corpus, found ",
        ),
        ("tokenizer.model", &|b| b.truncate(b.len() - 10), "tokenizer.model: "),
    ];
    for (file, change, expected) in cases {
        let message = damaged(file, change);
        assert!(message.contains(expected), "{message}, not {expected}");
    }
    let message = Corpus::open(&desk.path("nothing")).unwrap_err().to_string();
    assert!(message.contains("manifest.json: "), "{message}");
}
