//! Sequences of different lengths packed into rows of one length, each seeing itself alone.

use std::ops::Range;

use puna_core::Rng;
use puna_train::MicroBatch;

/// Rows that stay open for what still fits.
const MOST_OPEN: usize = 64;

/// What stays together in a row: a conversation, or a pair of answers to one prompt, each a sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Item {
    /// Token ids of all sequences.
    pub ids: Vec<u32>,
    /// Whether a token is to be learned, as many as ids: it is predicted from those before it.
    pub learned: Vec<bool>,
    /// Where sequences end; the last is `ids.len()`.
    pub ends: Vec<usize>,
}

impl Item {
    /// A sequence alone.
    pub(crate) fn one(ids: Vec<u32>, learned: Vec<bool>) -> Self {
        Self { ends: vec![ids.len()], ids, learned }
    }

    /// Adds a sequence.
    pub(crate) fn push(&mut self, ids: &[u32], learned: &[bool]) {
        self.ids.extend_from_slice(ids);
        self.learned.extend_from_slice(learned);
        self.ends.push(self.ids.len());
    }

    /// Sequences.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| start..end)
    }
}

/// Which items are in which row, and where; rows of `seq_len` tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Packed {
    /// For each row, items by index with their first token's place.
    pub rows: Vec<Vec<(usize, usize)>>,
    pub seq_len: usize,
}

/// Numbers from 0 to below `n`, in an order drawn from a stream of `seed`.
pub(crate) fn shuffled(n: usize, seed: u64, stream: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut rng = Rng::new(seed, stream);
    for i in (1..n).rev() {
        order.swap(i, (rng.next_f64() * (i + 1) as f64) as usize);
    }
    order
}

/// Packs items in an order drawn from `seed` and `epoch`: each goes into the first open row that has room. Rows come in the
/// order in which they were opened.
///
/// # Panics
/// When an item is longer than a row.
pub(crate) fn pack(lens: &[usize], seq_len: usize, seed: u64, epoch: u64) -> Packed {
    let order = shuffled(lens.len(), seed, epoch);
    let mut rows: Vec<Vec<(usize, usize)>> = Vec::new();
    // Open rows and the tokens they have, oldest first.
    let mut open: Vec<(usize, usize)> = Vec::new();
    for item in order {
        let len = lens[item];
        assert!(len <= seq_len, "an item of {len} tokens in a row of {seq_len}");
        let place = open.iter().position(|(_, used)| used + len <= seq_len).unwrap_or_else(|| {
            if open.len() == MOST_OPEN {
                open.remove(0);
            }
            open.push((rows.len(), 0));
            rows.push(Vec::new());
            open.len() - 1
        });
        let (row, used) = &mut open[place];
        rows[*row].push((item, *used));
        *used += len;
    }
    Packed { rows, seq_len }
}

/// Some rows as a network takes them, filled up with masked tokens.
#[derive(Debug)]
pub(crate) struct RowBatch {
    pub tokens: Vec<u32>,
    pub targets: Vec<u32>,
    /// Ones where the next token is to be learned, else zeros; or what a recipe makes of them.
    pub scales: Vec<f32>,
    starts: Vec<u32>,
    /// Items with the place of their first token in all of these rows.
    pub items: Vec<(usize, usize)>,
}

impl RowBatch {
    /// `n_rows` rows: those given, and empty ones after them.
    pub(crate) fn new<'i>(
        packed: &Packed,
        rows: Range<usize>,
        n_rows: usize,
        items: impl Fn(usize) -> &'i Item,
    ) -> Self {
        let len = n_rows * packed.seq_len;
        let mut batch = Self {
            tokens: vec![0; len],
            targets: vec![0; len],
            scales: vec![0.0; len],
            // A filler sees itself.
            starts: (0..n_rows).flat_map(|_| 0..packed.seq_len as u32).collect(),
            items: Vec::new(),
        };
        for (i, row) in rows.enumerate() {
            for &(index, first) in &packed.rows[row] {
                let place = i * packed.seq_len + first;
                batch.put(items(index), place, first);
                batch.items.push((index, place));
            }
        }
        batch
    }

    fn put(&mut self, item: &Item, place: usize, first: usize) {
        self.tokens[place..place + item.ids.len()].copy_from_slice(&item.ids);
        for sequence in item.sequences() {
            let start = (first + sequence.start) as u32;
            self.starts[place + sequence.start..place + sequence.end].fill(start);
            for t in sequence.start + 1..sequence.end {
                self.targets[place + t - 1] = item.ids[t];
                self.scales[place + t - 1] = f32::from(u8::from(item.learned[t]));
            }
        }
    }

    /// As a pass takes it.
    pub(crate) fn view(&self) -> MicroBatch<'_> {
        let Self { tokens, targets, scales, starts, .. } = self;
        MicroBatch { tokens, targets, scales, starts: Some(starts) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_in_one_row_and_none_overlaps() {
        let lens: Vec<usize> = (0..500).map(|i| 1 + i * 7919 % 40).collect();
        let packed = pack(&lens, 64, 3, 0);
        let mut seen = vec![0; lens.len()];
        for row in &packed.rows {
            let mut end = 0;
            for &(item, first) in row {
                assert_eq!(first, end);
                end = first + lens[item];
                seen[item] += 1;
            }
            assert!(end <= 64);
        }
        assert!(seen.iter().all(|&n| n == 1));
        let least = lens.iter().sum::<usize>().div_ceil(64);
        assert!(packed.rows.len() <= least + least / 20 + 1, "{} rows, {least}", packed.rows.len());
        assert_eq!(packed, pack(&lens, 64, 3, 0));
        assert_ne!(packed, pack(&lens, 64, 3, 1));
    }

    #[test]
    fn rows_mask_what_is_not_learned_and_hide_neighbours() {
        let mut pair = Item::default();
        pair.push(&[1, 10, 11, 2], &[false, false, true, true]);
        pair.push(&[1, 10, 12], &[false, false, true]);
        let items = [Item::one(vec![1, 20, 2], vec![false, false, true]), pair];
        let packed = Packed { rows: vec![vec![(0, 0), (1, 3)]], seq_len: 12 };
        let batch = RowBatch::new(&packed, 0..1, 2, |i| &items[i]);
        assert_eq!(batch.tokens[..10], [1, 20, 2, 1, 10, 11, 2, 1, 10, 12]);
        assert_eq!(batch.starts[..12], [0, 0, 0, 3, 3, 3, 3, 7, 7, 7, 10, 11]);
        // The token before a sequence never predicts its first.
        assert_eq!(batch.scales[..10], [0., 1., 0., 0., 1., 1., 0., 0., 1., 0.]);
        assert_eq!(
            (batch.targets[1], batch.targets[4], batch.targets[5], batch.targets[8]),
            (2, 11, 2, 12)
        );
        assert!(batch.scales[10..].iter().all(|&s| s == 0.0));
        assert_eq!(batch.items, [(0, 0), (1, 3)]);
    }
}
