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

    /// Bit `i`: text may be cut after `text[i]`, for the first 64 bytes; the end of the text counts as a cut.
    /// Without branches, as where words end is just what a processor cannot predict.
    #[inline]
    fn mask(&self, text: &[u8]) -> u64 {
        let window = &text[..text.len().min(BLOCK + 1)];
        let mut joined = 0;
        for (i, &[a, b]) in window.array_windows().enumerate() {
            joined |= (self.joined[usize::from(a)][usize::from(b >> 6)] >> (b & 63) & 1) << i;
        }
        let n = window.len().min(BLOCK);
        !joined & u64::MAX >> (BLOCK - n)
    }
}

/// Bytes that [`Cuts::mask`] looks at in one go.
const BLOCK: usize = 64;
/// Most ids of a remembered part.
const MAX_IDS: usize = 8;
/// Entries of the table; 64 bytes each.
const SLOTS: usize = 1 << 16;
/// Shorter texts are not worth the table's memory.
const MIN_TEXT: usize = 64;

/// A part's bytes, padded with zeros, and their number.
#[derive(Clone, Copy)]
struct Key {
    words: [u64; 3],
    len: u64,
}

/// Which bits of the three words belong to a key of each length.
const KEY_MASKS: [[u64; 3]; Key::MAX + 1] = {
    let mut masks = [[0; 3]; Key::MAX + 1];
    let mut byte = 0;
    while byte < Key::MAX {
        let mut len = byte + 1;
        while len <= Key::MAX {
            masks[len][byte / 8] |= 0xFF << (byte % 8 * 8);
            len += 1;
        }
        byte += 1;
    }
    masks
};

impl Key {
    const MAX: usize = 24;

    /// The key of `text[..len]`; `None` if it is too long. Bytes after `len` are loaded and masked away.
    #[inline]
    fn new(text: &[u8], len: usize) -> Option<Self> {
        let mask = KEY_MASKS.get(len)?;
        let words = match text.first_chunk::<{ Self::MAX }>() {
            Some(chunk) => load(chunk),
            None => {
                let mut padded = [0; Self::MAX];
                padded[..len].copy_from_slice(&text[..len]);
                load(&padded)
            }
        };
        Some(Self { words: std::array::from_fn(|i| words[i] & mask[i]), len: len as u64 })
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
fn load(chunk: &[u8; Key::MAX]) -> [u64; 3] {
    let (words, _) = chunk.as_chunks::<8>();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

/// A remembered part: its key, key length and number of ids, its ids. Plain integers, so that fresh memory comes zeroed
/// and untouched from the system; a length of 0 is a free slot.
type Slot = [u64; 8];

/// The table of remembered parts, with the buffers for those that are not in it.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// Empty until needed.
    slots: Vec<Slot>,
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
        let mut start = 0;
        for base in (0..text.len()).step_by(BLOCK) {
            let mut mask = cuts.mask(&text.as_bytes()[base..]);
            while mask != 0 {
                let end = base + mask.trailing_zeros() as usize + 1;
                mask &= mask - 1;
                self.encode_part((vocab, merger), &text[start..], end - start, out);
                start = end;
            }
        }
    }

    /// Appends the ids of `text[..len]`.
    #[inline]
    fn encode_part(
        &mut self,
        (vocab, merger): (&Vocab, &Merger),
        text: &str,
        len: usize,
        out: &mut Vec<u32>,
    ) {
        let key = Key::new(text.as_bytes(), len).filter(|_| !self.slots.is_empty());
        if key.is_some_and(|key| self.recall(&key, out)) {
            return;
        }
        let start = out.len();
        merger.encode(vocab, &text[..len], &mut self.scratch, out);
        if let Some(key) = key {
            self.remember(&key, &out[start..]);
        }
    }

    /// Gives back buffers that one enormous part has blown up.
    pub(crate) fn trim(&mut self) {
        self.scratch.trim();
    }

    /// Appends the ids remembered for `key`, if there are any.
    #[inline]
    fn recall(&self, key: &Key, out: &mut Vec<u32>) -> bool {
        let [a, b, c, meta, ids @ ..] = &self.slots[key.slot()];
        if [*a, *b, *c] != key.words || meta >> 32 != key.len {
            return false;
        }
        // Copying all eight and cutting back is faster than a loop of unpredictable length.
        let n = out.len() + (*meta & 0xFF) as usize;
        let ids: [u32; MAX_IDS] = std::array::from_fn(|i| (ids[i / 2] >> (i % 2 * 32)) as u32);
        out.extend_from_slice(&ids);
        out.truncate(n);
        true
    }

    fn remember(&mut self, key: &Key, ids: &[u32]) {
        if ids.len() > MAX_IDS {
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
