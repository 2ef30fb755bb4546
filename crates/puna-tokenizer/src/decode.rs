//! Ids back to text, all at once or as they come.

use std::ops::Deref;

use crate::Tokenizer;
use crate::vocab::{PieceKind, SPACE_MARK, Settings, byte_value};

/// Decodes ids one at a time; what all calls return, joined, is [`Tokenizer::decode`] of all ids.
///
/// A character whose bytes are pieces of their own is held back until it is whole, so no piece of output ever ends
/// inside a character. `T` is a reference to the tokenizer, or shares it.
#[derive(Debug, Clone)]
pub struct StreamDecoder<T> {
    tokenizer: T,
    start: Start,
    /// The bytes of byte pieces that do not make a character yet: at most three between calls.
    pending: Vec<u8>,
}

/// Where the dummy prefix is still to be removed.
#[derive(Debug, Clone, Default)]
struct Start {
    /// Some text has come out, or a prefix has been removed.
    passed: bool,
    /// The piece before this one lost its prefix, perhaps all of its text.
    removed: bool,
}

/// What one id adds.
enum Decoded<'t> {
    Byte(u8),
    /// Text in which `▁` still stands for a space.
    Marked(&'t str),
    Plain(&'t str),
}

impl<T: Deref<Target = Tokenizer>> StreamDecoder<T> {
    /// At the beginning of a text; see [`Tokenizer::decoder`].
    pub fn new(tokenizer: T) -> Self {
        Self { tokenizer, start: Start::default(), pending: Vec::new() }
    }

    /// Takes the next id and returns the text that is certain now; often empty.
    pub fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        self.push_to(id, &mut text);
        text
    }

    /// Appends to `text` what [`StreamDecoder::push`] returns.
    pub fn push_to(&mut self, id: u32, text: &mut String) {
        let Self { tokenizer, start, pending } = self;
        let decoded = lookup(tokenizer, id);
        if let Decoded::Byte(byte) = decoded {
            pending.push(byte);
            return drain(pending, start, false, text);
        }
        let before = text.len();
        drain(pending, start, true, text);
        match start.strip_prefix(decoded, &tokenizer.settings) {
            Decoded::Plain(piece) => text.push_str(piece),
            Decoded::Marked(piece) => {
                text.extend(piece.chars().map(|c| if c == SPACE_MARK { ' ' } else { c }));
            }
            Decoded::Byte(_) => {}
        }
        start.passed |= text.len() > before;
    }

    /// Ends the text: bytes that are still no character become U+FFFD each. The decoder may then start another text.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        drain(&mut self.pending, &mut self.start, true, &mut text);
        self.start = Start::default();
        text
    }

    /// All of `ids` at once, without making characters of bytes.
    pub(crate) fn into_bytes(mut self, ids: &[u32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            let decoded = lookup(&self.tokenizer, id);
            match self.start.strip_prefix(decoded, &self.tokenizer.settings) {
                Decoded::Byte(byte) => out.push(byte),
                Decoded::Plain(piece) => out.extend_from_slice(piece.as_bytes()),
                Decoded::Marked(piece) => {
                    out.extend_from_slice(piece.replace(SPACE_MARK, " ").as_bytes());
                }
            }
            self.start.passed |= !out.is_empty();
        }
        out
    }
}

impl Start {
    /// Removes one space (all spaces where the tokenizer shortens spaces) from the beginning of the text.
    fn strip_prefix<'t>(&mut self, decoded: Decoded<'t>, settings: &Settings) -> Decoded<'t> {
        self.passed |= std::mem::take(&mut self.removed);
        match decoded {
            Decoded::Marked(piece) if !self.passed => match piece.strip_prefix(SPACE_MARK) {
                Some(rest) if settings.remove_extra_whitespaces => Decoded::Marked(rest),
                Some(rest) if settings.add_dummy_prefix => {
                    self.removed = true;
                    Decoded::Marked(rest)
                }
                _ => Decoded::Marked(piece),
            },
            other => other,
        }
    }
}

fn lookup(tokenizer: &Tokenizer, id: u32) -> Decoded<'_> {
    let Some(piece) = tokenizer.piece(id) else {
        return Decoded::Plain(&tokenizer.settings.unk_surface);
    };
    match piece.kind {
        PieceKind::Control => Decoded::Plain(""),
        PieceKind::Unknown => Decoded::Plain(&tokenizer.settings.unk_surface),
        PieceKind::Byte => Decoded::Byte(byte_value(&piece.text).unwrap_or_default()),
        PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused => {
            Decoded::Marked(&piece.text)
        }
    }
}

/// Moves the characters that `pending` begins with to `text`; with `all`, the rest becomes U+FFFD per byte.
fn drain(pending: &mut Vec<u8>, start: &mut Start, all: bool, text: &mut String) {
    let before = text.len();
    let mut rest = pending.as_slice();
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
            }
            Err(e) if e.valid_up_to() > 0 => {
                let (valid, after) = rest.split_at(e.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
            }
            Err(e) if e.error_len().is_some() || all => {
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[1..];
            }
            Err(_) => break,
        }
    }
    *pending = rest.to_vec();
    start.passed |= text.len() > before;
}
