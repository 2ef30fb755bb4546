//! Conversations as training sees them, for people to look at.

use super::Sft;
use crate::tune::Item;

impl Sft<'_> {
    /// The first `n` conversations of the first epoch's order, their tokens as text; what is learned stands between `⟦` and
    /// `⟧`.
    #[must_use]
    pub fn audit(&self, n: usize) -> Vec<String> {
        let order = self.packed[0].rows.iter().flatten();
        order.take(n).map(|&(item, _)| self.marked(&self.items[item])).collect()
    }

    fn marked(&self, item: &Item) -> String {
        let mut text = String::new();
        let mut start = 0;
        while start < item.ids.len() {
            let learned = item.learned[start];
            let len = item.learned[start..].iter().take_while(|&&l| l == learned).count();
            let part: String =
                item.ids[start..start + len].iter().map(|&id| self.shown(id)).collect();
            text += &if learned { format!("⟦{part}⟧") } else { part };
            start += len;
        }
        text
    }

    /// A token with its space, whatever it is.
    fn shown(&self, id: u32) -> String {
        let tokenizer = &self.base.tokenizer;
        match tokenizer.piece(id) {
            Some(piece) if piece.text == "<0x0A>" => "\n".to_owned(),
            Some(piece) => piece.text.replace('▁', " "),
            None => format!("<{id}>"),
        }
    }
}
