//! Training against PyPI `sentencepiece`, over the files that `testdata/scripts/training_golden.py` made, and what holds
//! for every text.

use proptest::prelude::*;
use puna_testkit::testdata;
use puna_tokenizer::train::{TrainConfig, Trained, train};
use puna_tokenizer::{PieceKind, Tokenizer, TokenizerError};
use std::collections::HashMap;

fn trained(text: &str, config: &TrainConfig) -> Result<Trained, TokenizerError> {
    train(std::iter::once(Ok(text.to_owned())), config, 1, |_| Ok(()))
}

/// With the largest vocabulary that the text supports, up to `most` pieces.
fn trained_up_to(most: usize, text: &str) -> Trained {
    let mut config = TrainConfig { character_coverage: 0.98, ..TrainConfig::new(most) };
    loop {
        match trained(text, &config) {
            Ok(trained) => return trained,
            Err(TokenizerError::VocabTooLarge { most, .. }) => config.vocab_size = most,
            Err(TokenizerError::VocabTooSmall { least, .. }) => config.vocab_size = least,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What `lines()` of the golden script gives.
fn golden_text() -> String {
    const N_CHARS: usize = 800;
    let bytes = std::fs::read(testdata("tokenizer/strings.bin")).unwrap();
    let mut rest = &bytes[4..];
    let mut strings = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk() {
        let (text, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        strings.push(std::str::from_utf8(text).unwrap());
        rest = after;
    }
    let named = ["\0", "\x1f", "\u{2585}", "<unk>", "<s>", "</s>"].map(String::from);
    let bytes = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>"));
    let reserved: Vec<String> = named.into_iter().chain(bytes).collect();
    let text = strings.join("\n");
    let is_plain = |line: &&str| !reserved.iter().any(|reserved| line.contains(reserved));
    let lines: Vec<&str> = text.lines_at_lf().filter(is_plain).collect();
    // Of equally frequent characters, the first in the text.
    let mut counts: HashMap<char, (usize, usize)> = HashMap::new();
    for (i, c) in lines.iter().flat_map(|line| line.chars()).enumerate() {
        counts.entry(c).or_insert((0, i)).0 += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, (n, first))| (std::cmp::Reverse(n), first));
    counts.truncate(N_CHARS);
    let frequent: HashMap<char, _> = counts.into_iter().collect();
    let lines = lines.into_iter().filter(|line| line.chars().all(|c| frequent.contains_key(&c)));
    lines.map(|line| format!("{line}\n")).collect()
}

trait LinesAtLf {
    /// Unlike `lines`, keeps `\r`; without empty lines.
    fn lines_at_lf(&self) -> impl Iterator<Item = &str>;
}

impl LinesAtLf for str {
    fn lines_at_lf(&self) -> impl Iterator<Item = &str> {
        self.split('\n').filter(|line| !line.is_empty())
    }
}

#[test]
fn what_is_learned_is_what_sentencepiece_learns() {
    let text = golden_text();
    let plain = TrainConfig { character_coverage: 1.0, ..TrainConfig::new(3000) };
    let user = TrainConfig {
        character_coverage: 0.98,
        user_defined: ["<fim>", "été", "of", "12", " the"].map(String::from).to_vec(),
        ..TrainConfig::new(1500)
    };
    for (name, config) in [("plain", plain), ("user", user)] {
        let golden = std::fs::read(testdata("tokenizer").join(format!("trained-{name}.model")));
        let golden = Tokenizer::from_sentencepiece(&golden.unwrap()).unwrap();
        let found = trained(&text, &config).unwrap();
        for (id, (found, golden)) in
            found.tokenizer.pieces().iter().zip(golden.pieces()).enumerate()
        {
            assert_eq!(found, golden, "{name}: piece {id}");
        }
        let again = Tokenizer::from_sentencepiece(&found.model).unwrap();
        assert_eq!(again.pieces(), golden.pieces(), "{name}");
        assert_eq!(again.settings(), golden.settings(), "{name}");
        let n_tokens: usize = text.lines_at_lf().map(|line| golden.encode(line).len()).sum();
        assert_eq!(found.n_tokens, n_tokens as u64, "{name}");
        assert_eq!(found.n_lines, text.lines_at_lf().count() as u64, "{name}");
        assert_eq!(found.n_bytes, (text.len() as u64) - found.n_lines, "{name}");
    }
}

#[test]
fn what_cannot_be_is_told() {
    let error = |text: &str, config: &TrainConfig| trained(text, config).unwrap_err().to_string();
    let with = |piece: &str| TrainConfig {
        user_defined: vec!["<a>".to_owned(), piece.to_owned()],
        ..TrainConfig::new(300)
    };
    let cases = [
        ("", TrainConfig::new(300), "expected at least one line that is not empty, found none"),
        ("\n\n", TrainConfig::new(300), "expected at least one line"),
        ("ab", TrainConfig::new(0), "expected 0 pieces, but 262 are needed"),
        ("ab ab", TrainConfig::new(261), "262 are needed before the first merge, 3 of them for"),
        (
            "ab ab",
            TrainConfig::new(300),
            "expected 300 pieces, but the text gives no more than 264",
        ),
        ("ab", with(""), "its text is empty"),
        ("ab", with("<a>"), "\"<a>\" appears twice"),
        ("ab", with("<s>"), "\"<s>\" appears twice"),
        ("ab", with("<0x41>"), "\"<0x41>\" appears twice"),
    ];
    for (text, config, expected) in cases {
        let error = error(text, &config);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    assert_eq!(trained("ab ab", &TrainConfig::new(264)).unwrap().tokenizer.vocab_size(), 264);
}

#[test]
fn a_caller_can_stop() {
    let lines = ["aa bb\n", "aa bb\n", "cc"].map(|line| Ok::<_, TokenizerError>(line.to_owned()));
    let stop = |n_merges| if n_merges == 2 { Err(TokenizerError::NoText) } else { Ok(()) };
    let stopped = train(lines.into_iter(), &TrainConfig::new(268), 2, stop);
    assert!(matches!(stopped, Err(TokenizerError::NoText)));
}

#[test]
fn numbers_are_digits_and_user_defined_pieces_are_whole() {
    let text = "in 1984 and 1985 <x> was a<x>b\n".repeat(20);
    let config = TrainConfig { user_defined: vec!["<x>".to_owned()], ..TrainConfig::new(281) };
    let trained = trained(&text, &config).unwrap();
    let pieces = |text: &str| {
        let ids = trained.tokenizer.encode(text).into_iter();
        ids.map(|id| trained.tokenizer.piece(id).unwrap().text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(pieces("in 1985"), ["▁in", "▁", "1", "9", "8", "5"]);
    assert_eq!(pieces("and<x>was")[1..2], ["<x>"]);
    assert_eq!(trained.tokenizer.piece(3).unwrap().kind, PieceKind::UserDefined);
    for piece in trained.tokenizer.pieces().iter().filter(|p| p.kind == PieceKind::Normal) {
        let n_chars = piece.text.chars().count();
        assert!(n_chars == 1 || !piece.text.contains(|c: char| c.is_ascii_digit() || c == '<'));
        assert!(n_chars <= 16);
    }
}

#[test]
fn a_space_is_a_piece_however_rare_it_is() {
    // One of 49 characters is the space before the text, and 98 % are covered without it.
    let text = "00000<x>aaaaaaaa0000000000<x>000000000aaaaaaaaaaa";
    let trained = trained_up_to(320, text);
    for text in [text, "a a"] {
        assert_eq!(trained.tokenizer.decode(&trained.tokenizer.encode(text)), text);
    }
}

fn any_text() -> impl Strategy<Value = String> {
    let part = "[ab]{1,9}|[a-f]{1,4}|[ \n\t]{1,5}|[0-9]{1,3}|<x>|\\PC{1,6}|.{1,3}";
    proptest::collection::vec(part, 1..60).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_text_comes_back(text in any_text(), other in any_text()) {
        prop_assume!(text.chars().any(|c| c != '\n' && c != '\0'));
        let trained = trained_up_to(320, &text);
        for text in [text, other] {
            prop_assert_eq!(trained.tokenizer.decode(&trained.tokenizer.encode(&text)), text.replace('▁', " "));
        }
    }

    #[test]
    fn the_file_depends_on_the_text_alone(text in any_text(), cuts in proptest::collection::vec(0usize..40, 0..6)) {
        prop_assume!(text.chars().any(|c| c != '\n' && c != '\0'));
        let whole = trained_up_to(320, &text);
        let config = TrainConfig { character_coverage: 0.98, ..TrainConfig::new(whole.tokenizer.vocab_size()) };
        let mut lines: Vec<String> = text.split_inclusive('\n').map(String::from).collect();
        for cut in cuts {
            // Two lines in one block, and lines in another order.
            if cut + 1 < lines.len() {
                let next = lines.remove(cut + 1);
                if lines[cut].ends_with('\n') { lines[cut].push_str(&next) } else { lines.insert(0, next) }
            }
        }
        for n_threads in [1, 2, 7] {
            let blocks = lines.iter().cloned().map(Ok::<_, TokenizerError>);
            let again = train(blocks, &config, n_threads, |_| Ok(())).unwrap();
            prop_assert_eq!(&again.model, &whole.model);
            prop_assert_eq!((again.n_tokens, again.n_words), (whole.n_tokens, whole.n_words));
        }
    }
}
