//! llama2.c's `tokenizer.bin`: a `u32` longest length, then for each piece an `f32` score, an `i32` length and the
//! text, little-endian. As exported, spaces are plain and the control pieces have line breaks around them.

use crate::TokenizerError;
use crate::vocab::{Piece, PieceKind, byte_value};

/// The first pieces of every such file, by the trainer settings of llama2.c: unknown, BOS, EOS, then the bytes.
const UNK_BOS_EOS: [(&str, PieceKind); 3] =
    [("<unk>", PieceKind::Unknown), ("<s>", PieceKind::Control), ("</s>", PieceKind::Control)];

/// The pieces of a `tokenizer.bin` of `vocab_size` pieces.
pub(crate) fn read(bytes: &[u8], vocab_size: usize) -> Result<Vec<Piece>, TokenizerError> {
    let mut reader = Reader { bytes, offset: 0 };
    reader.take(4)?;
    let mut pieces = Vec::new();
    for id in 0..vocab_size {
        pieces.push(read_piece(&mut reader, id)?);
    }
    match bytes.len() - reader.offset {
        0 => Ok(pieces),
        left => Err(reader
            .error(format!("expected the end after {vocab_size} pieces, found {left} more bytes"))),
    }
}

fn read_piece(reader: &mut Reader<'_>, id: usize) -> Result<Piece, TokenizerError> {
    let score = f32::from_le_bytes(reader.array()?);
    let len = i32::from_le_bytes(reader.array()?);
    let len = usize::try_from(len)
        .map_err(|_| reader.error(format!("piece {id}: its length is {len}")))?;
    let text = std::str::from_utf8(reader.take(len)?)
        .map_err(|e| reader.error(format!("piece {id}: its text is not UTF-8: {e}")))?;
    if let Some(&(name, kind)) = UNK_BOS_EOS.get(id) {
        if text.trim() != name {
            return Err(reader.error(format!("piece {id}: expected {name:?}, found {text:?}")));
        }
        return Ok(Piece { text: name.to_owned(), score, kind });
    }
    let kind = if byte_value(text).is_some() { PieceKind::Byte } else { PieceKind::Normal };
    Ok(Piece { text: text.replace(' ', "▁"), score, kind })
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, reason: String) -> TokenizerError {
        TokenizerError::Malformed { format: "tokenizer.bin", offset: self.offset, reason }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], TokenizerError> {
        let rest = &self.bytes[self.offset..];
        let taken = rest
            .get(..n)
            .ok_or_else(|| self.error(format!("expected {n} more bytes, found {}", rest.len())))?;
        self.offset += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TokenizerError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.error("wrong length".to_owned()))
    }
}
