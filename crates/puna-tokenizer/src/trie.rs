//! Longest-prefix matching over a small set of strings: user-defined pieces, control pieces.

use std::collections::HashMap;

/// A byte trie; each string carries an id.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    /// (node, byte) → node; the root is node 0.
    edges: HashMap<(u32, u8), u32>,
    /// Node → id of the string that ends there.
    ends: HashMap<u32, u32>,
    /// Whether some string starts with this byte, as a bit set: most text positions are settled by it.
    first: [u64; 4],
}

impl Trie {
    /// Adds `text` with its `id`. An empty `text` is not added.
    pub(crate) fn insert(&mut self, text: &str, id: u32) {
        let Some(&first) = text.as_bytes().first() else { return };
        self.first[usize::from(first >> 6)] |= 1 << (first & 63);
        let mut node = 0;
        for &byte in text.as_bytes() {
            let fresh = self.edges.len() as u32 + 1;
            node = *self.edges.entry((node, byte)).or_insert(fresh);
        }
        self.ends.insert(node, id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The longest string of the set that `text` starts with: its length in bytes and its id.
    pub(crate) fn longest_prefix(&self, text: &[u8]) -> Option<(usize, u32)> {
        let first = *text.first()?;
        if self.first[usize::from(first >> 6)] >> (first & 63) & 1 == 0 {
            return None;
        }
        let (mut node, mut best) = (0, None);
        for (i, &byte) in text.iter().enumerate() {
            let Some(&next) = self.edges.get(&(node, byte)) else { break };
            node = next;
            if let Some(&id) = self.ends.get(&node) {
                best = Some((i + 1, id));
            }
        }
        best
    }

    /// The first match in `text`, the longest one at its place: (start, end, id).
    pub(crate) fn find(&self, text: &str) -> Option<(usize, usize, u32)> {
        if self.is_empty() {
            return None;
        }
        let bytes = text.as_bytes();
        (0..bytes.len()).find_map(|start| {
            self.longest_prefix(&bytes[start..]).map(|(len, id)| (start, start + len, id))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_longest_and_the_leftmost() {
        let mut trie = Trie::default();
        for (id, text) in ["<fim>", "<fim>>", "é", ""].iter().enumerate() {
            trie.insert(text, id as u32);
        }
        assert_eq!(trie.longest_prefix(b"<fim>>>"), Some((6, 1)));
        assert_eq!(trie.longest_prefix(b"<fim"), None);
        assert_eq!(trie.longest_prefix(b""), None);
        assert_eq!(trie.find("aé<fim>"), Some((1, 3, 2)));
        assert_eq!(trie.find("abc"), None);
    }
}
