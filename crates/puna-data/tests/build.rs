//! What is built: the same of every form, packing and number of threads; without copies, near copies and listed words.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use common::{Desk, RIGHTS, as_text, config, decoded, files, ids, stories};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use puna_data::Side;
use puna_testkit::testdata;
use serde_json::json;

const NONE_HELD_OUT: &str = "[held_out]\nfraction = 0";

fn as_jsonl(documents: &[String]) -> String {
    documents.iter().map(|text| json!({ "n": 1, "text": text }).to_string() + "\n").collect()
}

/// A file of several row groups, with a column that may be null and one that may not.
fn write_parquet(path: &Path, documents: &[String], group: impl Fn(usize) -> String) {
    let schema = "message m { optional binary text (STRING); required binary book (STRING); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let properties = Arc::new(WriterProperties::default());
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    for (i, chunk) in documents.chunks(70).enumerate() {
        let mut rows = writer.next_row_group().unwrap();
        let texts: Vec<ByteArray> = chunk.iter().map(|text| text.as_str().into()).collect();
        let books: Vec<ByteArray> =
            (0..chunk.len()).map(|k| group(70 * i + k).as_str().into()).collect();
        for (values, levels) in [(texts, Some(vec![1; chunk.len()])), (books, None)] {
            let mut column = rows.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, levels.as_deref(), None).unwrap();
            column.close().unwrap();
        }
        rows.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn a_row_without_text_is_named() {
    let desk = Desk::new();
    let schema = Arc::new(parse_message_type("message m { optional binary text; }").unwrap());
    let file = File::create(desk.path("a.parquet")).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    let texts = [ByteArray::from("One."), ByteArray::from("Two.")];
    column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1, 0, 1]), None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.close().unwrap();
    let message = desk.refused(&config(NONE_HELD_OUT, "a.parquet", ""));
    assert_eq!(message, "a.parquet: row 2: expected a string, found null");
}

#[test]
fn every_form_and_packing_gives_the_same_shards() {
    let desk = Desk::new();
    let documents = stories(200, 1);
    desk.write("a.txt", as_text(&documents).replace('\n', "\r\n").replace("\r\n", "\n"));
    write_parquet(&desk.path("a.parquet"), &documents, |_| String::new());
    let parquet = std::fs::read(desk.path("a.parquet")).unwrap();
    let mut expected = None;
    for (form, bytes) in [
        ("txt", as_text(&documents).into_bytes()),
        ("jsonl", as_jsonl(&documents).into_bytes()),
        ("parquet", parquet),
    ] {
        for packing in ["", ".gz", ".zst"] {
            let name = format!("b.{form}{packing}");
            desk.write(&name, &bytes);
            let top = "shard_tokens = 10000\n[held_out]\nfraction = 0.1";
            desk.build(&format!("out-{name}"), &config(top, &name, "")).unwrap();
            let mut found = files(&desk.path(&format!("out-{name}")));
            found.retain(|file, _| file.ends_with(".bin"));
            assert!(found.len() > 3, "{:?}", found.keys());
            let expected = expected.get_or_insert_with(|| found.clone());
            assert!(found == *expected, "{name} differs");
        }
    }
    let corpus = desk.open("out-b.jsonl.zst");
    let all: HashSet<String> =
        ["train", "held_out"].iter().flat_map(|side| decoded(&corpus, side, "a")).collect();
    assert_eq!(all, documents.into_iter().collect());
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let desk = Desk::new();
    let mut documents = stories(3000, 2);
    documents.extend_from_within(100..200);
    desk.write("a.txt.zst", as_text(&documents));
    desk.write("words", "river\n");
    let top = "shard_tokens = 100000\n[held_out]\nfraction = 0.05\n[filter]\nmin_chars = 300\n\
               words = { list = \"words\", unit = \"paragraph\" }";
    let mut expected = None;
    for n_threads in [1, 2, 7] {
        let out = format!("out-{n_threads}");
        let manifest = desk.build_with(&out, &config(top, "a.txt.zst", ""), n_threads).unwrap();
        let source = &manifest.sources[0];
        assert_eq!(source.removed.duplicates.n, 100);
        assert!(source.removed.words.n > 1000 && source.removed.min_chars.n > 100, "{source:?}");
        assert!(source.read.bytes > 3 << 20, "a few batches for each thread: {source:?}");
        let found = files(&desk.path(&out));
        let expected = expected.get_or_insert_with(|| found.clone());
        assert!(found == *expected, "{n_threads} threads");
    }
}

#[test]
fn a_copy_is_left_out_wherever_it_stands() {
    let desk = Desk::new();
    let documents = stories(60, 8);
    let object = |i: usize, book: &str| json!({ "text": documents[i], "book": book }).to_string();
    // Each document in a book of its own; then ten of them again in a book that is held out, and all once more.
    let own = (0..60).map(|i| object(i, &format!("Book {i}")));
    let again = (0..10).map(|i| object(i, "Held")).chain((0..60).map(|i| object(i, "Other")));
    desk.write("a.jsonl", own.chain(again).collect::<Vec<_>>().join("\n"));
    let top = "[held_out]\nfraction = 0\ngroups = [\"Held\"]";
    let manifest = desk.build("out", &config(top, "a.jsonl", "group_field = \"book\"")).unwrap();
    assert_eq!(manifest.sources[0].read.n, 130);
    assert_eq!(manifest.sources[0].removed.duplicates.n, 70);
    let corpus = desk.open("out");
    assert_eq!(decoded(&corpus, "held_out", "a"), documents[..10]);
    assert_eq!(decoded(&corpus, "train", "a"), documents[10..]);
}

#[test]
fn copies_and_near_copies_of_held_out_text_are_not_trained_on() {
    let desk = Desk::new();
    let documents = stories(300, 3);
    desk.write("a.txt", as_text(&documents));
    // The same again in other letters, three to a document, with texts of its own between.
    let own = stories(300, 4);
    let mixed: Vec<String> = documents
        .iter()
        .zip(&own)
        .map(|(copy, own)| format!("{own}\n\n{}\n\n{own} end", copy.to_uppercase()))
        .collect();
    desk.write("b.txt", as_text(&mixed));
    let source = |name: &str| {
        format!(
            "[[source]]\nname = \"{name}\"\npaths = [\"{name}.txt\"]\nformat = \"text\"\n\
             marker = \"<|end|>\"\nweight = 1\n{RIGHTS}\n"
        )
    };
    let text = format!("[held_out]\nfraction = 0.1\n{}{}", source("a"), source("b"));
    let manifest = desk.build("out", &text).unwrap();
    let corpus = desk.open("out");
    let both = |side| [decoded(&corpus, side, "a"), decoded(&corpus, side, "b")].concat();
    let flat = |text: &String| {
        text.to_lowercase().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (held_out, train) = (both("held_out"), both("train"));
    assert!((30..100).contains(&held_out.len()), "{}", held_out.len());
    // Held-out documents of `b` hold what documents of `a` say, too.
    assert!(manifest.sources.iter().all(|source| source.removed.near_duplicates.n > 10));
    let train: Vec<String> = train.iter().map(|text| flat(text).join(" ")).collect();
    for document in held_out.iter().map(flat).filter(|words| words.len() > 250) {
        let middle = document[100..120].join(" ");
        assert!(!train.iter().any(|text| text.contains(&middle)), "{middle}");
    }
    assert!(train.len() + held_out.len() > 550, "what stood around a copy is kept");
}

/// Both criteria: runs of the default number of words find edited copies that those of 13 do not.
#[test]
fn edited_copies_of_held_out_text_are_not_trained_on() {
    let desk = Desk::new();
    let documents = stories(300, 6);
    // Every ninth word is another one.
    let edited = documents.iter().map(|text| {
        let words = text.split_inclusive([' ', '\n']).enumerate();
        words.map(|(i, word)| if i % 9 == 4 { "old " } else { word }).collect::<String>()
    });
    let all: Vec<String> = documents.iter().cloned().chain(edited).collect();
    desk.write("a.jsonl", as_jsonl(&all));
    let n_dropped = |out: &str, setting: &str| {
        let top = format!("[held_out]\nfraction = 0.1\n{setting}");
        let manifest = desk.build(out, &config(&top, "a.jsonl", "")).unwrap();
        assert_eq!(desk.open(out).manifest(), &manifest);
        let written = String::from_utf8(files(&desk.path(out))["manifest.json"].clone()).unwrap();
        assert!(!written.contains("near_copies"), "a setting that is not used is not told");
        manifest.sources[0].removed.near_duplicates.n
    };
    assert_eq!(n_dropped("long", "near_duplicates = 0.2"), 0);
    let n = n_dropped("short", "");
    assert!(n > 50, "{n}");
    assert_eq!(n_dropped("told", "near_duplicates = { share = 0.15, run_words = 6 }"), n);
}

#[test]
fn another_edition_of_a_book_is_left_out_on_demand() {
    let desk = Desk::new();
    let novels: Vec<String> = stories(400, 9).chunks(20).map(|part| part.join("\n\n")).collect();
    let edition = |novel: &String| novel.to_uppercase().replace("SANG OF", "SANG ABOUT");
    let editions = novels[..8].iter().map(edition);
    desk.write("a.jsonl", as_jsonl(&[&novels[..12], &editions.collect::<Vec<_>>()].concat()));
    desk.write("b.jsonl", as_jsonl(&novels[10..]));
    let text = format!(
        "{}[[source]]\nname = \"b\"\npaths = [\"b.jsonl\"]\nformat = \"jsonl\"\nweight = 1\n{RIGHTS}\n",
        config("near_copies = 0.5\nheld_out = { fraction = 0 }", "a.jsonl", "")
    );
    let mut expected = None;
    for n_threads in [1, 2, 7] {
        let out = format!("out-{n_threads}");
        let manifest = desk.build_with(&out, &text, n_threads).unwrap();
        let [a, b] = &manifest.sources[..] else { panic!("two sources") };
        assert_eq!((a.removed.near_copies.n, a.train.documents), (8, 12));
        // What is equal is known before.
        assert_eq!((b.removed.duplicates.n, b.removed.near_copies.n, b.train.documents), (2, 0, 8));
        let found = files(&desk.path(&out));
        assert!(found == *expected.get_or_insert_with(|| found.clone()), "{n_threads} threads");
    }
    let without = text.replace("near_copies = 0.5\n", "");
    let manifest = desk.build("without", &without).unwrap();
    assert_eq!(manifest.sources[0].train.documents, 20);
}

#[test]
fn a_group_is_on_one_side_in_every_form() {
    let desk = Desk::new();
    let documents = stories(200, 5);
    let book = |i: usize| format!("Book {}", i / 5);
    let lines = documents
        .iter()
        .enumerate()
        .map(|(i, text)| json!({ "story": text, "book": book(i) }).to_string() + "\n");
    desk.write("a.jsonl", lines.collect::<String>());
    write_parquet(&desk.path("a.parquet"), &documents, book);
    desk.write("a.txt", as_text(&documents));
    let rows: String = (0..40).map(|i| format!("x\tBook {i}\t5\n")).collect();
    desk.write("books.tsv", format!("kind\ttitle\tstories\ny\tNo\t7\n{rows}"));
    let list = "groups = { list = \"books.tsv\", name = \"title\", documents = \"stories\", only = { kind = \"x\" } }";
    let top = "seed = 4\n[held_out]\nfraction = 0.1\ngroups = [\"Book 7\"]";
    let cases = [
        ("a.jsonl", "text_field = \"story\"\ngroup_field = \"book\""),
        ("a.parquet", "group_field = \"book\""),
        ("a.txt", list),
    ];
    let mut found = Vec::new();
    for (path, keys) in cases {
        let manifest = desk.build(&format!("out-{path}"), &config(top, path, keys)).unwrap();
        let source = &manifest.sources[0];
        assert_eq!(source.lists.len(), usize::from(path == "a.txt"), "the table is recorded");
        let groups = &source.held_out_groups;
        assert!(groups.len() > 1 && groups.len() < 15, "{groups:?}");
        assert!(groups.contains(&"Book 7".to_owned()), "{groups:?}");
        assert_eq!(source.held_out.documents, 5 * groups.len() as u64);
        assert_eq!(source.train.documents, 200 - source.held_out.documents);
        found.push((groups.clone(), source.held_out.shards.clone(), source.train.shards.clone()));
    }
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0], found[2]);
}

#[test]
fn a_document_longer_than_a_shard_goes_on_in_the_next() {
    let desk = Desk::new();
    let documents = stories(6, 6);
    desk.write("a.txt", as_text(&documents));
    let top = "shard_tokens = 64\n[held_out]\nfraction = 0";
    let manifest = desk.build("out", &config(top, "a.txt", "")).unwrap();
    let train = &manifest.sources[0].train;
    assert_eq!((train.documents, train.longer_than_a_shard), (6, 6));
    assert_eq!(train.shards.len() as u64, train.tokens.div_ceil(64));
    assert_eq!(decoded(&desk.open("out"), "train", "a"), documents);
}

#[test]
fn blank_lines_and_empty_documents_are_no_text() {
    let desk = Desk::new();
    desk.write("a.txt", "\n\nOne.\n\n<|end|>\n \n<|end|>\r\nTwo\n  <|end|>  \n");
    let manifest = desk.build("out", &config(NONE_HELD_OUT, "a.txt", "")).unwrap();
    assert_eq!(manifest.sources[0].read.n, 2);
    assert_eq!(decoded(&desk.open("out"), "train", "a"), ["One.", "Two"]);
}

#[test]
fn other_bytes_are_replaced_and_counted_on_demand() {
    let desk = Desk::new();
    desk.write("a.txt", b"A\xff\xfe\n<|end|>\nB \xe2\x82 c");
    desk.write("a.jsonl", b"{\"text\": \"A\xff\xfe\"}\n{\"text\": \"B \xe2\x82 c\"}");
    for path in ["a.txt", "a.jsonl"] {
        let out = format!("out-{path}");
        let text = config(&format!("invalid_utf8 = \"replace\"\n{NONE_HELD_OUT}"), path, "");
        assert_eq!(desk.build(&out, &text).unwrap().sources[0].utf8_replaced, 3);
        let found = decoded(&desk.open(&out), "train", "a");
        assert_eq!(found, ["A\u{fffd}\u{fffd}", "B \u{fffd} c"]);
    }
}

#[test]
fn a_script_may_be_asked_for() {
    let desk = Desk::new();
    desk.write("a.txt", "Mostly Latin да.\n<|end|>\nНе латиница, no.\n<|end|>\n12345");
    let top =
        "held_out = { fraction = 0 }\n[filter]\nscript = { name = \"Latin\", min_share = 0.8 }";
    let manifest = desk.build("out", &config(top, "a.txt", "")).unwrap();
    assert_eq!(manifest.sources[0].removed.script.n, 2);
    assert_eq!(decoded(&desk.open("out"), "train", "a"), ["Mostly Latin да."]);
    // A source's own filter takes the place of the general one.
    let own = config(top, "a.txt", "filter = { min_chars = 10 }");
    let manifest = desk.build("own", &own).unwrap();
    assert_eq!(
        (manifest.sources[0].removed.script.n, manifest.sources[0].removed.min_chars.n),
        (0, 1)
    );
}

#[test]
fn tables_of_pyarrow_give_the_ids_of_sentencepiece() {
    let desk = Desk::new();
    let read = |name: &str| std::fs::read(testdata(format!("data/{name}"))).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&read("ids.json")).unwrap();
    let expected: Vec<u32> = golden["ids"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|ids| ids.as_array().unwrap())
        .map(|id| id.as_u64().unwrap() as u32)
        .collect();
    for codec in ["none", "snappy", "gzip", "zstd", "lz4"] {
        let (file, out) = (format!("{codec}.parquet"), format!("out-{codec}"));
        desk.write(&file, read(&file));
        desk.build(&out, &config(NONE_HELD_OUT, &file, "group_field = \"book\"")).unwrap();
        assert!(ids(&desk.path(&out), "train", "a") == expected, "{codec}");
    }
    // Groups come with their documents.
    let top = "[held_out]\nfraction = 0\ngroups = [\"Book 1\"]";
    desk.build("out", &config(top, "zstd.parquet", "group_field = \"book\"")).unwrap();
    let held_out: Vec<u32> = golden["ids"].as_array().unwrap()[5..10]
        .iter()
        .flat_map(|ids| ids.as_array().unwrap())
        .map(|id| id.as_u64().unwrap() as u32)
        .collect();
    assert_eq!(ids(&desk.path("out"), "held_out", "a"), held_out);
    for (field, found) in [("words", "words.list.element, book, n, text"), ("n", "words.list")] {
        let message =
            desk.refused(&config("", "none.parquet", &format!("text_field = \"{field}\"")));
        let expected =
            format!("none.parquet: expected a column of strings called {field:?}, found {found}");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn a_corpus_is_text_again() {
    let desk = Desk::new();
    let documents = stories(400, 5);
    desk.write("a.txt", as_text(&documents));
    let top = "shard_tokens = 10000\n[held_out]\nfraction = 0.3\nnear_duplicates = 1.0";
    desk.build("out", &config(top, "a.txt", "")).unwrap();
    let corpus = desk.open("out");
    assert!(corpus.manifest().sources[0].train.tokens > 100_000, "more than is read at once");
    let texts = |side| corpus.texts(0, side).collect::<Result<Vec<_>, _>>().unwrap();
    let (train, held_out) = (texts(Side::Train), texts(Side::HeldOut));
    assert!(held_out.len() > 50);
    assert_eq!(train, decoded(&corpus, "train", "a"));
    assert_eq!(held_out, decoded(&corpus, "held_out", "a"));
    let both: HashSet<String> = train.into_iter().chain(held_out).collect();
    assert_eq!(both, documents.into_iter().collect());
}
