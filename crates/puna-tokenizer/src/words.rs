//! The fast path: text is cut where no piece can join its two sides, and the ids of each part are remembered.
//!
//! The cut is exact. Merging only ever makes pieces, so where two adjacent bytes occur next to each other in no piece,
//! no merge reaches across, and the parts can be encoded apart. [`Cuts`] is that table, made from the loaded vocabulary.
//! For Llama 2's it cuts at least between words, as no piece joins a letter to a following space; a vocabulary whose
//! pieces join words just gets longer parts, in the worst case one.
//!
//! Text repeats its words, so a part of up to [`Key::MAX`] bytes and [`MAX_IDS`] ids is looked up in a table
//! of fixed size in which newer entries push out older ones. That changes the time, never the ids.

use crate::merge::{Merger, Scratch};
use crate::vocab::{SPACE_MARK, Vocab};

/// Which bytes some piece holds next to each other.
#[derive(Debug)]
pub(crate) struct Cuts {
    /// Bit `b` of row `a`: byte `a` directly followed by byte `b`.
    joined: Box<[[u64; 4]; 256]>,
}

impl Cuts {
    pub(crate) fn new(vocab: &Vocab) -> Self {
        let mut joined = Box::new([[0u64; 4]; 256]);
        for row in joined.iter_mut() {
            // Bytes 0x80 to 0xBF continue a character: never cut before them.
            row[2] = u64::MAX;
        }
        for piece in vocab.pieces.iter().filter(|p| p.kind.is_mergeable()) {
            let text = piece.text.replace(SPACE_MARK, " ");
            for pair in text.as_bytes().windows(2) {
                joined[usize::from(pair[0])][usize::from(pair[1] >> 6)] |= 1 << (pair[1] & 63);
            }
        }
        Self { joined }
    }

    /// Length of the first part of `text`, at least 1 unless `text` is empty.
    #[inline]
    fn first_part(&self, text: &[u8]) -> usize {
        let cut = |&[a, b]: &[u8; 2]| {
            self.joined[usize::from(a)][usize::from(b >> 6)] >> (b & 63) & 1 == 0
        };
        text.array_windows().position(cut).map_or(text.len(), |at| at + 1)
    }
}

/// Most ids of a remembered part.
const MAX_IDS: usize = 8;
/// Entries of the table; 64 bytes each.
const SLOTS: usize = 1 << 14;
/// Shorter texts are not worth the table's memory.
const MIN_TEXT: usize = 64;

/// A part's bytes, padded with zeros, and their number.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    words: [u64; 3],
    len: u64,
}

impl Key {
    const MAX: usize = 24;

    /// The key of `text[..len]`; `None` if it is too long. Bytes after `len` are loaded and masked away.
    #[inline]
    fn new(text: &[u8], len: usize) -> Option<Self> {
        if len > Self::MAX {
            return None;
        }
        let words = match text.first_chunk::<{ Self::MAX }>() {
            Some(chunk) => load(chunk, len),
            None => {
                let mut padded = [0; Self::MAX];
                padded[..len].copy_from_slice(&text[..len]);
                load(&padded, len)
            }
        };
        Some(Self { words, len: len as u64 })
    }

    #[inline]
    fn slot(&self) -> usize {
        let [a, b, c] = self.words;
        let mixed = (a ^ b.rotate_left(21) ^ c.rotate_left(42)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (mixed >> 40) as usize % SLOTS
    }
}

#[inline]
fn load(chunk: &[u8; Key::MAX], len: usize) -> [u64; 3] {
    std::array::from_fn(|i| {
        let (bytes, _) = chunk[i * 8..].split_first_chunk().expect("three words fit the key");
        let keep = len.saturating_sub(i * 8).min(8) as u32;
        let mask = u64::MAX.checked_shr(64 - keep * 8).unwrap_or(0);
        u64::from_le_bytes(*bytes) & mask
    })
}

/// The table of remembered parts, with the buffers for those that are not in it.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// Empty until needed. A slot: three words of key, key length (in the high half; 0 is a free slot) and number of
    /// ids, eight ids. Plain integers, so that fresh memory comes zeroed and untouched from the system.
    slots: Vec<[u64; 8]>,
    scratch: Scratch,
}

impl Encoder {
    /// Appends the ids of `text`, whose spaces are plain; `cuts` is absent where texts may not be cut.
    pub(crate) fn encode(
        &mut self,
        (vocab, merger, cuts): (&Vocab, &Merger, Option<&Cuts>),
        text: &str,
        out: &mut Vec<u32>,
    ) {
        let Some(cuts) = cuts else {
            return merger.encode(vocab, text, &mut self.scratch, out);
        };
        if self.slots.is_empty() && text.len() >= MIN_TEXT {
            self.slots = vec![[0; 8]; SLOTS];
        }
        let mut rest = text;
        while !rest.is_empty() {
            let len = cuts.first_part(rest.as_bytes());
            let key = Key::new(rest.as_bytes(), len).filter(|_| !self.slots.is_empty());
            let (part, after) = rest.split_at(len);
            rest = after;
            if key.is_none_or(|key| !self.recall(&key, out)) {
                let start = out.len();
                merger.encode(vocab, part, &mut self.scratch, out);
                if let Some(key) = key {
                    self.remember(&key, &out[start..]);
                }
            }
        }
    }

    /// Gives back buffers that one enormous part has blown up.
    pub(crate) fn trim(&mut self) {
        self.scratch.trim();
    }

    /// Appends the ids remembered for `key`, if there are any.
    #[inline]
    fn recall(&self, key: &Key, out: &mut Vec<u32>) -> bool {
        let slot = &self.slots[key.slot()];
        let [a, b, c, meta, ids @ ..] = slot;
        if [*a, *b, *c] != key.words || meta >> 32 != key.len {
            return false;
        }
        let n = (*meta & 0xFF) as usize;
        out.push(ids[0] as u32);
        for i in 1..n {
            out.push((ids[i / 2 % 4] >> (i % 2 * 32)) as u32);
        }
        true
    }

    fn remember(&mut self, key: &Key, ids: &[u32]) {
        if ids.is_empty() || ids.len() > MAX_IDS {
            return;
        }
        let mut slot = [0; 8];
        slot[..3].copy_from_slice(&key.words);
        slot[3] = key.len << 32 | ids.len() as u64;
        for (i, &id) in ids.iter().enumerate() {
            slot[4 + i / 2] |= u64::from(id) << (i % 2 * 32);
        }
        self.slots[key.slot()] = slot;
    }
}
