//! Drafts what may come next: what followed when the same tokens stood there before (prompt look-up, Saxena 2023).
//!
//! Answers quote their prompts and repeat themselves: names, code, tables, lists. The index is that of LZ77 with hash
//! chains: from each position a link to the last one before it that the same two tokens precede. A draft follows the
//! links back from the end of the sequence, measures how many tokens agree at each place, and copies what came
//! after the longest match, the latest among equals.
//!
//! How far a draft goes is a matter of evidence, so that text without repetition loses next to nothing:
//!
//! - a match of `n` tokens ventures at most `n`: within a passage that is copied, drafts double;
//! - the match has to be of `needed` tokens. A draft that did not pay raises this, every token that was right
//!   takes one off.

use std::collections::HashMap;

/// Longest draft of one request.
pub const MAX_DRAFT: usize = 16;

/// Matches are not measured beyond this: a longer one would draft no more.
const MAX_MATCH: usize = MAX_DRAFT;
/// Most places that are compared for one draft.
const MAX_PLACES: usize = 64;
/// Length of match that a draft takes at first.
const FIRST_NEEDED: usize = 4;
/// The least that it takes, however well drafts do.
const MIN_NEEDED: usize = 3;
/// How much more it takes after a draft that did not pay.
const RAISE: usize = 2;
/// A draft pays if one in so many of its tokens is right: further rows of a forward pass cost much less than a pass, but
/// not nothing.
const PAYING_SHARE: usize = 2;

/// Index of one sequence, and how its drafts did.
pub(crate) struct Lookup {
    /// The position after the last occurrence of two tokens.
    last: HashMap<[u32; 2], u32>,
    /// `earlier[end]` is the last position before `end` that the same two tokens precede; 0 if there is none.
    earlier: Vec<u32>,
    /// Length of match that a draft takes.
    needed: usize,
}

impl Lookup {
    /// Of an empty sequence.
    pub(crate) fn new() -> Self {
        Self { last: HashMap::new(), earlier: Vec::new(), needed: FIRST_NEEDED }
    }

    /// Appends to `tokens` at most `max` that may follow, and returns their number. Between calls tokens
    /// may only have been added.
    pub(crate) fn draft(&mut self, tokens: &mut Vec<u32>, max: usize) -> usize {
        self.index(tokens);
        let (start, n_agreeing) = self.longest_match(tokens);
        if n_agreeing < self.needed {
            return 0;
        }
        let n = n_agreeing.min(max);
        for idx in start..start + n {
            // The copy may run into itself: a cycle goes on.
            tokens.push(tokens[idx]);
        }
        n
    }

    /// Takes note of how many tokens of a draft were right.
    pub(crate) fn learn(&mut self, n_drafted: usize, n_accepted: usize) {
        self.needed = if n_accepted * PAYING_SHARE < n_drafted {
            (self.needed + RAISE).min(MAX_MATCH)
        } else {
            self.needed.saturating_sub(n_accepted).max(MIN_NEEDED)
        };
    }

    /// Adds what is new.
    fn index(&mut self, tokens: &[u32]) {
        for end in self.earlier.len()..=tokens.len() {
            let earlier = match tokens[..end].last_chunk::<2>() {
                Some(&pair) => self.last.insert(pair, end as u32).unwrap_or(0),
                None => 0,
            };
            self.earlier.push(earlier);
        }
    }

    /// Where a match with the end of `tokens` ends, and its length; 0 and 0 if there is none.
    fn longest_match(&self, tokens: &[u32]) -> (usize, usize) {
        let mut best = (0, 0);
        let mut end = tokens.len();
        for _ in 0..MAX_PLACES {
            end = self.earlier[end] as usize;
            if end == 0 || best.1 == MAX_MATCH {
                break;
            }
            let pairs = tokens[..end].iter().rev().zip(tokens.iter().rev());
            let n_agreeing = pairs.take(MAX_MATCH).take_while(|(a, b)| a == b).count();
            if n_agreeing > best.1 {
                best = (end, n_agreeing);
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is drafted after `tokens` if any match will do.
    fn drafted(tokens: &[u32], max: usize) -> Vec<u32> {
        let mut extended = tokens.to_vec();
        let n = Lookup { needed: 1, ..Lookup::new() }.draft(&mut extended, max);
        assert_eq!(extended.len(), tokens.len() + n);
        assert_eq!(extended[..tokens.len()], *tokens);
        extended.split_off(tokens.len())
    }

    #[test]
    fn copies_what_followed() {
        let cases: [(&[u32], usize, &[u32]); 9] = [
            (&[], 8, &[]),
            (&[1], 8, &[]),
            (&[1, 2, 3, 1], 8, &[]),
            (&[1, 2, 3, 1, 2], 8, &[3, 1]),
            (&[1, 2, 3, 1, 2], 1, &[3]),
            (&[1, 2, 3, 1, 2], 0, &[]),
            // The longest match, not the latest.
            (&[5, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2], 8, &[7, 6, 1]),
            // The latest among equals.
            (&[4, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2], 8, &[8, 5]),
            // A cycle goes on.
            (&[1, 2, 3, 1, 2, 3, 1, 2, 3], 7, &[1, 2, 3, 1, 2, 3]),
        ];
        for (tokens, max, expected) in cases {
            assert_eq!(drafted(tokens, max), expected, "{tokens:?}");
        }
        assert_eq!(drafted(&[9; 40], 16), [9; 16]);
    }

    #[test]
    fn failure_asks_for_more_evidence_and_success_for_less() {
        let mut lookup = Lookup::new();
        let mut tokens: Vec<u32> = (0..20).chain(0..FIRST_NEEDED as u32 - 1).collect();
        let mut next = |lookup: &mut Lookup| {
            tokens.push(tokens[tokens.len() - 20]);
            let len = tokens.len();
            let n = lookup.draft(&mut tokens, 8);
            tokens.truncate(len);
            n
        };
        assert_eq!(next(&mut lookup), FIRST_NEEDED);
        lookup.learn(4, 1);
        assert_eq!(next(&mut lookup), 0, "a longer match is needed now");
        assert_eq!(next(&mut lookup), FIRST_NEEDED + RAISE);
        lookup.learn(6, 3);
        assert_eq!(lookup.needed, MIN_NEEDED);
        for _ in 0..20 {
            lookup.learn(1, 0);
        }
        assert_eq!(lookup.needed, MAX_MATCH, "the longest match is always enough");
    }

    /// The slow version: every earlier place, compared in full.
    fn longest_by_scan(tokens: &[u32]) -> (usize, usize) {
        let agreeing = |end: usize| {
            let pairs = tokens[..end].iter().rev().zip(tokens.iter().rev());
            pairs.take(MAX_MATCH).take_while(|(a, b)| a == b).count()
        };
        let ends = (2..tokens.len()).map(|end| (end, agreeing(end)));
        ends.filter(|&(_, n)| n >= 2).max_by_key(|&(end, n)| (n, end)).unwrap_or((0, 0))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn finds_what_a_scan_finds(
            tokens in prop::collection::vec(0..9u32, 0..MAX_PLACES),
            step in 1..9usize,
        ) {
            let mut lookup = Lookup::new();
            for end in (0..=tokens.len()).step_by(step) {
                lookup.index(&tokens[..end]);
                prop_assert_eq!(
                    lookup.longest_match(&tokens[..end]),
                    longest_by_scan(&tokens[..end])
                );
            }
        }
    }
}
