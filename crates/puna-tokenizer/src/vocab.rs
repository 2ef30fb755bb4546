//! Pieces and their ids, checked once when a vocabulary is loaded.

use crate::TokenizerError;
use std::collections::HashMap;

/// SentencePiece's mark for a space inside pieces, U+2581.
pub(crate) const SPACE_MARK: char = '▁';

/// Longest piece accepted, in bytes. SentencePiece trains none above 512 characters.
const MAX_PIECE_BYTES: usize = 2048;

/// Most pieces accepted; the ids above it are used as marks inside the encoder.
const MAX_PIECES: usize = 1 << 30;

/// The type of a piece, as `tokenizer.model` and GGUF files number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PieceKind {
    /// Ordinary text, made by merging.
    Normal = 1,
    /// Stands for text that no piece covers.
    Unknown = 2,
    /// Has a meaning instead of a text: `<s>`, `</s>`.
    Control = 3,
    /// Always taken whole, before any merging.
    UserDefined = 4,
    /// Takes part in merging but is split again in the result.
    Unused = 5,
    /// One byte, written `<0x0A>`.
    Byte = 6,
}

impl PieceKind {
    /// The kind with this number in `tokenizer.model` (`SentencePiece.Type`) and in GGUF (`tokenizer.ggml.token_type`).
    pub fn from_number(number: u64) -> Option<Self> {
        use PieceKind::*;
        [Normal, Unknown, Control, UserDefined, Unused, Byte]
            .into_iter()
            .find(|k| *k as u64 == number)
    }

    /// Whether merging may produce a piece of this kind.
    pub(crate) fn is_mergeable(self) -> bool {
        matches!(self, PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused)
    }
}

/// One entry of the vocabulary; its position is its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The text, with `▁` for a space.
    pub text: String,
    /// Merges with higher scores come first.
    pub score: f32,
    /// What the piece is for.
    pub kind: PieceKind,
}

/// What a vocabulary's file says beside its pieces. The default is Llama 2's.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Put one space before the text (GGUF: `tokenizer.ggml.add_space_prefix`).
    pub add_dummy_prefix: bool,
    /// Drop leading and trailing spaces and shorten runs to one (GGUF: `tokenizer.ggml.remove_extra_whitespaces`).
    pub remove_extra_whitespaces: bool,
    /// Characters that are no piece become pieces of single bytes; without it they become the unknown piece.
    pub byte_fallback: bool,
    /// What the unknown piece decodes to.
    pub unk_surface: String,
    /// Beginning of a text. Becomes a control piece whatever its own kind says; so do the next two.
    pub bos_id: Option<u32>,
    /// End of a text.
    pub eos_id: Option<u32>,
    /// Filler for batches.
    pub pad_id: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            add_dummy_prefix: true,
            remove_extra_whitespaces: false,
            byte_fallback: true,
            unk_surface: " \u{2047} ".to_owned(),
            bos_id: Some(1),
            eos_id: Some(2),
            pad_id: None,
        }
    }
}

/// A checked vocabulary.
#[derive(Debug)]
pub(crate) struct Vocab {
    pub(crate) pieces: Vec<Piece>,
    ids: HashMap<Box<str>, u32>,
    /// Byte → id of its piece; `None` without byte fallback.
    pub(crate) byte_ids: Option<Box<[u32; 256]>>,
    pub(crate) unk_id: Option<u32>,
}

impl Vocab {
    /// Checks `pieces` against each other and against `settings`.
    pub(crate) fn new(mut pieces: Vec<Piece>, settings: &Settings) -> Result<Self, TokenizerError> {
        if pieces.is_empty() || pieces.len() > MAX_PIECES {
            let n = pieces.len();
            return Err(TokenizerError::BadVocabulary(format!(
                "expected 1 to {MAX_PIECES} pieces, found {n}"
            )));
        }
        mark_control(&mut pieces, settings)?;
        let mut ids = HashMap::with_capacity(pieces.len());
        for (id, piece) in (0u32..).zip(&pieces) {
            check_piece(id, piece)?;
            if let Some(first) = ids.insert(Box::from(piece.text.as_str()), id) {
                let piece = piece.text.clone();
                return Err(TokenizerError::DuplicatePiece { piece, first, second: id });
            }
        }
        let unk_id = find_unknown(&pieces)?;
        let byte_ids = find_bytes(&pieces, settings.byte_fallback)?;
        if unk_id.is_none() && byte_ids.is_none() {
            let reason =
                "neither an unknown piece nor byte fallback: some text could not be encoded";
            return Err(TokenizerError::BadVocabulary(reason.to_owned()));
        }
        Ok(Self { pieces, ids, byte_ids, unk_id })
    }

    pub(crate) fn id_of(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    pub(crate) fn kind(&self, id: u32) -> Option<PieceKind> {
        self.pieces.get(id as usize).map(|p| p.kind)
    }

    /// Pieces of `kind` with their ids.
    pub(crate) fn of_kind(&self, kind: PieceKind) -> impl Iterator<Item = (u32, &Piece)> {
        (0u32..).zip(&self.pieces).filter(move |(_, p)| p.kind == kind)
    }
}

/// Text must never turn into BOS, EOS or padding, so those pieces are control pieces in every file.
fn mark_control(pieces: &mut [Piece], settings: &Settings) -> Result<(), TokenizerError> {
    let n = pieces.len();
    let named = [("BOS", settings.bos_id), ("EOS", settings.eos_id), ("padding", settings.pad_id)];
    for (name, id) in named {
        let Some(id) = id else { continue };
        let Some(piece) = pieces.get_mut(id as usize) else {
            let reason = format!("the {name} id is {id}, but there are only {n} pieces");
            return Err(TokenizerError::BadVocabulary(reason));
        };
        if piece.kind.is_mergeable() {
            piece.kind = PieceKind::Control;
        }
    }
    Ok(())
}

fn check_piece(id: u32, piece: &Piece) -> Result<(), TokenizerError> {
    let bad = |reason| Err(TokenizerError::BadPiece { id, reason });
    match piece.text.len() {
        0 => bad("its text is empty".to_owned()),
        len if len > MAX_PIECE_BYTES => {
            bad(format!("its text has {len} bytes, the limit is {MAX_PIECE_BYTES}"))
        }
        _ if piece.score.is_nan() => bad("its score is not a number".to_owned()),
        _ => Ok(()),
    }
}

fn find_unknown(pieces: &[Piece]) -> Result<Option<u32>, TokenizerError> {
    let mut found = (0u32..).zip(pieces).filter(|(_, p)| p.kind == PieceKind::Unknown);
    match (found.next(), found.next()) {
        (Some((first, _)), Some((second, _))) => {
            let reason = format!("expected one unknown piece, found ids {first} and {second}");
            Err(TokenizerError::BadVocabulary(reason))
        }
        (first, _) => Ok(first.map(|(id, _)| id)),
    }
}

fn find_bytes(
    pieces: &[Piece],
    byte_fallback: bool,
) -> Result<Option<Box<[u32; 256]>>, TokenizerError> {
    let mut table = Box::new([u32::MAX; 256]);
    for (id, piece) in (0u32..).zip(pieces).filter(|(_, p)| p.kind == PieceKind::Byte) {
        let bad = |reason| TokenizerError::BadPiece { id, reason };
        if !byte_fallback {
            return Err(bad(format!("{:?} is a byte piece, but byte fallback is off", piece.text)));
        }
        let byte = byte_value(&piece.text).ok_or_else(|| {
            bad(format!("a byte piece must look like <0x0A>, found {:?}", piece.text))
        })?;
        table[usize::from(byte)] = id;
    }
    if !byte_fallback {
        return Ok(None);
    }
    match table.iter().position(|&id| id == u32::MAX) {
        Some(byte) => {
            let reason =
                format!("byte fallback is on, but there is no piece for byte 0x{byte:02X}");
            Err(TokenizerError::BadVocabulary(reason))
        }
        None => Ok(Some(table)),
    }
}

/// The byte that a piece's text such as `<0x0A>` stands for.
pub(crate) fn byte_value(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let canonical =
        digits.len() == 2 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    canonical.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
