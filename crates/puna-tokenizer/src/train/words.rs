//! From text to counted words.
//!
//! A word is a stretch that no piece can reach out of, so pairs can be counted word by word:
//!
//! - Text is cut at line ends; each line gets the space that the tokenizer puts before a text.
//! - A run of spaces begins a word.
//! - No piece joins two scripts, Han and the two kana being one; punctuation is a script of its own. Characters of no
//!   script of their own, as accents, go with any.
//! - Each digit stands alone.
//! - User-defined pieces are taken out.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

use unicode_script::{Script, UnicodeScript};

use crate::trie::Trie;
use crate::vocab::SPACE_MARK;

/// Parts of the table of words, each with a lock of its own.
const SHARDS: usize = 64;

type Counts = HashMap<Box<str>, u64>;

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) struct Words {
    /// Each word once, in order, with ' ' for a space, and how often it occurs.
    pub(super) counts: Vec<(Box<str>, u64)>,
    /// Lines that are not empty.
    pub(super) n_lines: u64,
    /// Bytes of these, without line ends.
    pub(super) n_bytes: u64,
    /// Occurrences of user-defined pieces.
    pub(super) n_user_defined: u64,
}

/// Counts the words of `blocks`, each of whole lines. Only the blocks in work, and each word once, are held.
pub(super) fn count<E>(
    blocks: impl Iterator<Item = Result<String, E>>,
    user_defined: &Trie,
    n_threads: usize,
) -> Result<Words, E> {
    let table = Table::default();
    let (send, receive) = sync_channel::<String>(n_threads);
    let receive = Mutex::new(receive);
    let next = || receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let work = || {
        let (mut counter, mut counts) = (Counter::new(user_defined), Counts::new());
        while let Ok(block) = next() {
            counter.count(&block, &mut counts);
            table.add(&mut counts);
        }
        (counter.n_lines, counter.n_bytes, counter.n_user_defined)
    };
    let (sums, outcome) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        let mut outcome = Ok(());
        for block in blocks {
            match block {
                // Workers end before their channel does only by a panic, which is passed on below.
                Ok(block) => drop(send.send(block)),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        drop(send);
        let sums = workers.into_iter().map(|worker| match worker.join() {
            Ok(sums) => sums,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (sums.fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2)), outcome)
    });
    let (n_lines, n_bytes, n_user_defined) = sums;
    outcome.map(|()| Words { counts: table.into_sorted(), n_lines, n_bytes, n_user_defined })
}

/// The words of all threads. What stands in it does not depend on who added it when.
struct Table {
    shards: Vec<Mutex<Counts>>,
    hasher: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new() }
    }
}

impl Table {
    /// Adds `counts` and empties it.
    fn add(&self, counts: &mut Counts) {
        let mut by_shard: Vec<Vec<_>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for (word, n) in counts.drain() {
            by_shard[self.hasher.hash_one(&word) as usize % SHARDS].push((word, n));
        }
        for (shard, words) in self.shards.iter().zip(by_shard) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (word, n) in words {
                *shard.entry(word).or_default() += n;
            }
        }
    }

    fn into_sorted(self) -> Vec<(Box<str>, u64)> {
        let shards = self.shards.into_iter();
        let shards = shards.map(|shard| shard.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut all: Vec<_> = shards.flatten().collect();
        all.sort_unstable();
        all
    }
}

/// Counts the words of one block after the other.
struct Counter<'a> {
    user_defined: &'a Trie,
    line: String,
    n_lines: u64,
    n_bytes: u64,
    n_user_defined: u64,
}

impl<'a> Counter<'a> {
    fn new(user_defined: &'a Trie) -> Self {
        Self { user_defined, line: String::new(), n_lines: 0, n_bytes: 0, n_user_defined: 0 }
    }

    fn count(&mut self, block: &str, counts: &mut Counts) {
        for line in block.split('\n').filter(|line| !line.is_empty()) {
            self.n_lines += 1;
            self.n_bytes += line.len() as u64;
            prepare(line, &mut self.line);
            let on_word = |word: &str| match counts.get_mut(word) {
                Some(n) => *n += 1,
                None => drop(counts.insert(word.into(), 1)),
            };
            self.n_user_defined += for_each_word(&self.line, self.user_defined, on_word);
        }
    }
}

/// The line as the tokenizer reads it: a space before it, and ' ' for `▁`.
fn prepare(line: &str, out: &mut String) {
    out.clear();
    out.push(' ');
    for (i, part) in line.split(SPACE_MARK).enumerate() {
        if i > 0 {
            out.push(' ');
        }
        out.push_str(part);
    }
}

/// Calls `on` with each word of a prepared line, in order. Returns the number of user-defined pieces.
fn for_each_word<'t>(line: &'t str, user_defined: &Trie, mut on: impl FnMut(&'t str)) -> u64 {
    let (mut rest, mut n_user_defined) = (line, 0);
    while let Some((start, end, _)) = user_defined.find(rest) {
        words_of_stretch(&rest[..start], &mut on);
        rest = &rest[end..];
        n_user_defined += 1;
    }
    words_of_stretch(rest, &mut on);
    n_user_defined
}

fn words_of_stretch<'t>(text: &'t str, on: &mut impl FnMut(&'t str)) {
    let (mut start, mut before) = (0, None);
    for (i, c) in text.char_indices() {
        let class = Class::of(c);
        if before.is_some_and(|before: Class| before.ends_before(class)) {
            on(&text[start..i]);
            start = i;
        }
        before = Some(class);
    }
    if start < text.len() {
        on(&text[start..]);
    }
}

/// What matters about a character for where words end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Space,
    Digit,
    /// Takes the script of what stands before it.
    Inherited,
    Of(Script),
}

impl Class {
    #[inline]
    pub(super) fn of(c: char) -> Self {
        match c {
            ' ' | SPACE_MARK => Self::Space,
            '0'..='9' | '０'..='９' => Self::Digit,
            'a'..='z' | 'A'..='Z' => Self::Of(Script::Latin),
            '\0'..='\x7F' => Self::Of(Script::Common),
            _ => match c.script() {
                Script::Inherited => Self::Inherited,
                // Not assigned when the tables were made.
                Script::Unknown => Self::Of(Script::Common),
                Script::Hiragana | Script::Katakana => Self::Of(Script::Han),
                // The mark for a long vowel belongs to kana.
                _ if c == 'ー' => Self::Of(Script::Han),
                script => Self::Of(script),
            },
        }
    }

    /// Whether no piece holds a character of this class and directly after it one of class `next`.
    fn ends_before(self, next: Self) -> bool {
        match (self, next) {
            (Self::Digit, _) | (_, Self::Digit) => true,
            (Self::Space, _) => false,
            (_, Self::Space) => true,
            (Self::Of(a), Self::Of(b)) => a != b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str, user_defined: &[&str]) -> Vec<String> {
        let mut trie = Trie::default();
        for (id, text) in (0..).zip(user_defined) {
            trie.insert(text, id);
        }
        let (mut prepared, mut found) = (String::new(), Vec::new());
        prepare(line, &mut prepared);
        for_each_word(&prepared, &trie, |word| found.push(word.to_owned()));
        found
    }

    #[test]
    fn words_end_where_no_piece_reaches_across() {
        let cases: [(&str, &[&str]); 9] = [
            ("a bc", &[" a", " bc"]),
            ("  a▁b ", &["   a", " b", " "]),
            ("It's 3.50!", &[" It", "'", "s", " ", "3", ".", "5", "0", "!"]),
            ("１2", &[" ", "１", "2"]),
            ("東京タワーです", &[" 東京タワーです"]),
            ("latinкирилл", &[" latin", "кирилл"]),
            ("e\u{301}a\u{301},", &[" e\u{301}a\u{301},"]),
            ("x<s>y<s", &[" x", "y", "<", "s"]),
            ("a of the", &[" a"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line, &["<s>", " of the"]), expected, "{line:?}");
        }
    }

    #[test]
    fn counts_are_the_same_for_any_division_and_number_of_threads() {
        let text = "one two\n\nthree one, two one\nfour 44\n".repeat(50);
        let whole = count(std::iter::once(Ok::<_, ()>(text.clone())), &Trie::default(), 1).unwrap();
        assert_eq!((whole.n_lines, whole.n_bytes), (150, 50 * 32));
        assert!(whole.counts.contains(&(" one".into(), 150)));
        for n_threads in [1, 2, 7] {
            let lines = text.split_inclusive('\n').map(|line| Ok::<_, ()>(line.to_owned()));
            assert_eq!(count(lines, &Trie::default(), n_threads).as_ref(), Ok(&whole));
        }
        let failing = [Ok("a".to_owned()), Err("unreadable"), Ok("b".to_owned())];
        assert_eq!(count(failing.into_iter(), &Trie::default(), 3), Err("unreadable"));
    }
}
