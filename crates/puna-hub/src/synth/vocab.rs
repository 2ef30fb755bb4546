//! An invented vocabulary in the form of Llama's: `<unk>`, `<s>`, `</s>`, 256 bytes, then pieces that
//! merges can reach, each with a lower score than the one before.

use puna_tokenizer::{Piece, PieceKind};

/// The pieces before the first that a merge makes.
const N_FIXED: usize = 3 + 256;

/// `n` entries. Texts are unique; every text of two or more characters is an earlier text plus one
/// character that is itself an entry.
pub(crate) fn invent(n: usize) -> Vec<Piece> {
    let entry = |text: String, score, kind| Piece { text, score, kind };
    let mut entries = vec![
        entry("<unk>".into(), 0.0, PieceKind::Unknown),
        entry("<s>".into(), 0.0, PieceKind::Control),
        entry("</s>".into(), 0.0, PieceKind::Control),
    ];
    entries.extend((0..=255).map(|byte| entry(format!("<0x{byte:02X}>"), 0.0, PieceKind::Byte)));
    let texts = single_characters().chain(words());
    entries.extend(
        texts
            .enumerate()
            .map(|(rank, text)| entry(text, -(rank as f32), PieceKind::Normal))
            .take(n - N_FIXED.min(n)),
    );
    entries.truncate(n);
    entries
}

/// The space marker and the printable characters of ASCII.
fn single_characters() -> impl Iterator<Item = String> {
    std::iter::once('\u{2581}').chain('!'..='~').map(String::from)
}

/// All strings of two letters, then of three, and so on, each also as the start of a word.
fn words() -> impl Iterator<Item = String> {
    (1usize..).flat_map(|len| {
        let count = 26usize.pow(len as u32);
        let starts = (0..count).map(move |idx| format!("\u{2581}{}", letters(idx, len)));
        let inner = (0..26 * count).map(move |idx| letters(idx, len + 1));
        starts.chain(inner)
    })
}

/// The `idx`-th string of `len` letters.
fn letters(idx: usize, len: usize) -> String {
    (0..len as u32)
        .rev()
        .map(|place| char::from(b'a' + (idx / 26usize.pow(place) % 26) as u8))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pieces_are_unique_and_reachable() {
        let entries = invent(32_000);
        assert_eq!(entries.len(), 32_000);
        let mut seen = HashSet::new();
        for entry in &entries {
            if entry.kind == PieceKind::Normal && entry.text.chars().count() > 1 {
                let (last, _) = entry.text.char_indices().next_back().unwrap();
                let (head, tail) = entry.text.split_at(last);
                assert!(seen.contains(head) && seen.contains(tail), "{}", entry.text);
            }
            assert!(seen.insert(entry.text.as_str()), "{} twice", entry.text);
        }
        assert_eq!(entries[3].text, "<0x00>");
        assert_eq!(entries[N_FIXED].text, "\u{2581}");
        assert!(entries[N_FIXED..].is_sorted_by(|a, b| a.score > b.score));
    }
}
