//! Questions that people asked of an assistant, none of them about stories: those of `dolly_15k_part` that fit in a line.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::dialogues::{records, turn};
use super::request::{Kind, Random, Request};
use super::requests::Prompt;

/// Decides which question is on which side.
const SEED: u64 = 21;

/// Questions to be judged by, and to sample with; all others are learned from.
const N_HELD_OUT: usize = 100;
const N_PROMPTS: usize = 600;

/// Longest question, in bytes.
const MAX_LEN: usize = 100;

/// What a question on stories has in it.
const STORIES: [&str; 6] = ["stor", "tale", "poem", "rhyme", "fiction", "narrat"];

/// The questions of each side.
pub(super) struct Questions {
    pub(super) held_out: Vec<String>,
    pub(super) prompts: Vec<String>,
    pub(super) train: Vec<String>,
}

impl Questions {
    pub(super) fn read(chat: &Path) -> Result<Self> {
        let mut questions = BTreeSet::new();
        for record in records(&chat.join("sft/dolly_15k_part.jsonl.zst"))? {
            let question = turn(&record, 0)?.0.trim();
            let folded = question.to_lowercase();
            let fits = question.len() <= MAX_LEN
                && question.bytes().all(|b| matches!(b, b' '..=b'~'))
                && !STORIES.iter().any(|part| folded.contains(part));
            if fits {
                questions.insert(question.to_owned());
            }
        }
        let mut all = Vec::from_iter(questions);
        Random::new(SEED).shuffle(&mut all);
        let train = all.split_off((N_HELD_OUT + N_PROMPTS).min(all.len()));
        let prompts = all.split_off(N_HELD_OUT.min(all.len()));
        Ok(Self { held_out: all, prompts, train })
    }
}

/// A question as a prompt.
pub(super) fn asked(text: &str, held_out: bool) -> Prompt {
    let request = Request { unseen: held_out, ..Request::new(Kind::Question) };
    Prompt { text: text.to_owned(), request }
}
