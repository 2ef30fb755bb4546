//! A corpus back to text, for those who do not read its tokens.

use std::ops::Range;

use crate::DataError;
use crate::corpus::Corpus;
use crate::document::Side;
use crate::manifest::Split;

/// Ids that are read at once.
const STRETCH: u64 = 1 << 16;

impl Corpus {
    /// The documents of a source, of one side, in their order. One at a time is in memory, and some ids after it.
    ///
    /// # Panics
    /// There is no such source.
    pub fn texts(&self, source: usize, side: Side) -> Texts<'_> {
        let record = &self.manifest().sources[source];
        let split = match side {
            Side::HeldOut => &record.held_out,
            Side::Train => &record.train,
        };
        Texts { corpus: self, split, at: 0, ids: Vec::new(), start: 0 }
    }
}

/// Documents as text.
#[derive(Debug)]
pub struct Texts<'a> {
    corpus: &'a Corpus,
    split: &'a Split,
    /// The next id to be read.
    at: u64,
    ids: Vec<u32>,
    /// Where in `ids` the next document begins, with its BOS.
    start: usize,
}

impl Texts<'_> {
    /// Where the next document lies in `ids`; `None` after the last.
    fn document(&mut self) -> Result<Option<Range<usize>>, DataError> {
        let bos_id = self.corpus.manifest().tokenizer.bos_id;
        let mut searched = self.start + 1;
        loop {
            let found = self.ids.iter().skip(searched).position(|&id| id == bos_id);
            if let Some(n) = found {
                return Ok(Some(self.start..searched + n));
            }
            if self.at == self.split.tokens {
                return Ok((self.start < self.ids.len()).then_some(self.start..self.ids.len()));
            }
            self.ids.drain(..self.start);
            self.start = 0;
            searched = self.ids.len().max(1);
            let n = STRETCH.min(self.split.tokens - self.at);
            self.corpus.read(self.split, self.at, n as usize, &mut self.ids)?;
            self.at += n;
        }
    }
}

impl Iterator for Texts<'_> {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = match self.document() {
            Ok(place) => place?,
            Err(e) => {
                // Nothing more comes after an error.
                (self.at, self.start) = (self.split.tokens, self.ids.len());
                return Some(Err(e));
            }
        };
        self.start = place.end;
        // BOS and EOS decode to nothing.
        Some(Ok(self.corpus.tokenizer().decode(&self.ids[place])))
    }
}
