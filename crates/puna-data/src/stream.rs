//! Sequences of a corpus: for training in a shuffled order that is a function of (seed, index) alone, and held out in
//! order.
//!
//! A source's row of N ids, thought of as a ring, is cut into ⌈N / T⌉ windows of T ids. An epoch gives each window once,
//! in the order of a keyed shuffle; where the first window begins is drawn anew for each epoch, so texts are cut at
//! other places. A sequence is a window and the id after it, T + 1 in all, so that each of T ids has a target.
//!
//! To go on after a stop, a trainer needs the index of its next sequence and nothing else.

use puna_core::Rng;

use crate::DataError;
use crate::corpus::Corpus;
use crate::manifest::Split;
use crate::mixture::Mixture;
use crate::shuffle::Shuffle;

/// Ids to learn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// `seq_len + 1` ids: inputs are all but the last, targets all but the first.
    pub tokens: Vec<u32>,
    /// For each token, where in `tokens` its document begins; zero for a document that began before the sequence.
    /// Attention that looks back no further stays inside documents.
    pub document_starts: Vec<u32>,
}

/// Where a training sequence comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in [`crate::Manifest::sources`].
    pub source: usize,
    /// How often all of the source was given before.
    pub epoch: u64,
    /// Its place in the epoch's order, below the source's number of windows.
    pub step: u64,
}

/// The endless stream of training sequences.
#[derive(Debug)]
pub struct Training<'a> {
    corpus: &'a Corpus,
    seq_len: usize,
    seed: u64,
    mixture: Mixture,
}

/// What keeps the streams of the random numbers apart.
const OF_OFFSETS: u64 = 0;
const OF_ORDERS: u64 = 1;

impl Corpus {
    /// Training sequences of `seq_len` ids and a target more, in the order of `seed`.
    ///
    /// # Panics
    /// `seq_len` is zero.
    pub fn training(&self, seq_len: usize, seed: u64) -> Training<'_> {
        assert!(seq_len > 0, "a sequence has at least one token");
        let weights: Vec<u64> = self.manifest().sources.iter().map(|s| s.weight).collect();
        Training { corpus: self, seq_len, seed, mixture: Mixture::new(&weights) }
    }

    /// The held-out ids of a source in windows of at most `seq_len` targets.
    ///
    /// # Panics
    /// There is no such source, or `seq_len` is zero.
    pub fn held_out(&self, source: usize, seq_len: usize) -> HeldOutWindows<'_> {
        assert!(seq_len > 0, "a window has at least one target");
        HeldOutWindows { corpus: self, split: &self.manifest().sources[source].held_out, seq_len }
    }
}

impl Training<'_> {
    /// Windows of a source: its sequences of an epoch.
    pub fn n_windows(&self, source: usize) -> u64 {
        self.split(source).tokens.div_ceil(self.seq_len as u64)
    }

    fn split(&self, source: usize) -> &Split {
        &self.corpus.manifest().sources[source].train
    }

    /// Where the `index`-th sequence comes from.
    pub fn place(&self, index: u64) -> Place {
        let (source, before) = self.mixture.at(index);
        let n = self.n_windows(source);
        Place { source, epoch: before / n, step: before % n }
    }

    /// The `index`-th sequence.
    ///
    /// # Errors
    /// A shard cannot be read, or holds an id that is none.
    pub fn sequence(&self, index: u64) -> Result<Sequence, DataError> {
        let Place { source, epoch, step } = self.place(index);
        let split = self.split(source);
        let mut offsets = self.rng(source, epoch, OF_OFFSETS);
        let offset = u64::from(offsets.next_u32()) % (self.seq_len as u64).min(split.tokens);
        let mut orders = self.rng(source, epoch, OF_ORDERS);
        let key = u64::from(orders.next_u32()) << 32 | u64::from(orders.next_u32());
        let window = Shuffle::new(self.n_windows(source), key).at(step);

        let mut at = (offset + window * self.seq_len as u64) % split.tokens;
        let mut tokens = Vec::with_capacity(self.seq_len + 1);
        while tokens.len() <= self.seq_len {
            let wanted = self.seq_len + 1 - tokens.len();
            let n = (split.tokens - at).min(wanted as u64);
            self.corpus.read(split, at, n as usize, &mut tokens)?;
            // After the last document the first one follows, which begins with BOS like any other.
            at = 0;
        }
        let document_starts = self.corpus.document_starts(&tokens);
        Ok(Sequence { tokens, document_starts })
    }

    /// Random numbers of an epoch of a source. Sources are counted in 16 bits, epochs in 40.
    fn rng(&self, source: usize, epoch: u64, what: u64) -> Rng {
        Rng::new(self.seed, what << 56 | (source as u64) << 40 | epoch & ((1 << 40) - 1))
    }
}

/// The held-out ids of a source, in order. Each is a target once, but for the first of all, which begins a document.
#[derive(Debug)]
pub struct HeldOutWindows<'a> {
    corpus: &'a Corpus,
    split: &'a Split,
    seq_len: usize,
}

/// Ids to measure on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldOutWindow {
    /// At most `seq_len + 1` ids: inputs are all but the last, targets all but the first.
    pub sequence: Sequence,
    /// Bytes of text that the targets stand for, for bits per byte. Those of all windows together are the bytes of all
    /// documents, unless the tokenizer has no piece for some character and no bytes to spell it, or drops spaces.
    pub n_bytes: u64,
}

impl HeldOutWindows<'_> {
    /// How many windows there are; none where nothing of the source is held out.
    pub fn len(&self) -> u64 {
        self.split.tokens.saturating_sub(1).div_ceil(self.seq_len as u64)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A window.
    ///
    /// # Errors
    /// A shard cannot be read, or holds an id that is none.
    ///
    /// # Panics
    /// `index` is not below [`HeldOutWindows::len`].
    pub fn window(&self, index: u64) -> Result<HeldOutWindow, DataError> {
        assert!(index < self.len(), "there is no window {index}");
        let at = index * self.seq_len as u64;
        let n = (self.split.tokens - at).min(self.seq_len as u64 + 1) as usize;
        let mut tokens = Vec::with_capacity(n);
        self.corpus.read(self.split, at, n, &mut tokens)?;
        let n_bytes = self.corpus.text_bytes(&tokens);
        let document_starts = self.corpus.document_starts(&tokens);
        Ok(HeldOutWindow { sequence: Sequence { tokens, document_starts }, n_bytes })
    }
}
