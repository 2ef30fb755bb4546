//! Damaged, hostile and foreign vocabulary files: each gives one error that says what is wrong.

use puna_testkit::{testdata, workspace_root};
use puna_tokenizer::{Piece, PieceKind, Settings, Tokenizer, TokenizerError};
use serde_json::{Value, json};

fn expect(result: Result<Tokenizer, TokenizerError>, expected: &str) {
    let error = result.expect_err(expected).to_string();
    assert!(error.contains(expected), "expected {expected:?} in: {error}");
}

fn seed(path: &str) -> Vec<u8> {
    std::fs::read(workspace_root().join("fuzz/seeds").join(path)).unwrap()
}

/// `bytes` with the only occurrence of `old` replaced.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i..].starts_with(old)).collect();
    assert_eq!(places.len(), 1, "occurrences of {old:?}");
    [&bytes[..places[0]], new, &bytes[places[0] + old.len()..]].concat()
}

#[test]
fn truncated_files_are_errors() {
    let bin = seed("tokenizer_llama2c/letters");
    let (n_pieces, bin) = (u16::from_le_bytes([bin[0], bin[1]]).into(), &bin[2..]);
    assert!(Tokenizer::from_llama2c(bin, n_pieces).is_ok());
    for end in 0..bin.len() {
        expect(Tokenizer::from_llama2c(&bin[..end], n_pieces), "more bytes, found");
    }
    let json = std::fs::read(testdata("tokenizer/small.json")).unwrap();
    for end in (0..json.len()).step_by(97) {
        expect(Tokenizer::from_hf_json(&json[..end], None), "tokenizer.json: EOF while parsing");
    }
    let model = seed("tokenizer_model/letters");
    assert!(Tokenizer::from_sentencepiece(&model).is_ok());
    for end in 0..model.len() {
        assert!(Tokenizer::from_sentencepiece(&model[..end]).is_err(), "cut at byte {end}");
    }
    expect(
        Tokenizer::from_sentencepiece(&model[..model.len() - 1]),
        "at byte 160: expected 14 more bytes, found 13",
    );
}

#[test]
fn foreign_models_are_named() {
    let model = seed("tokenizer_model/letters");
    let identity = b"\x0a\x08identity";
    let charsmap = b"\x0a\x04nfkc\x12\x02ab";
    let expected = "normaliser: expected identity, found \"nfkc\" with a character map of 2 bytes";
    expect(Tokenizer::from_sentencepiece(&replaced(&model, identity, charsmap)), expected);
    let bpe = b"\x18\x02\x98\x02\x00";
    let unigram = b"\x18\x01\x98\x02\x00";
    let expected = "model_type: expected 2 (BPE), found 1";
    expect(Tokenizer::from_sentencepiece(&replaced(&model, bpe, unigram)), expected);
    expect(Tokenizer::from_sentencepiece(b""), "model_type: expected 2 (BPE), found 1");
    expect(Tokenizer::from_sentencepiece(b"GGUF\x03\0\0\0"), "at byte");
}

#[test]
fn a_bin_must_fit_the_vocabulary() {
    let bin = seed("tokenizer_llama2c/letters");
    let n_pieces = usize::from(u16::from_le_bytes([bin[0], bin[1]]));
    expect(
        Tokenizer::from_llama2c(&bin[2..], n_pieces - 1),
        "expected the end after 263 pieces, found 9 more bytes",
    );
    expect(Tokenizer::from_llama2c(&bin[2..], n_pieces + 1), "expected 4 more bytes, found 0");
    expect(Tokenizer::from_llama2c(&bin[2..], usize::MAX), "expected 4 more bytes, found 0");
    let length = replaced(&bin[2..], b"\x05\0\0\0<unk>", b"\xff\xff\xff\xff<unk>");
    expect(Tokenizer::from_llama2c(&length, n_pieces), "piece 0: its length is -1");
    let text = replaced(&bin[2..], b"<unk>", b"<\xff\xff\xff>");
    expect(Tokenizer::from_llama2c(&text, n_pieces), "piece 0: its text is not UTF-8");
}

/// Loads tests' `small.json` after `change`.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, TokenizerError> {
    let mut file: Value =
        serde_json::from_slice(&std::fs::read(testdata("tokenizer/small.json")).unwrap()).unwrap();
    change(&mut file);
    Tokenizer::from_hf_json(&serde_json::to_vec(&file).unwrap(), None)
}

#[test]
fn what_a_tokenizer_json_may_not_ask_for() {
    assert!(changed(|_| {}).is_ok());
    type Case = (&'static str, Value, &'static str);
    let cases: [Case; 15] = [
        ("/model/type", json!("WordPiece"), "model.type: expected BPE, found WordPiece"),
        ("/model/dropout", json!(0.1), "model.dropout: expected none, found 0.1"),
        ("/model/end_of_word_suffix", json!("</w>"), "found </w>"),
        ("/model/vocab", json!(["a"]), "expected a map"),
        (
            "/model/vocab/er",
            json!(4_000_000_000u32),
            "has id 4000000000, but there are only 1000 pieces",
        ),
        ("/model/vocab/er", json!(999), "both have id 999"),
        (
            "/model/merges/7",
            json!("a b c"),
            "merge 7 (\"a b c\"): expected two pieces with one space between",
        ),
        ("/model/merges/7", json!(["Ж", "b"]), "merge 7 (\"Ж b\"): \"Ж\" is no piece of text"),
        ("/model/merges/7", json!(["z", "q"]), "merge 7 (\"z q\"): \"zq\" is no piece of text"),
        ("/model/merges/7", json!(7), "tokenizer.json: data did not match"),
        ("/normalizer", json!({"type": "NFKC"}), r#"found {"type":"NFKC"}"#),
        ("/normalizer", Value::Null, "one of them that makes spaces ▁, found null and null"),
        ("/pre_tokenizer", json!({"type": "ByteLevel"}), "ByteLevel"),
        ("/added_tokens/1/id", json!(5), "added token \"<s>\" has id 5, the vocabulary says 1"),
        ("/added_tokens/1/id", json!("x"), "tokenizer.json: invalid type"),
    ];
    for (path, value, expected) in cases {
        expect(changed(|file| *file.pointer_mut(path).expect(path) = value), expected);
    }
    let token = |more: Value| {
        let mut token =
            json!({"id": 1000, "content": "<x>", "special": false, "normalized": false});
        token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        changed(|file| file["added_tokens"].as_array_mut().unwrap().push(token))
    };
    expect(
        token(json!({"lstrip": true})),
        "expected no lstrip, rstrip, single_word, found one of them for \"<x>\"",
    );
    expect(token(json!({"normalized": true})), "\"normalized\": true for \"<x>\"");
    expect(token(json!({"id": 1001})), "piece \"<x>\" has id 1001, but there are only 1001 pieces");
    let tokenizer = token(json!({})).unwrap();
    assert_eq!(
        tokenizer.encode("a<x>b"),
        [tokenizer.encode("a"), vec![1000], tokenizer.encode("b")].concat()
    );
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    let split =
        changed(|file| (file["normalizer"], file["pre_tokenizer"]) = (Value::Null, metaspace));
    expect(split, "expected Metaspace that replaces by ▁ and does not split");
    expect(Tokenizer::from_hf_json(&"[".repeat(100_000).into_bytes(), None), "tokenizer.json: ");
    let json = std::fs::read(testdata("tokenizer/small.json")).unwrap();
    expect(Tokenizer::from_hf_json(&json, Some(b"{")), "tokenizer_config.json: EOF");
    let config = br#"{"bos_token": {"content": "<bos>"}}"#;
    expect(
        Tokenizer::from_hf_json(&json, Some(config)),
        "bos_token is \"<bos>\", which tokenizer.json does not have",
    );
}

#[test]
fn pieces_must_make_a_vocabulary() {
    let piece = |text: &str, kind| Piece { text: text.to_owned(), score: 0.0, kind };
    let plain =
        || Settings { byte_fallback: false, bos_id: None, eos_id: None, ..Settings::default() };
    let unk = || piece("<unk>", PieceKind::Unknown);
    let check = |pieces: Vec<Piece>, settings: Settings, expected: &str| {
        expect(Tokenizer::from_pieces(pieces, settings), expected);
    };
    check(vec![], plain(), "expected 1 to 1073741824 pieces, found 0");
    check(vec![unk(), piece("", PieceKind::Normal)], plain(), "piece 1: its text is empty");
    check(
        vec![unk(), piece(&"x".repeat(9999), PieceKind::Normal)],
        plain(),
        "has 9999 bytes, the limit is 2048",
    );
    let nan = Piece { score: f32::NAN, ..piece("a", PieceKind::Normal) };
    check(vec![unk(), nan], plain(), "piece 1: its score is not a number");
    let twice = vec![unk(), piece("a", PieceKind::Normal), piece("a", PieceKind::Control)];
    check(twice, plain(), "piece \"a\" appears twice, as id 1 and as id 2");
    check(
        vec![unk(), piece("<0x41>", PieceKind::Byte)],
        plain(),
        "is a byte piece, but byte fallback is off",
    );
    check(
        vec![unk(), piece("b", PieceKind::Unknown)],
        plain(),
        "expected one unknown piece, found ids 0 and 1",
    );
    check(
        vec![piece("a", PieceKind::Normal)],
        plain(),
        "neither an unknown piece nor byte fallback",
    );
    let bytes = || Settings { byte_fallback: true, ..plain() };
    check(vec![unk()], bytes(), "there is no piece for byte 0x00");
    check(
        vec![unk(), piece("<0x4g>", PieceKind::Byte)],
        bytes(),
        "must look like <0x0A>, found \"<0x4g>\"",
    );
    check(
        vec![unk()],
        Settings { bos_id: Some(7), ..plain() },
        "the BOS id is 7, but there are only 1 pieces",
    );
}

/// BOS and EOS are control pieces even where a file calls them ordinary text.
#[test]
fn text_never_becomes_bos() {
    let piece = |text: &str, kind| Piece { text: text.to_owned(), score: 0.0, kind };
    let pieces = vec![
        piece("<unk>", PieceKind::Unknown),
        piece("s", PieceKind::Normal),
        piece("e", PieceKind::Normal),
    ];
    let settings = Settings { byte_fallback: false, ..Settings::default() };
    let tokenizer = Tokenizer::from_pieces(pieces, settings).unwrap();
    assert_eq!(tokenizer.encode("se"), [0]);
    assert_eq!(tokenizer.encode_with_specials("se"), [1, 2]);
}
