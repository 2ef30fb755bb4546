//! Byte-pair merging: a segment of text becomes the ids of its pieces.
//!
//! ```text
//! symbols ← the characters of the segment (a user-defined piece is one symbol that never merges)
//! queue   ← every adjacent pair whose concatenation is a piece, by (rank, position)
//! while the queue gives a pair that still stands:
//!     replace it by the piece; queue its two new neighbour pairs
//! ```
//!
//! A symbol is a number: the id of its piece or, for a character that is no piece, [`CHAR`] with the character. The
//! rules are therefore a map (left symbol, right symbol) → (rank, piece). SentencePiece ranks by the score of the
//! piece that results; Hugging Face's files rank each pair. Both fill the same map, and one encoder serves both.
//!
//! Text comes here with plain spaces: ' ' is the symbol of `▁`. Time is O(n log n) for any text.

use crate::TokenizerError;
use crate::trie::Trie;
use crate::vocab::{PieceKind, SPACE_MARK, Vocab};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

/// Marks a symbol that is a character without a piece.
const CHAR: u32 = 1 << 31;
/// Marks a symbol that never merges: a user-defined piece found in the text.
const FROZEN: u32 = 1 << 30;
/// No neighbour.
const NONE: usize = usize::MAX;
const NO_PIECE: u32 = u32::MAX;

/// The rule for one pair of symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    /// Lower merges first.
    pub(crate) rank: u32,
    /// The piece that results.
    pub(crate) piece: u32,
}

/// (left symbol, right symbol) → rule.
pub(crate) type Rules = HashMap<(u32, u32), Merge, BuildHasherDefault<PairHasher>>;

/// The merging part of a tokenizer.
#[derive(Debug)]
pub(crate) struct Merger {
    rules: Rules,
    /// Characters that are pieces.
    chars: HashMap<char, u32, BuildHasherDefault<PairHasher>>,
    /// The symbols of ASCII, the part of `chars` that matters for speed.
    ascii: [u32; 128],
    /// User-defined pieces, with plain spaces.
    user_defined: Trie,
    has_unused: bool,
}

/// Buffers of [`Merger::encode`], kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
    /// Unused piece → the pair last seen that makes it.
    splits: Splits,
}

type Splits = HashMap<u32, (u32, u32)>;

#[derive(Debug)]
struct Symbol {
    id: u32,
    /// The piece that this symbol and the next one make, [`NO_PIECE`] if none or if this symbol was merged away.
    with_next: u32,
    prev: usize,
    next: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    piece: u32,
}

impl Scratch {
    /// Drops buffers that one very long part has blown up.
    pub(crate) fn trim(&mut self) {
        const KEEP: usize = 1 << 16;
        if self.symbols.capacity() > KEEP {
            *self = Self::default();
        }
    }
}

impl Merger {
    /// `match_user_defined`: whether user-defined pieces are found inside the text, as SentencePiece does.
    pub(crate) fn new(vocab: &Vocab, rules: Rules, match_user_defined: bool) -> Self {
        let mut chars = HashMap::default();
        for (id, piece) in (0u32..).zip(&vocab.pieces) {
            if let (true, Some(c)) = (piece.kind.is_mergeable(), only_char(&piece.text)) {
                chars.insert(c, id);
            }
        }
        let symbol = |c| chars.get(&c).copied().unwrap_or(CHAR | c as u32);
        let mut ascii = std::array::from_fn(|b| symbol(b as u8 as char));
        ascii[usize::from(b' ')] = symbol(SPACE_MARK);
        let mut user_defined = Trie::default();
        // A piece with a plain space never matches: text has `▁` there.
        let matched = vocab.of_kind(PieceKind::UserDefined).filter(|(_, p)| !p.text.contains(' '));
        for (id, piece) in matched.filter(|_| match_user_defined) {
            user_defined.insert(&piece.text.replace(SPACE_MARK, " "), id);
        }
        let has_unused = vocab.of_kind(PieceKind::Unused).next().is_some();
        Self { rules, chars, ascii, user_defined, has_unused }
    }

    /// Whether the result for a text depends on nothing but merges inside it, so that texts may be cut between
    /// characters that no piece holds together. SentencePiece splits unused pieces by what it saw anywhere before.
    pub(crate) fn is_local(&self) -> bool {
        !self.has_unused
    }

    /// Appends the ids of `text`, whose spaces are plain. Nothing is put before it.
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        self.split(text, &mut scratch.symbols);
        scratch.queue.clear();
        scratch.splits.clear();
        for left in 0..scratch.symbols.len() {
            self.offer(scratch, left);
        }
        while let Some(Reverse(best)) = scratch.queue.pop() {
            self.apply(scratch, &best);
        }
        let (mut at, start) = (0, out.len());
        while let Some(symbol) = scratch.symbols.get(at) {
            at = symbol.next;
            self.emit(vocab, symbol.id, &scratch.splits, start, out);
        }
    }

    fn split(&self, text: &str, symbols: &mut Vec<Symbol>) {
        symbols.clear();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (len, id) = match self.user_defined.longest_prefix(rest.as_bytes()) {
                Some((len, id)) => (len, id | FROZEN),
                None => (c.len_utf8(), self.symbol(c)),
            };
            rest = &rest[len..];
            let at = symbols.len();
            let next = if rest.is_empty() { NONE } else { at + 1 };
            symbols.push(Symbol { id, with_next: NO_PIECE, prev: at.wrapping_sub(1), next });
        }
    }

    fn symbol(&self, c: char) -> u32 {
        match self.ascii.get(c as usize) {
            Some(&symbol) => symbol,
            None => self.chars.get(&c).copied().unwrap_or(CHAR | c as u32),
        }
    }

    /// Queues the symbol at `left` and its next one if a rule joins them.
    fn offer(&self, scratch: &mut Scratch, left: usize) {
        let symbols = &mut scratch.symbols;
        let next = symbols[left].next;
        let rule = symbols.get(next).and_then(|next| self.rules.get(&(symbols[left].id, next.id)));
        let Some(&Merge { rank, piece }) = rule else {
            symbols[left].with_next = NO_PIECE;
            return;
        };
        symbols[left].with_next = piece;
        scratch.queue.push(Reverse(Candidate { rank, left, piece }));
        if self.has_unused {
            scratch.splits.insert(piece, (symbols[left].id, symbols[next].id));
        }
    }

    /// Merges the queued pair, unless one of its sides has changed since.
    fn apply(&self, scratch: &mut Scratch, best: &Candidate) {
        let symbols = &mut scratch.symbols;
        let left = best.left;
        if symbols[left].with_next != best.piece {
            return;
        }
        let right = symbols[left].next;
        let (prev, next) = (symbols[left].prev, symbols[right].next);
        symbols[right].with_next = NO_PIECE;
        symbols[left].id = best.piece;
        symbols[left].next = next;
        if next != NONE {
            symbols[next].prev = left;
        }
        if prev != NONE {
            self.offer(scratch, prev);
        }
        self.offer(scratch, left);
    }

    /// Appends the ids of one finished symbol; an unused piece is split back into the pair that made it.
    /// The ids of this text begin at `out[start]`.
    fn emit(&self, vocab: &Vocab, symbol: u32, splits: &Splits, start: usize, out: &mut Vec<u32>) {
        if !self.has_unused {
            return emit_whole(vocab, symbol, start, out);
        }
        let mut stack = vec![symbol];
        while let Some(symbol) = stack.pop() {
            let unused =
                symbol & (CHAR | FROZEN) == 0 && vocab.kind(symbol) == Some(PieceKind::Unused);
            match splits.get(&symbol).filter(|_| unused) {
                Some(&(left, right)) => stack.extend([right, left]),
                None => emit_whole(vocab, symbol, start, out),
            }
        }
    }
}

fn emit_whole(vocab: &Vocab, symbol: u32, start: usize, out: &mut Vec<u32>) {
    if symbol & CHAR == 0 {
        return out.push(symbol & !FROZEN);
    }
    match (&vocab.byte_ids, vocab.unk_id) {
        (Some(byte_ids), _) => {
            let c = char::from_u32(symbol & !CHAR).unwrap_or(char::REPLACEMENT_CHARACTER);
            let mut utf8 = [0; 4];
            out.extend(c.encode_utf8(&mut utf8).bytes().map(|b| byte_ids[usize::from(b)]));
        }
        // A run of unknown characters is one unknown piece.
        (None, Some(unk)) if !out[start..].ends_with(&[unk]) => out.push(unk),
        _ => {}
    }
}

/// Rules as SentencePiece has them: every split of every piece into two symbols, ranked by the score of the piece.
pub(crate) fn rules_by_score(vocab: &Vocab) -> Rules {
    let mergeable = || (0u32..).zip(&vocab.pieces).filter(|(_, p)| p.kind.is_mergeable());
    let mut scores: Vec<f32> = mergeable().map(|(_, p)| p.score).collect();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    // -0.0 and 0.0 are the same score: `==`, not the order of `total_cmp`, decides.
    scores.dedup_by(|a, b| a == b);
    let mut rules = Rules::default();
    for (piece, p) in mergeable() {
        let rank = scores.partition_point(|&s| s > p.score) as u32;
        for (cut, _) in p.text.char_indices().skip(1) {
            if let (Some(left), Some(right)) =
                (symbol_of(vocab, &p.text[..cut]), symbol_of(vocab, &p.text[cut..]))
            {
                rules.insert((left, right), Merge { rank, piece });
            }
        }
    }
    rules
}

/// The symbol that `text` is while merging: a piece, or a single character that is no piece.
fn symbol_of(vocab: &Vocab, text: &str) -> Option<u32> {
    piece_of(vocab, text).or_else(|| only_char(text).map(|c| CHAR | c as u32))
}

fn piece_of(vocab: &Vocab, text: &str) -> Option<u32> {
    vocab.id_of(text).filter(|&id| vocab.kind(id).is_some_and(PieceKind::is_mergeable))
}

fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// Rules in the order of a list of merges; a pair listed twice keeps its last place, as in Hugging Face's reader.
pub(crate) fn rules_by_list<'a>(
    vocab: &Vocab,
    merges: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Rules, TokenizerError> {
    let mut rules = Rules::default();
    let mut product = String::new();
    for (index, (left, right)) in merges.enumerate() {
        product.clear();
        product.extend([left, right]);
        let id = |text: &str| {
            piece_of(vocab, text).ok_or_else(|| TokenizerError::BadMerge {
                index,
                rule: format!("{left} {right}"),
                reason: format!("{text:?} is no piece of text"),
            })
        };
        rules.insert((id(left)?, id(right)?), Merge { rank: index as u32, piece: id(&product)? });
    }
    Ok(rules)
}

/// A multiplicative hash for pairs of small numbers. The keys come from the vocabulary, once checked, and from text
/// only by way of it, so nobody gains by making them collide.
#[derive(Debug, Default)]
pub(crate) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0 ^ u64::from(n)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}
