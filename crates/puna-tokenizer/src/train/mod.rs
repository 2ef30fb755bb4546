//! Training a vocabulary with Llama 2's settings.
//!
//! The paper: byte-pair encoding of SentencePiece, all numbers split into digits, bytes for unknown characters, 32,000
//! pieces. The rest stands in Llama 2's own `tokenizer.model`: identity normaliser, a space before the text, pieces of
//! spaces alone, no piece of several scripts or longer than 16 characters, 0.99995 of characters covered. Pieces are
//! numbered as `sentencepiece` numbers them: unknown, BOS, EOS, user-defined, bytes, merges best first, characters by
//! frequency.
//!
//! What is learned depends on the text's lines alone, not on how they come or on the number of threads. It is what
//! `sentencepiece` 0.2.3 learns, but for four things. There, what reads like `<s>` or `<0x41>` in the text is left out; a
//! line with U+2585 is left out; scripts are those of an older Unicode; and pairs that no longer occur are merged too
//! when all others have been, where we say that the text gives no more pieces.

mod merges;
mod words;

use std::cmp::Reverse;
use std::collections::HashMap;

use self::words::Words;
use crate::trie::Trie;
use crate::vocab::{Piece, PieceKind, SPACE_MARK, Settings};
use crate::{Tokenizer, TokenizerError, sentencepiece};

/// Most characters of a piece, as in Llama 2's vocabulary.
pub(crate) const MAX_PIECE_CHARS: u8 = merges::MAX_CHARS;

/// What to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Number of pieces, all kinds together.
    pub vocab_size: usize,
    /// Characters become pieces, the most frequent first, until they make up this share of the text; the rest is left to
    /// bytes.
    pub character_coverage: f32,
    /// Pieces always taken whole. A space in them is a space in the text.
    pub user_defined: Vec<String>,
}

impl TrainConfig {
    /// Llama 2's settings.
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, character_coverage: 0.99995, user_defined: Vec::new() }
    }
}

/// What came out, and of what.
#[derive(Debug)]
pub struct Trained {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Its `tokenizer.model`, with the settings of the training.
    pub model: Vec<u8>,
    /// Lines that are not empty.
    pub n_lines: u64,
    /// Bytes of these, without line ends.
    pub n_bytes: u64,
    /// Different words, a word being what no piece reaches out of.
    pub n_words: usize,
    /// Pieces made by merging.
    pub n_merges: usize,
    /// Pieces of one character, made of the text.
    pub n_chars: usize,
    /// Tokens of the text, each line encoded alone, line ends left out.
    pub n_tokens: u64,
}

/// Trains on `blocks` of whole lines. `on_merge` hears the number of merges so far, again and again.
///
/// # Errors
/// Those of `blocks` and `on_merge`; a text without characters; a vocabulary larger than the text supports or too small
/// for its characters; user-defined pieces that are empty, overlong, repeated or pieces already.
///
/// # Panics
/// If `n_threads` is 0.
pub fn train<E: From<TokenizerError>>(
    blocks: impl Iterator<Item = Result<String, E>>,
    config: &TrainConfig,
    n_threads: usize,
    on_merge: impl FnMut(usize) -> Result<(), E>,
) -> Result<Trained, E> {
    assert!(n_threads > 0, "training needs a thread");
    let mut pieces = fixed_pieces(&config.user_defined);
    // Says what is wrong with user-defined pieces before the long work.
    Tokenizer::from_pieces(pieces.clone(), Settings::default())?;
    let mut user_defined = Trie::default();
    for (id, text) in (0..).zip(&config.user_defined) {
        user_defined.insert(&text.replace(SPACE_MARK, " "), id);
    }
    let words = words::count(blocks, &user_defined, n_threads)?;
    let alphabet = alphabet(&words.counts, config.character_coverage);
    let n_merges = n_merges(config.vocab_size, pieces.len(), alphabet.len())?;
    let merges = merges::learn(&words.counts, &alphabet, n_merges, on_merge)?;
    if merges.len() < n_merges {
        let most = config.vocab_size - n_merges + merges.len();
        return Err(TokenizerError::VocabTooLarge { asked: config.vocab_size, most }.into());
    }
    let chars = alphabet.iter().map(|&c| String::from(if c == ' ' { SPACE_MARK } else { c }));
    let learned = merges.into_iter().map(String::from).chain(chars);
    pieces.extend(learned.enumerate().map(|(rank, text)| Piece {
        text,
        score: -(rank as f32),
        kind: PieceKind::Normal,
    }));
    let n_tokens = n_tokens(&pieces, &words, n_threads)?;
    let tokenizer = Tokenizer::from_pieces(pieces, Settings::default())?;
    Ok(Trained {
        model: sentencepiece::write(&tokenizer, Some(config))?,
        tokenizer,
        n_lines: words.n_lines,
        n_bytes: words.n_bytes,
        n_words: words.counts.len(),
        n_merges,
        n_chars: alphabet.len(),
        n_tokens,
    })
}

/// The pieces that do not depend on the text.
fn fixed_pieces(user_defined: &[String]) -> Vec<Piece> {
    let piece = |text: String, kind| Piece { text, score: 0.0, kind };
    let named =
        [("<unk>", PieceKind::Unknown), ("<s>", PieceKind::Control), ("</s>", PieceKind::Control)];
    let named = named.map(|(text, kind)| piece(text.to_owned(), kind));
    let user_defined = user_defined.iter().map(|text| text.replace(' ', "▁"));
    let user_defined = user_defined.map(|text| piece(text, PieceKind::UserDefined));
    let bytes = (0..=255u8).map(|byte| piece(format!("<0x{byte:02X}>"), PieceKind::Byte));
    named.into_iter().chain(user_defined).chain(bytes).collect()
}

/// The characters that become pieces, the most frequent first, of equals that with the lower code. NUL is left to its
/// byte, as in `sentencepiece`, whose pieces end at it. A space is always one of them, which `sentencepiece` leaves to
/// chance.
fn alphabet(words: &[(Box<str>, u64)], coverage: f32) -> Vec<char> {
    let mut counts: HashMap<char, u64> = HashMap::new();
    for (word, n) in words {
        for c in word.chars().filter(|&c| c != '\0') {
            *counts.entry(c).or_default() += n;
        }
    }
    let total: u64 = counts.values().sum();
    let mut counts: Vec<(char, u64)> = counts.into_iter().collect();
    counts.sort_unstable_by_key(|&(c, n)| (Reverse(n), if c == ' ' { SPACE_MARK } else { c }));
    let mut covered = 0;
    // Rounded to f32 like the setting, so that a setting of 0.9 is reached by 9 of 10.
    let wanted = counts.iter().take_while(|&&(_, n)| {
        let before = (covered as f64 / total as f64) as f32;
        covered += n;
        before < coverage
    });
    let mut alphabet: Vec<char> = wanted.map(|&(c, _)| c).collect();
    // Left to its bytes, a space would come back as the mark that stands for it.
    if counts.iter().any(|&(c, _)| c == ' ') && !alphabet.contains(&' ') {
        alphabet.push(' ');
    }
    alphabet
}

/// How many merges make `asked` pieces.
fn n_merges(asked: usize, n_fixed: usize, n_chars: usize) -> Result<usize, TokenizerError> {
    if n_chars == 0 {
        return Err(TokenizerError::NoText);
    }
    let least = n_fixed + n_chars;
    asked.checked_sub(least).ok_or(TokenizerError::VocabTooSmall { asked, least, n_chars })
}

/// Tokens of the text. Words are what no piece reaches out of, so each is encoded once, alone.
fn n_tokens(pieces: &[Piece], words: &Words, n_threads: usize) -> Result<u64, TokenizerError> {
    let settings = Settings { add_dummy_prefix: false, ..Settings::default() };
    let tokenizer = &Tokenizer::from_pieces(pieces.to_vec(), settings)?;
    let parts = words.counts.chunks(words.counts.len().div_ceil(n_threads).max(1));
    let in_words: u64 = std::thread::scope(|scope| {
        let count = |part: &[(Box<str>, u64)]| {
            let mut ids = Vec::new();
            let of_word = |(word, n): &(Box<str>, u64)| {
                ids.clear();
                tokenizer.encode_into(word, &mut ids);
                n * ids.len() as u64
            };
            part.iter().map(of_word).sum::<u64>()
        };
        let workers: Vec<_> = parts.map(|part| scope.spawn(move || count(part))).collect();
        let counts = workers.into_iter().map(|worker| match worker.join() {
            Ok(count) => count,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        counts.sum()
    });
    Ok(in_words + words.n_user_defined)
}
