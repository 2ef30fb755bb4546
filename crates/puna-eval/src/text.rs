//! A text as one model's tokens.

use puna_tokenizer::{PieceKind, Tokenizer};
use sha2::{Digest, Sha256};

use crate::EvalError;

/// The text that serves where none is given: the first chapter of "Alice's Adventures in Wonderland" (Lewis Carroll,
/// 1865, in the public domain), and a page of other kinds of text.
pub fn built_in_text() -> (&'static str, &'static str) {
    ("the built-in text", include_str!("../text/proof.txt"))
}

/// A text in the tokens of one vocabulary.
#[derive(Clone, Debug)]
pub struct Text {
    /// Its name, for messages and records.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// BOS where the model wants one, then the tokens.
    pub(crate) ids: Vec<u32>,
    /// Bytes of each token's piece; of the text, but for spaces that a tokenizer adds or drops, and unknown characters.
    pub(crate) n_bytes: Vec<usize>,
    /// The token that begins each window.
    pub(crate) bos_id: Option<u32>,
}

impl Text {
    /// Encodes `bytes` for a model that puts `bos_id` before a text.
    ///
    /// # Errors
    /// The bytes are no UTF-8.
    pub fn new(
        name: &str,
        bytes: &[u8],
        tokenizer: &Tokenizer,
        bos_id: Option<u32>,
    ) -> Result<Self, EvalError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| EvalError::NotUtf8 { text: name.to_owned(), at: e.valid_up_to() })?;
        let mut ids: Vec<u32> = bos_id.into_iter().collect();
        tokenizer.encode_into(text, &mut ids);
        let n_bytes = ids.iter().map(|&id| piece_bytes(tokenizer, id)).collect();
        let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: name.to_owned(), sha256, ids, n_bytes, bos_id })
    }

    /// Tokens, BOS included.
    pub fn n_tokens(&self) -> usize {
        self.ids.len()
    }

    /// Whether another model reads the same text as the same tokens.
    pub fn is_same_for(&self, other: &Self) -> bool {
        (&self.sha256, &self.ids) == (&other.sha256, &other.ids)
    }

    /// The tokens from `start` on, `ctx` of them, with BOS in the place of the first.
    pub(crate) fn window(&self, start: usize, ctx: usize) -> Vec<u32> {
        let mut ids = self.ids[start..start + ctx].to_vec();
        if let Some(bos_id) = self.bos_id {
            ids[0] = bos_id;
        }
        ids
    }
}

/// Bytes of text that a token stands for; `▁` stands for a space.
fn piece_bytes(tokenizer: &Tokenizer, id: u32) -> usize {
    let Some(piece) = tokenizer.piece(id) else { return 0 };
    match piece.kind {
        PieceKind::Byte => 1,
        PieceKind::Control | PieceKind::Unused => 0,
        _ => piece.text.replace('\u{2581}', " ").len(),
    }
}

#[cfg(test)]
mod tests {
    use puna_testkit::workspace_root;

    use super::*;

    fn tokenizer() -> Tokenizer {
        let path = workspace_root().join("models/stories260K.tokenizer.model");
        Tokenizer::from_sentencepiece(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn bytes_of_the_tokens_are_those_of_the_text() {
        let text = "Once upon a time, Zoë saw 3 ☂\n";
        let encoded = Text::new("t", text.as_bytes(), &tokenizer(), Some(1)).unwrap();
        // One more: the space put before the text.
        assert_eq!(encoded.n_bytes.iter().sum::<usize>(), text.len() + 1);
        assert_eq!(encoded.ids[0], 1);
        assert_eq!(encoded.window(2, 3)[0], 1);
        assert_eq!(encoded.window(2, 3)[1..], encoded.ids[3..5]);
        let (name, text) = built_in_text();
        let built_in = Text::new(name, text.as_bytes(), &tokenizer(), Some(1)).unwrap();
        assert!(built_in.n_tokens() > 2000);
    }

    #[test]
    fn other_bytes_are_refused() {
        let message = Text::new("t", b"ab\xff", &tokenizer(), None).unwrap_err().to_string();
        assert_eq!(message, "t: expected UTF-8, found other bytes at byte 2");
    }
}
