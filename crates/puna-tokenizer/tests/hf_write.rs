//! Hugging Face's files as this crate writes them: against the published ones, and read back.

use puna_testkit::{shared_data, testdata};
use puna_tokenizer::{Piece, PieceKind, Settings, Tokenizer};
use serde_json::Value;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(testdata("tokenizer").join(name)).unwrap()
}

/// The strings of the golden files.
fn strings() -> Vec<String> {
    let bytes = read("strings.bin");
    let (mut rest, mut strings) = (&bytes[4..], Vec::new());
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (text, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        strings.push(String::from_utf8(text.to_vec()).unwrap());
        rest = after;
    }
    strings
}

/// What is written reads back as the same tokenizer.
fn check(tokenizer: &Tokenizer, strings: &[String]) {
    let json = tokenizer.to_hf_json(true, false).unwrap();
    let config = tokenizer.to_hf_config(true, false, None);
    let back = Tokenizer::from_hf_json(&json, Some(&config)).unwrap();
    assert_eq!(back.settings(), tokenizer.settings());
    for (mine, theirs) in back.pieces().iter().zip(tokenizer.pieces()) {
        assert_eq!((&mine.text, mine.kind), (&theirs.text, theirs.kind));
    }
    for text in strings {
        assert_eq!(back.encode(text), tokenizer.encode(text), "{text:?}");
    }
    back.check_ranked_by_score().unwrap();
}

#[test]
fn trained_vocabularies_read_back() {
    let strings = strings();
    assert!(strings.len() > 20_000);
    for name in ["small.model", "large.model"] {
        check(&Tokenizer::from_sentencepiece(&read(name)).unwrap(), &strings);
    }
}

#[test]
fn settings_read_back() {
    let piece = |(text, kind): (&str, PieceKind)| Piece { text: text.into(), score: 0.0, kind };
    let mut pieces: Vec<_> =
        [("<unk>", PieceKind::Unknown), ("<s>", PieceKind::Control), ("</s>", PieceKind::Control)]
            .map(piece)
            .to_vec();
    let normal = ["▁a", "▁", "a", "b", "▁▁"];
    pieces.extend((0..).zip(normal).map(|(rank, text)| Piece {
        text: text.into(),
        score: -(rank as f32),
        kind: PieceKind::Normal,
    }));
    let texts = ["a  b ", " a", "", "b▁ a", "   ", "a  a  a"].map(str::to_owned);
    for (add_dummy_prefix, remove_extra_whitespaces) in
        [(true, false), (false, false), (true, true), (false, true)]
    {
        let settings = Settings {
            add_dummy_prefix,
            remove_extra_whitespaces,
            byte_fallback: false,
            ..Settings::default()
        };
        check(&Tokenizer::from_pieces(pieces.clone(), settings).unwrap(), &texts);
    }
}

#[test]
fn what_the_file_cannot_say_is_refused() {
    let listed = Tokenizer::from_hf_json(&read("small.json"), None).unwrap();
    listed.check_ranked_by_score().unwrap();
    let mut file: Value = serde_json::from_slice(&read("small.json")).unwrap();
    file["model"]["merges"].as_array_mut().unwrap().pop();
    let cut = Tokenizer::from_hf_json(file.to_string().as_bytes(), None).unwrap();
    let message = cut.to_hf_json(true, false).unwrap_err().to_string();
    assert!(message.contains("merges, for a vocabulary with scores"), "{message}");
    let mut pieces = listed.pieces().to_vec();
    pieces.push(Piece { text: "a\u{10FFFD}".into(), score: -1e6, kind: PieceKind::Normal });
    let odd = Tokenizer::from_pieces(pieces, listed.settings().clone()).unwrap();
    let message = odd.to_hf_json(true, false).unwrap_err().to_string();
    assert!(message.contains("a character that is no piece"), "{message}");
}

/// All of Llama 2's own `tokenizer.json`, 61,249 merges in their order among it, from its `tokenizer.model`.
#[test]
fn the_published_file_is_written_to_the_letter() {
    let Some(data) = shared_data() else { return };
    let folder = data.join("tokenizer").join("llama2");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let tokenizer = Tokenizer::from_sentencepiece(&read("tokenizer.model")).unwrap();
    let written = tokenizer.to_hf_json(true, false).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    let published: Value = serde_json::from_slice(&read("tokenizer.json")).unwrap();
    for (field, value) in published.as_object().unwrap() {
        assert!(written[field] == *value, "{field} differs");
    }
    assert_eq!(written.as_object().unwrap().len(), published.as_object().unwrap().len());
    check(&tokenizer, &strings());
}
