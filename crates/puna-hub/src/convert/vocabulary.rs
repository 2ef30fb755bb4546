//! A tokenizer as the metadata of a GGUF file.

use puna_formats::gguf::Value;
use puna_tokenizer::{Piece, PieceKind, Settings};

/// Score of pieces that stand for nothing: no merge prefers them.
const PAD_SCORE: f32 = -10_000.0;

/// The entries `tokenizer.ggml.*` of a vocabulary. `pieces` has as many entries as the embedding has rows.
pub(crate) fn entries(
    pieces: &[Piece],
    settings: &Settings,
    add_bos: bool,
    add_eos: bool,
) -> Vec<(String, Value)> {
    let scores: Vec<f32> = pieces.iter().map(|piece| piece.score).collect();
    let kinds: Vec<i32> = pieces.iter().map(|piece| piece.kind as i32).collect();
    let unknown = pieces.iter().position(|piece| piece.kind == PieceKind::Unknown);
    let ids = [
        ("tokenizer.ggml.bos_token_id", settings.bos_id),
        ("tokenizer.ggml.eos_token_id", settings.eos_id),
        ("tokenizer.ggml.unknown_token_id", unknown.map(|id| id as u32)),
        ("tokenizer.ggml.padding_token_id", settings.pad_id),
    ];
    let mut entries = vec![
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.pre", Value::String("default".into())),
        ("tokenizer.ggml.tokens", Value::strings(pieces.iter().map(|piece| &piece.text))),
        ("tokenizer.ggml.scores", Value::f32s(&scores)),
        ("tokenizer.ggml.token_type", Value::i32s(&kinds)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(add_bos)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(add_eos)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(settings.add_dummy_prefix)),
    ];
    if settings.remove_extra_whitespaces {
        entries.push(("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true)));
    }
    entries.extend(ids.into_iter().filter_map(|(key, id)| Some((key, Value::U32(id?)))));
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// `pieces` with entries for the rows of the embedding that have none, named and typed as llama.cpp does it.
pub(super) fn padded(pieces: &[Piece], n_rows: usize) -> Vec<Piece> {
    let padding = (pieces.len()..n_rows).map(|id| Piece {
        text: format!("[PAD{id}]"),
        score: PAD_SCORE,
        kind: PieceKind::Unused,
    });
    pieces.iter().cloned().chain(padding).collect()
}
