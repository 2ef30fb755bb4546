//! Text for training that is nearly the same as held-out text.
//!
//! Two texts share a run of 13 words only when one was copied from the other, give or take a proverb (Brown et al.,
//! "Language models are few-shot learners", 2020, appendix C, look for such runs). All runs of the held-out text are
//! kept as hashes of 64 bits. A document for training is cut into passages of some 200 words, and a passage is dropped
//! when too many of its runs are among them. What stands between dropped passages stays, as documents of their own: so
//! one story of a collection can be held out without the others being lost.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::words::{normal, trimmed, words};

/// Words of a run.
const RUN: usize = 13;

/// Words after which a passage ends at a blank line, at the end of a line, anywhere.
const PASSAGE: [usize; 3] = [200, 400, 800];

/// Words below which the last passage is one with that before it.
const SHORTEST: usize = 100;

/// A base for the rolling hash: odd, with bits all over.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The runs of the held-out text. 64 bits each, so memory grows with held-out text, not with the corpus.
#[derive(Default)]
pub(crate) struct Known(HashSet<u64, BuildHasherDefault<AsItIs>>);

impl Known {
    pub(crate) fn extend(&mut self, runs: impl IntoIterator<Item = u64>) {
        self.0.extend(runs);
    }

    /// Share of the runs of `passage` that are known.
    fn containment(&self, passage: &str) -> f64 {
        let runs = runs(passage);
        let known = runs.iter().filter(|run| self.0.contains(run)).count();
        if runs.is_empty() { 0.0 } else { known as f64 / runs.len() as f64 }
    }

    /// Cuts what is nearly the same as held-out text out of a document.
    pub(crate) fn cut(&self, text: String, threshold: f64) -> Cut {
        let mut cut = Cut::default();
        let mut start = 0;
        for (from, to) in passages(&text) {
            if self.containment(&text[from..to]) > threshold {
                cut.n_dropped += 1;
                cut.dropped_bytes += to - from;
                cut.keep(&text[start..from]);
                start = to;
            }
        }
        if cut.n_dropped == 0 {
            cut.parts.push(text);
        } else {
            cut.keep(&text[start..]);
        }
        cut
    }
}

/// What is left of a document.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Cut {
    pub(crate) parts: Vec<String>,
    /// Passages that were dropped.
    pub(crate) n_dropped: u64,
    pub(crate) dropped_bytes: usize,
}

impl Cut {
    fn keep(&mut self, part: &str) {
        let part = trimmed(part);
        if !part.is_empty() {
            self.parts.push(part.to_owned());
        }
    }
}

/// The hash of each run of 13 words, case and punctuation aside; of all words, where there are fewer.
pub(crate) fn runs(text: &str) -> Vec<u64> {
    let mut word = String::new();
    let words: Vec<u64> = words(text).map(|w| hash(normal(w, &mut word).as_bytes())).collect();
    let leaving = BASE.wrapping_pow(RUN as u32);
    let mut rolling = 0u64;
    let mut runs = Vec::with_capacity(words.len().saturating_sub(RUN - 1));
    for (i, &word) in words.iter().enumerate() {
        rolling = rolling.wrapping_mul(BASE).wrapping_add(word);
        if i >= RUN {
            rolling = rolling.wrapping_sub(words[i - RUN].wrapping_mul(leaving));
        }
        if i + 1 >= RUN {
            runs.push(mix(rolling));
        }
    }
    if runs.is_empty() && !words.is_empty() {
        runs.push(mix(rolling));
    }
    runs
}

/// FNV-1a, mixed.
fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The finaliser of SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Where the passages of `text` begin and end. They cover it.
fn passages(text: &str) -> Vec<(usize, usize)> {
    let mut starts = vec![0];
    let (mut n_words, mut last_end) = (0, 0);
    for word in words(text) {
        // Words are slices of `text`.
        let at = word.as_ptr().addr() - text.as_ptr().addr();
        let gap = &text[last_end..at];
        let n_lines = gap.matches('\n').count();
        let [at_blank, at_line, anywhere] = PASSAGE.map(|n| n_words >= n);
        if at_blank && n_lines > 1 || at_line && n_lines > 0 || anywhere {
            // An opening quote goes with its word.
            let after_space = gap.rfind(char::is_whitespace).map_or(last_end, |space| {
                last_end + space + gap[space..].chars().next().map_or(0, char::len_utf8)
            });
            starts.push(after_space);
            n_words = 0;
        }
        n_words += 1;
        last_end = at + word.len();
    }
    if starts.len() > 1 && n_words < SHORTEST {
        starts.pop();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().copied().zip(ends).collect()
}

/// For keys that are hashes already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are of 64 bits");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of `n` different words in paragraphs of 40.
    fn story(name: &str, n: usize) -> String {
        let words =
            (0..n).map(|i| format!("{name}{i}{}", if i % 40 == 39 { ".\n\n" } else { " " }));
        words.collect::<String>().trim_end().to_owned()
    }

    #[test]
    fn runs_do_not_depend_on_case_and_punctuation() {
        let words: Vec<String> = (0..20).map(|i| format!("w{i}")).collect();
        let plain = runs(&words.join(" "));
        assert_eq!(plain.len(), 8);
        assert_eq!(plain, runs(&words.join(", ").to_uppercase()));
        // A rolling hash forgets what has left.
        assert_eq!(plain[7..], runs(&words[7..].join(" ")));
        assert_eq!(runs("only three words").len(), 1);
        assert_ne!(runs("only three words"), runs("three only words"));
        assert!(runs("... !").is_empty());
    }

    #[test]
    fn passages_cover_the_text() {
        for text in
            [story("a", 1000), story("a", 30), String::new(), "x ".repeat(3000), "\n\n".into()]
        {
            let passages = passages(&text);
            assert_eq!(passages[0].0, 0);
            assert_eq!(passages[passages.len() - 1].1, text.len());
            assert!(passages.windows(2).all(|pair| pair[0].1 == pair[1].0));
            assert!(passages.iter().all(|&(from, to)| words(&text[from..to]).count() <= 900));
        }
        assert_eq!(passages(&story("a", 1000)).len(), 5);
    }

    #[test]
    fn a_held_out_story_is_cut_out_of_a_collection() {
        let held_out = story("held", 500);
        let mut known = Known::default();
        known.extend(runs(&held_out));
        let (before, after) = (story("before", 400), story("after", 400));
        let collection = format!("{before}\n\n{}\n\n{after}", held_out.to_uppercase());
        let cut = known.cut(collection, 0.2);
        assert!(cut.parts.len() == 2 && cut.parts[0] == before, "{cut:?}");
        // A passage has the end of the one story and the beginning of the next.
        assert!(after.ends_with(&cut.parts[1]) && cut.parts[1].len() > after.len() / 2, "{cut:?}");
        assert!(cut.n_dropped >= 2, "{cut:?}");
        assert_eq!(known.cut(held_out, 0.2).parts, [""; 0]);
        let other = Cut { parts: vec![before.clone()], n_dropped: 0, dropped_bytes: 0 };
        assert_eq!(known.cut(before, 0.2), other);
    }

    #[test]
    fn a_quotation_is_no_copy() {
        let held_out = story("held", 500);
        let mut known = Known::default();
        known.extend(runs(&held_out));
        let quotation: Vec<&str> = held_out.split_whitespace().take(20).collect();
        let text = format!("{} {}", quotation.join(" "), story("own", 180));
        assert_eq!(known.cut(text.clone(), 0.2).n_dropped, 0);
        assert_eq!(known.cut(text, 0.0).n_dropped, 1);
    }
}
