//! The end of a form: an answer that has nearly as many tokens as it may have is brought to its end while it still can be.
//!
//! The shortest end is looked for greedily, by tokens that close what is open. It is followed once no more tokens are left
//! than it takes. Before that, tokens that open something new are left out where others may come, lest the end move away.
//! A form for which no end is found in this way goes on as if there were no limit.

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokTrie};

/// An end is looked for when so many tokens are left.
const MAX_LEN: usize = 256;
/// Nothing new is opened when so few tokens are left beyond the end.
const NEAR: usize = 64;
/// The end is begun when so few tokens are left beyond it.
const MARGIN: usize = 2;
/// Any text may come where more than one of so many tokens may.
const TEXT_SHARE: usize = 4;

/// What the vocabulary's tokens do to JSON, made once for each model.
pub(crate) struct Closers {
    /// By id, outside of texts and within.
    ranks: [Vec<u32>; 2],
    /// Those that open something, or go on with a list.
    openers: SimpleVob,
    eos: u32,
}

impl Closers {
    /// Of a vocabulary whose tokens add `words` to a text, those that are no text a mark.
    pub(crate) fn new(words: &[Vec<u8>], eos: u32) -> Self {
        let mut openers = SimpleVob::alloc(words.len());
        for (id, word) in (0..).zip(words) {
            if word.iter().any(|byte| OPENERS.contains(byte)) {
                openers.allow_token(id);
            }
        }
        let ranks =
            [false, true].map(|in_text| words.iter().map(|word| rank(word, in_text)).collect());
        Self { ranks, openers, eos }
    }

    /// Tokens that end the form that `matcher` is in, at most `max` of them.
    fn find(&self, matcher: &Matcher, max: usize) -> Option<Vec<u32>> {
        let mut matcher = matcher.clone();
        let mut found = Vec::new();
        while !matcher.is_accepting().ok()? {
            if found.len() == max {
                return None;
            }
            let mask = matcher.compute_mask().ok()?;
            let ranks = &self.ranks[usize::from(is_text(&mask))];
            let best = mask.iter().min_by_key(|&id| ranks.get(id as usize))?;
            matcher.consume_token(best).ok()?;
            found.push(best);
        }
        found.push(self.eos);
        Some(found)
    }
}

const OPENERS: &[u8] = b"{[,";
const CLOSERS: &[u8] = b"\"}]";

/// The smaller, the sooner a token leads to an end, in the midst of a text or between its parts.
fn rank(word: &[u8], in_text: bool) -> u32 {
    let is_all = |of: &dyn Fn(u8) -> bool| word.iter().all(|&byte| of(byte));
    let class = match word.first() {
        None | Some(&TokTrie::SPECIAL_TOKEN_MARKER) => 5,
        // A quotation mark ends a text, and where none is it begins one; brackets are part of a text.
        Some(b'"') if is_all(&|byte| CLOSERS.contains(&byte)) => u32::from(!in_text),
        Some(b'}' | b']') if !in_text && is_all(&|byte| CLOSERS.contains(&byte)) => 0,
        Some(_) if is_all(&|byte| byte.is_ascii_whitespace() || !byte.is_ascii()) => 4,
        Some(_) if word.iter().any(|byte| OPENERS.contains(byte)) => 3,
        Some(_) => 2,
    };
    // Of those that do the same, the longest gets furthest.
    class << 16 | (u32::from(u16::MAX) - word.len().min(usize::from(u16::MAX)) as u32)
}

/// Whether any text may come.
fn is_text(mask: &SimpleVob) -> bool {
    mask.num_set() * TEXT_SHARE > mask.len()
}

/// How far an answer is from its end.
#[derive(Clone)]
pub(crate) struct Ending {
    /// Tokens that may still come.
    left: usize,
    /// The end is looked for when so many are left.
    next_look: usize,
    is_near: bool,
    /// What is still to come of the end, last first, once it has begun.
    end: Option<Vec<u32>>,
}

impl Ending {
    /// Of an answer that may have `max_len` tokens.
    pub(crate) fn new(max_len: usize) -> Self {
        Self { left: max_len, next_look: MAX_LEN, is_near: false, end: None }
    }

    /// Takes out of `mask`, which `matcher` allows, what would lead too far.
    pub(crate) fn narrow(&mut self, closers: &Closers, matcher: &Matcher, mask: &mut SimpleVob) {
        if self.end.is_none() && self.left <= self.next_look {
            self.look(closers, matcher);
        }
        if let Some(&next) = self.end.as_ref().and_then(|end| end.last()) {
            if mask.is_allowed(next) {
                mask.set_all(false);
                mask.allow_token(next);
            }
        } else if self.is_near && !is_text(mask) {
            let mut others = mask.clone();
            others.sub(&closers.openers);
            if !others.is_zero() {
                *mask = others;
            }
        }
    }

    fn look(&mut self, closers: &Closers, matcher: &Matcher) {
        let Some(mut end) = closers.find(matcher, self.left) else {
            self.next_look = self.left / 2;
            return;
        };
        let spare = self.left.saturating_sub(end.len());
        self.is_near = spare < NEAR;
        if spare <= MARGIN {
            end.reverse();
            self.end = Some(end);
        } else {
            // An end moves away slowly, as long as nothing is opened.
            self.next_look = self.left - if self.is_near { 1 } else { spare / 2 };
        }
    }

    /// A token has come.
    pub(crate) fn accept(&mut self) {
        self.left = self.left.saturating_sub(1);
        if let Some(end) = &mut self.end {
            end.pop();
        }
    }
}
