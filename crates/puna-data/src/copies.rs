//! Documents for training that are nearly the same as earlier ones, such as another edition of a book.
//!
//! Of the runs of 13 words of a document those are looked at whose hash falls into one of 128 equal parts: the same ones in
//! every document that has them, so a small table of what came before tells what share of a document is known (Broder, "On
//! the resemblance and containment of documents", 1997). Documents of a thousand words give some eight; shorter ones are
//! never near copies.

use crate::near::{Hashes, LONG_RUN, runs};

/// One run of this many is looked at. A power of two.
const SAMPLING: u64 = 128;

/// Fewer runs tell nothing.
const LEAST: usize = 8;

/// Runs of the documents before.
#[derive(Default)]
pub(crate) struct Earlier(Hashes);

impl Earlier {
    /// Whether more than `share` of a document's sample was there before. If not, it is from now on.
    pub(crate) fn is_repeated(&mut self, sample: &[u64], share: f64) -> bool {
        let n_known = sample.iter().filter(|run| self.0.contains(run)).count();
        let is_repeated = sample.len() >= LEAST && n_known as f64 > share * sample.len() as f64;
        if !is_repeated {
            self.0.extend(sample);
        }
        is_repeated
    }
}

/// The runs of `text` that are looked at.
pub(crate) fn sample(text: &str) -> Vec<u64> {
    let mut runs = runs(text, LONG_RUN);
    // Neither the highest nor the lowest bits, by which the table finds its places.
    runs.retain(|run| (run >> 40).is_multiple_of(SAMPLING));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn novel(name: &str, n: usize) -> String {
        (0..n).map(|i| format!("{name}{i} ")).collect()
    }

    #[test]
    fn another_edition_is_repeated_and_another_book_is_not() {
        let mut earlier = Earlier::default();
        let first = novel("a", 20_000);
        let n = sample(&first).len();
        assert!((100..220).contains(&n), "{n} of 20,000 words");
        assert!(!earlier.is_repeated(&sample(&first), 0.5));
        // Every fortieth word is spelt otherwise, and there is a preface.
        let words = first.split_inclusive(' ').enumerate();
        let edition: String =
            words.map(|(i, word)| if i % 40 == 0 { "so " } else { word }).collect();
        let other = novel("preface", 300) + &edition;
        assert!(earlier.is_repeated(&sample(&other.to_uppercase()), 0.5));
        assert!(!earlier.is_repeated(&sample(&other), 0.9));
        assert!(!earlier.is_repeated(&sample(&novel("b", 20_000)), 0.5));
        // A collection with one known story is no copy; a part of what is known is one.
        let collection = novel("c", 30_000) + &first;
        assert!(!earlier.is_repeated(&sample(&collection), 0.5));
        assert!(earlier.is_repeated(&sample(&novel("c", 5000)), 0.5));
        assert!(!earlier.is_repeated(&sample("short"), 0.0));
    }
}
