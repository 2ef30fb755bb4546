//! What is done to each document on its own, on any thread: filters, comparison with held-out text, tokens.

use crate::DataError;
use crate::filter::Filters;
use crate::manifest::Removed;
use crate::near::{Known, runs};
use crate::vocabulary::TokenizerFile;

/// The two sides of a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What training never sees.
    HeldOut,
    /// What training reads.
    Train,
}

impl Side {
    /// As names of files begin.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HeldOut => "held_out",
            Self::Train => "train",
        }
    }
}

/// Documents that are looked at together.
#[derive(Default)]
pub(crate) struct Batch {
    texts: Vec<String>,
    pub(crate) n_bytes: usize,
}

impl Batch {
    pub(crate) fn push(&mut self, text: String) {
        self.n_bytes += text.len();
        self.texts.push(text);
    }
}

/// What became of a batch.
#[derive(Default)]
pub(crate) struct Processed {
    ids: Vec<u32>,
    /// Of each document: where its ids end, and the bytes of its text.
    ends: Vec<(usize, u64)>,
    pub(crate) removed: Removed,
    pub(crate) counted_words: u64,
    /// Of held-out text.
    pub(crate) runs: Vec<u64>,
}

impl Processed {
    /// Ids of each document, and bytes of its text.
    pub(crate) fn documents(&self) -> impl Iterator<Item = (&[u32], u64)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(end, _)| end));
        starts.zip(&self.ends).map(|(start, &(end, n_bytes))| (&self.ids[start..end], n_bytes))
    }
}

/// What is done to a document.
pub(crate) struct Process<'a> {
    pub(crate) filters: &'a Filters,
    /// What is held out, for documents that are not.
    pub(crate) known: Option<&'a Known>,
    pub(crate) threshold: f64,
    pub(crate) vocabulary: &'a TokenizerFile,
}

impl Process<'_> {
    pub(crate) fn batch(&self, batch: Batch) -> Result<Processed, DataError> {
        let mut done = Processed::default();
        for text in batch.texts {
            let verdict = self.filters.apply(text);
            done.removed.merge(&verdict.removed);
            done.counted_words += verdict.counted_words;
            let Some(text) = verdict.text else { continue };
            match self.known {
                None => {
                    let runs = runs(&text);
                    if self.encode(&text, &mut done)? {
                        done.runs.extend(runs);
                    }
                }
                Some(known) => {
                    let cut = known.cut(text, self.threshold);
                    done.removed.near_duplicates.n += cut.n_dropped;
                    done.removed.near_duplicates.bytes += cut.dropped_bytes as u64;
                    for part in &cut.parts {
                        self.encode(part, &mut done)?;
                    }
                }
            }
        }
        Ok(done)
    }

    /// Appends a document's ids, unless it is too short.
    fn encode(&self, text: &str, done: &mut Processed) -> Result<bool, DataError> {
        let min_chars = self.filters.min_chars;
        if text.chars().take(min_chars).count() < min_chars {
            done.removed.min_chars.add(text.len());
            return Ok(false);
        }
        let (bos_id, eos_id) = (self.vocabulary.record.bos_id, self.vocabulary.record.eos_id);
        let start = done.ids.len();
        done.ids.push(bos_id);
        self.vocabulary.tokenizer.encode_into(text, &mut done.ids);
        // Documents are told apart by BOS.
        if done.ids[start + 1..].contains(&bos_id) {
            let expected = "a tokenizer that makes no BOS out of plain text";
            return Err(DataError::input(&self.vocabulary.record.file, expected, "one that does"));
        }
        done.ids.push(eos_id);
        done.ends.push((done.ids.len(), text.len() as u64));
        Ok(true)
    }
}
