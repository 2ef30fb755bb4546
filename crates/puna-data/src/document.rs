//! What is done to each document on its own, on any thread: filters, comparison with held-out text, tokens.

use crate::DataError;
use crate::copies::sample;
use crate::filter::Filters;
use crate::manifest::Removed;
use crate::near::{Known, NearDuplicates, runs};
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
    encoded: Vec<Encoded>,
    pub(crate) removed: Removed,
    pub(crate) counted_words: u64,
    /// Of held-out text.
    pub(crate) runs: Vec<u64>,
}

/// A document that was made ids.
pub(crate) struct Encoded {
    /// Where its ids end.
    end: usize,
    /// Of its text.
    pub(crate) n_bytes: usize,
    /// Where it is compared with earlier ones.
    pub(crate) sample: Vec<u64>,
}

impl Processed {
    /// Each document with its ids.
    pub(crate) fn documents(&self) -> impl Iterator<Item = (&Encoded, &[u32])> {
        let starts = std::iter::once(0).chain(self.encoded.iter().map(|document| document.end));
        let documents = starts.zip(&self.encoded);
        documents.map(|(start, document)| (document, &self.ids[start..document.end]))
    }
}

/// What is done to a document.
pub(crate) struct Process<'a> {
    pub(crate) filters: &'a Filters,
    /// What is held out, for documents that are not.
    pub(crate) known: Option<&'a Known>,
    pub(crate) near: NearDuplicates,
    /// Whether documents are compared with earlier ones.
    pub(crate) is_sampled: bool,
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
                    let runs = runs(&text, self.near.run_words);
                    if self.encode(&text, &mut done)? {
                        done.runs.extend(runs);
                    }
                }
                Some(known) => {
                    let cut = known.cut(text, self.near);
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
        let sample = if self.is_sampled { sample(text) } else { Vec::new() };
        done.encoded.push(Encoded { end: done.ids.len(), n_bytes: text.len(), sample });
        Ok(true)
    }
}
