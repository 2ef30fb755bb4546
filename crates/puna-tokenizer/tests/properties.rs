//! What holds for every text and every list of ids.

use proptest::prelude::*;
use puna_testkit::testdata;
use puna_tokenizer::{PieceKind, Tokenizer};
use std::sync::LazyLock;

fn load(name: &str) -> Tokenizer {
    Tokenizer::from_sentencepiece(&std::fs::read(testdata("tokenizer").join(name)).unwrap())
        .unwrap()
}

static SMALL: LazyLock<Tokenizer> = LazyLock::new(|| load("small.model"));
static LARGE: LazyLock<Tokenizer> = LazyLock::new(|| load("large.model"));
static EDITED: LazyLock<Tokenizer> = LazyLock::new(|| load("edited.model"));
static BARE: LazyLock<Tokenizer> = LazyLock::new(|| load("bare.model"));

fn all() -> [&'static Tokenizer; 4] {
    [&SMALL, &LARGE, &EDITED, &BARE]
}

/// Texts with control pieces' texts, words, spaces and any character.
fn any_text() -> impl Strategy<Value = String> {
    let part = "<s>|</s>|<pad>|<unk>|<0x0A>|[a-z]{1,12}|[ \n\t]{1,5}|[0-9]{1,6}|\\PC{1,6}|.{1,3}";
    proptest::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
}

fn any_ids() -> impl Strategy<Value = Vec<u32>> {
    let id = prop_oneof![0u32..1000, 0u32..33_000, 3u32..259, Just(1), Just(u32::MAX)];
    proptest::collection::vec(id, 0..40)
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in any_text()) {
        // A `▁` in the text reads as a space: SentencePiece has no other mark.
        let expected = text.replace('▁', " ");
        for tokenizer in [&SMALL, &LARGE, &EDITED] {
            let ids = tokenizer.encode(&text);
            prop_assert_eq!(&tokenizer.decode(&ids), &expected);
            prop_assert_eq!(tokenizer.decode_bytes(&ids), expected.as_bytes());
        }
    }

    #[test]
    fn plain_text_never_gives_control_pieces(text in any_text()) {
        for tokenizer in all() {
            for id in tokenizer.encode(&text) {
                prop_assert_ne!(tokenizer.piece(id).unwrap().kind, PieceKind::Control);
            }
        }
    }

    #[test]
    fn specials_are_taken_out_and_the_rest_is_plain(parts in proptest::collection::vec("[a-z ]{1,12}", 1..6)) {
        let tokenizer = &*LARGE;
        let mut expected = Vec::new();
        for part in &parts {
            expected.push(1);
            tokenizer.encode_into(part, &mut expected);
            expected.push(2);
        }
        let text = format!("<s>{}</s>", parts.join("</s><s>"));
        prop_assert_eq!(tokenizer.encode_with_specials(&text), expected);
    }

    #[test]
    fn streaming_gives_what_decoding_gives(ids in any_ids()) {
        for tokenizer in all() {
            let mut decoder = tokenizer.decoder();
            let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
            streamed += &decoder.finish();
            prop_assert_eq!(&streamed, &tokenizer.decode(&ids));
            // Decoding bytes differs in bytes that are no character, and there alone.
            let bytes = tokenizer.decode_bytes(&ids);
            if std::str::from_utf8(&bytes).is_ok() && !streamed.contains('\u{FFFD}') {
                prop_assert_eq!(streamed.as_bytes(), bytes);
            }
        }
    }
}

#[test]
fn a_stream_holds_back_unfinished_characters() {
    let byte = |b: u8| SMALL.id_of(&format!("<0x{b:02X}>")).unwrap();
    let mut decoder = SMALL.decoder();
    let llama = "🦙".as_bytes();
    let out: Vec<String> = llama.iter().map(|&b| decoder.push(byte(b))).collect();
    assert_eq!(out, ["", "", "", "🦙"]);
    assert_eq!(decoder.push(byte(0xE2)), "");
    assert_eq!(decoder.push(byte(b'a')), "\u{FFFD}a");
    assert_eq!(decoder.push(byte(0xF0)), "");
    assert_eq!(decoder.push(byte(0x9F)), "");
    assert_eq!(decoder.finish(), "\u{FFFD}\u{FFFD}");
    assert_eq!(decoder.push(SMALL.encode("a")[0]), "a", "a finished decoder starts again");
}

#[test]
fn threads_share_a_tokenizer() {
    let text = "It was the best of times, it was the worst of times. ".repeat(50);
    let expected = LARGE.encode(&text);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(LARGE.encode(&text), expected));
        }
    });
}

/// A megabyte that cannot be cut takes time in proportion to its length, or nearly so.
#[test]
fn long_words_take_no_quadratic_time() {
    let time = |n: usize| {
        let text: String = "abcdefghij".chars().cycle().take(n).collect();
        let start = std::time::Instant::now();
        assert_eq!(LARGE.decode(&LARGE.encode(&text)), text);
        start.elapsed().as_secs_f64()
    };
    time(1000);
    let (short, long) = (time(20_000), time(1_000_000));
    assert!(long < 50.0 * 10.0 * short.max(1e-4), "20 kB: {short} s, 1 MB: {long} s");
}
