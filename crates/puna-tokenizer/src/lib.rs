//! SentencePiece BPE as Llama 2 uses it: model files, encode, decode, chat templates.
//!
//! A [`Tokenizer`] is read from any published form of the vocabulary (SentencePiece's `tokenizer.model`, Hugging
//! Face's `tokenizer.json`, llama2.c's `tokenizer.bin`, or the pieces of a GGUF file) and gives the ids that the
//! `sentencepiece` library gives:
//!
//! 1. Spaces become `▁` (U+2581), and one `▁` is put before the text (the "dummy prefix").
//! 2. The text is cut into characters; user-defined pieces are taken whole.
//! 3. The adjacent pair whose concatenation is the best-scored piece is merged, the leftmost one of equals, until no
//!    pair makes a piece.
//! 4. Characters that are no piece become the pieces of their UTF-8 bytes.
//!
//! Control pieces (`<s>`, `</s>`) never come out of plain text: [`Tokenizer::encode`] treats `<s>` as three
//! characters. A caller who wants them asks for [`Tokenizer::encode_with_specials`] or adds [`Tokenizer::bos_id`].
//!
//! No input makes this crate panic, and no file makes it allocate more than a small multiple of its own size.

pub mod chat;
mod decode;
mod error;
mod hf_json;
mod hf_write;
mod llama2c;
mod merge;
#[cfg(test)]
mod oracle_tests;
mod protobuf;
mod sentencepiece;
mod tokenizer;
pub mod train;
mod trie;
mod vocab;
mod words;

pub use decode::StreamDecoder;
pub use error::TokenizerError;
pub use tokenizer::Tokenizer;
pub use vocab::{Piece, PieceKind, Settings};
