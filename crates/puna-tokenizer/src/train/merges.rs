//! Byte-pair encoding over counted words: time and again the most frequent pair of neighbours becomes a symbol.
//!
//! Of pairs that are equally frequent the shorter comes first, then the one whose text is less, as in `sentencepiece`.
//! Like there, "aaa" counts as two "aa" until one of them is merged.
//!
//! All words stand in one row of slots, a character a slot, with a gap before each word and behind the last. A merge
//! writes the new symbol into the first slot of the left one and empties the first slot of the right one; as symbols
//! are short, neighbours are found by looking.
//!
//! A pair of neighbours comes into being when the younger of its two symbols does, everywhere at once; later merges only
//! take occurrences away. So its list of occurrences never grows, the count it had before is an upper bound, and a
//! queue by such counts needs no updates: a pair that comes out of it is counted again, and goes back if it has become
//! less (Minoux 1978, "Accelerated greedy algorithms").

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use unicode_script::Script;

use super::words::Class;
use crate::TokenizerError;
use crate::vocab::SPACE_MARK;

/// Most characters of a piece, in SentencePiece's default, which Llama 2 has.
pub(super) const MAX_CHARS: u8 = 16;

/// In a slot: before a word, or in place of a character that is no piece.
const GAP: u32 = 0;
/// In a slot: taken by the symbol on the left.
const TAKEN: u32 = 1;

/// The texts of at most `n_merges` merges, best first; fewer if no pairs are left. `on_pair` is called now and then, with
/// the number of merges so far.
pub(super) fn learn<E: From<TokenizerError>>(
    words: &[(Box<str>, u64)],
    alphabet: &[char],
    n_merges: usize,
    mut on_pair: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Box<str>>, E> {
    let mut learner = Learner::new(words, alphabet)?;
    learner.add_first_pairs();
    let (mut merges, mut known) = (Vec::new(), HashSet::new());
    while merges.len() < n_merges {
        on_pair(merges.len())?;
        let Some(mut pair) = learner.queue.pop() else { break };
        let count_before = pair.count;
        learner.recount(&mut pair);
        if pair.count < count_before {
            if pair.count > 0 {
                learner.queue.push(pair);
            }
            continue;
        }
        // A text made in another way, as "ab" + "a" and "a" + "ba", is not merged again; `sentencepiece` does so.
        if known.insert(pair.text.0.clone()) {
            merges.push(pair.text.0.clone());
            learner.merge(&pair);
        }
    }
    Ok(merges)
}

/// A character or a merged text.
struct Symbol {
    text: Box<str>,
    n_chars: u8,
    n_spaces: u8,
    /// `None` if it goes with any.
    script: Option<Script>,
}

impl Symbol {
    fn of_char(c: char) -> Self {
        let class = Class::of(c);
        let c = if class == Class::Space { SPACE_MARK } else { c };
        let script = if let Class::Of(script) = class { Some(script) } else { None };
        let n_spaces = u8::from(class == Class::Space);
        Self { text: String::from(c).into(), n_chars: 1, n_spaces, script }
    }

    fn is_spaces(&self) -> bool {
        self.n_spaces == self.n_chars
    }

    /// Whether `self` and `right` make a piece: short enough, of one script, and either spaces alone or at most one, at
    /// its start. Digits do not come here: words are cut around them.
    fn joins(&self, right: &Self) -> bool {
        let spaces_fit = if right.n_spaces == 0 {
            self.n_spaces < 2
        } else {
            right.is_spaces() && self.is_spaces()
        };
        let scripts_fit =
            self.script.is_none() || right.script.is_none() || self.script == right.script;
        spaces_fit && scripts_fit && self.n_chars + right.n_chars <= MAX_CHARS
    }
}

/// Two neighbours, ordered by what is to be merged first. The last two fields decide nothing: no two pairs have the
/// same sides.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    /// Occurrences in the text; in the queue, at most so many.
    count: u64,
    n_chars: Reverse<u8>,
    text: Reverse<Box<str>>,
    sides: Reverse<(u32, u32)>,
    /// Where in [`Learner::occurrences`] its list begins and ends.
    start: usize,
    end: usize,
}

struct Slot {
    symbol: u32,
    /// Index into [`Learner::weights`].
    word: u32,
}

/// The first slot of a pair, with the pair.
type Occurrence = (u32, u32, u32);

struct Learner {
    symbols: Vec<Symbol>,
    slots: Vec<Slot>,
    /// How often each word occurs.
    weights: Vec<u64>,
    /// First slots of pairs, a list a pair; of those, some may be past.
    occurrences: Vec<u32>,
    queue: BinaryHeap<Pair>,
}

impl Learner {
    fn new(words: &[(Box<str>, u64)], alphabet: &[char]) -> Result<Self, TokenizerError> {
        // The first two stand for no symbol.
        let no_symbols =
            [GAP, TAKEN].map(|_| Symbol { text: "".into(), n_chars: 0, n_spaces: 0, script: None });
        let symbols: Vec<_> =
            no_symbols.into_iter().chain(alphabet.iter().map(|&c| Symbol::of_char(c))).collect();
        let ids: HashMap<char, u32> = alphabet.iter().copied().zip(TAKEN + 1..).collect();
        let (mut slots, mut weights) = (Vec::new(), Vec::new());
        for (text, count) in words {
            let word = weights.len() as u32;
            slots.push(Slot { symbol: GAP, word });
            let symbol = |c| ids.get(&c).copied().unwrap_or(GAP);
            slots.extend(text.chars().map(|c| Slot { symbol: symbol(c), word }));
            weights.push(*count);
            if slots.len() > u32::MAX as usize - 1 {
                return Err(TokenizerError::TextTooLarge { limit: u32::MAX as usize });
            }
        }
        slots.push(Slot { symbol: GAP, word: 0 });
        Ok(Self { symbols, slots, weights, occurrences: Vec::new(), queue: BinaryHeap::new() })
    }

    fn add_first_pairs(&mut self) {
        let neighbours = self.slots.array_windows().zip(0..);
        let found = neighbours.filter(|([a, b], _)| a.symbol != GAP && b.symbol != GAP);
        let mut found: Vec<Occurrence> =
            found.map(|([a, b], slot)| (a.symbol, b.symbol, slot)).collect();
        self.add_pairs(&mut found);
    }

    /// Queues the pairs of `found`, which are all occurrences of each.
    fn add_pairs(&mut self, found: &mut [Occurrence]) {
        found.sort_unstable();
        for group in found.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (left, right, _) = group[0];
            let (a, b) = (&self.symbols[left as usize], &self.symbols[right as usize]);
            if !a.joins(b) {
                continue;
            }
            let (text, n_chars) = ([&*a.text, &*b.text].concat().into(), a.n_chars + b.n_chars);
            let start = self.occurrences.len();
            self.occurrences.extend(group.iter().map(|&(.., slot)| slot));
            let end = self.occurrences.len();
            let count = group.iter().map(|&(.., slot)| self.weight(slot)).sum();
            let (n_chars, text, sides) = (Reverse(n_chars), Reverse(text), Reverse((left, right)));
            self.queue.push(Pair { count, n_chars, text, sides, start, end });
        }
    }

    fn weight(&self, slot: u32) -> u64 {
        self.weights[self.slots[slot as usize].word as usize]
    }

    fn n_chars(&self, symbol: u32) -> u32 {
        u32::from(self.symbols[symbol as usize].n_chars)
    }

    /// Whether the pair stands at `slot`, which once was its first.
    fn stands(&self, pair: &Pair, slot: u32) -> bool {
        let Reverse((left, right)) = pair.sides;
        let second = slot + self.n_chars(left);
        self.slots[slot as usize].symbol == left && self.slots[second as usize].symbol == right
    }

    /// Strikes what is past from the pair's list, and sets its count.
    fn recount(&mut self, pair: &mut Pair) {
        let (mut count, mut end) = (0, pair.start);
        for i in pair.start..pair.end {
            let slot = self.occurrences[i];
            if self.stands(pair, slot) {
                count += self.weight(slot);
                self.occurrences[end] = slot;
                end += 1;
            }
        }
        (pair.count, pair.end) = (count, end);
    }

    /// Makes a symbol of the pair, wherever it stands, and queues the pairs that this brings about.
    fn merge(&mut self, pair: &Pair) {
        let symbol = self.symbols.len() as u32;
        let left_chars = self.n_chars(pair.sides.0.0);
        let mut merged = Vec::with_capacity(pair.end - pair.start);
        for i in pair.start..pair.end {
            let slot = self.occurrences[i];
            // Of "aaa" the first "aa" has become a symbol, and the second is none any more.
            if self.stands(pair, slot) {
                self.slots[slot as usize].symbol = symbol;
                self.slots[(slot + left_chars) as usize].symbol = TAKEN;
                merged.push(slot);
            }
        }
        self.symbols.push(self.joined(pair));
        let mut found = Vec::with_capacity(2 * merged.len());
        for slot in merged {
            let next = self.slots[(slot + self.n_chars(symbol)) as usize].symbol;
            if next != GAP {
                found.push((symbol, next, slot));
            }
            let before = self.before(slot);
            let previous = self.slots[before as usize].symbol;
            // Beside itself it was found from the other side.
            if previous != GAP && previous != symbol {
                found.push((previous, symbol, before));
            }
        }
        self.add_pairs(&mut found);
    }

    fn joined(&self, pair: &Pair) -> Symbol {
        let Reverse((left, right)) = pair.sides;
        let (left, right) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        Symbol {
            text: pair.text.0.clone(),
            n_chars: pair.n_chars.0,
            n_spaces: left.n_spaces + right.n_spaces,
            script: left.script.or(right.script),
        }
    }

    /// The slot of the symbol, or gap, before that at `slot`.
    fn before(&self, slot: u32) -> u32 {
        let mut before = slot - 1;
        while self.slots[before as usize].symbol == TAKEN {
            before -= 1;
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain way: every word a list of texts, all pairs counted anew for each merge.
    fn learn_slowly(
        words: &[(Box<str>, u64)],
        alphabet: &[char],
        n_merges: usize,
    ) -> Vec<Box<str>> {
        let symbol =
            |c: char| alphabet.contains(&c).then(|| if c == ' ' { '▁' } else { c }.to_string());
        let mut words: Vec<(Vec<Option<String>>, u64)> =
            words.iter().map(|(word, n)| (word.chars().map(symbol).collect(), *n)).collect();
        let mut merges: Vec<Box<str>> = Vec::new();
        // Pairs whose text was made in another way.
        let mut left_alone = HashSet::new();
        while merges.len() < n_merges {
            let mut counts: HashMap<(String, String), u64> = HashMap::new();
            for (word, n) in &words {
                for [a, b] in word.array_windows() {
                    if let (Some(a), Some(b)) = (a, b) {
                        *counts.entry((a.clone(), b.clone())).or_default() += n;
                    }
                }
            }
            let age = |text: &str, merges: &[Box<str>]| {
                let merge = merges.iter().position(|merge| **merge == *text);
                let c = text.chars().next().map(|c| if c == '▁' { ' ' } else { c });
                merge.map_or(alphabet.iter().position(|&known| Some(known) == c), |m| Some(m + 99))
            };
            let allowed = |(a, b): &(String, String)| is_piece(&[&**a, b].concat());
            let pairs =
                counts.into_iter().filter(|(pair, _)| allowed(pair) && !left_alone.contains(pair));
            let order = |(pair, n): &((String, String), u64)| {
                let text = [&*pair.0, &*pair.1].concat();
                // Two ways to one text: the one of older symbols first.
                let sides = (age(&pair.0, &merges), age(&pair.1, &merges));
                (*n, Reverse(text.chars().count()), Reverse(text), Reverse(sides))
            };
            let Some((pair, _)) = pairs.max_by_key(order) else { break };
            let text = [&*pair.0, &*pair.1].concat();
            if merges.iter().any(|merge| **merge == *text) {
                left_alone.insert(pair);
                continue;
            }
            for (word, _) in &mut words {
                let mut i = 0;
                while i + 1 < word.len() {
                    if word[i].as_ref() == Some(&pair.0) && word[i + 1].as_ref() == Some(&pair.1) {
                        word[i] = Some(text.clone());
                        word.remove(i + 1);
                    }
                    i += 1;
                }
            }
            merges.push(text.into());
        }
        merges
    }

    /// The rules for pieces, said of the whole text.
    fn is_piece(text: &str) -> bool {
        let spaces = text.matches('▁').count();
        let n_chars = text.chars().count();
        let scripts = text.chars().filter_map(|c| Symbol::of_char(c).script);
        let scripts: HashSet<String> = scripts.map(|script| format!("{script:?}")).collect();
        let spaces_fit = spaces == n_chars || spaces == 0 || spaces == 1 && text.starts_with('▁');
        spaces_fit && scripts.len() <= 1 && n_chars <= 16
    }

    proptest! {
        #[test]
        fn merges_are_those_of_the_plain_way(
            words in proptest::collection::btree_map(" {0,3}[abcxéд.]{0,12}|a{1,40}|[ab\u{301}]{2,9}", 1u64..6, 1..12),
        ) {
            let words: Vec<_> = words.into_iter().map(|(word, n)| (word.into(), n)).collect();
            // 'x' is too rare to be a piece.
            let alphabet = [' ', 'a', 'b', 'c', 'é', 'д', '.', '\u{301}'];
            let learned = learn(&words, &alphabet, 40, |_| Ok::<_, TokenizerError>(())).unwrap();
            prop_assert_eq!(learned, learn_slowly(&words, &alphabet, 40));
        }
    }
}
