//! The vocabulary inside a GGUF file.

use super::config::Keys;
use super::value::Array;
use crate::FormatError;

/// A SentencePiece vocabulary as a GGUF file holds it (`tokenizer.ggml.*`).
#[derive(Clone, Debug, PartialEq)]
pub struct GgufVocab {
    /// Pieces by id, `▁` for a space, `<0x0A>` for bytes.
    pub tokens: Vec<String>,
    /// Scores by id; merges with a higher score come first.
    pub scores: Vec<f32>,
    /// Types by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// Beginning of a text.
    pub bos_id: Option<u32>,
    /// End of a text.
    pub eos_id: Option<u32>,
    /// The piece for what cannot be written otherwise.
    pub unk_id: Option<u32>,
    /// Filler for batches.
    pub pad_id: Option<u32>,
    /// Whether a text begins with BOS; true for Llama 2 where the file does not say.
    pub add_bos: Option<bool>,
    /// Whether a text ends with EOS.
    pub add_eos: Option<bool>,
    /// Whether a space is put in front of a text; true where the file does not say.
    pub add_space_prefix: Option<bool>,
    /// Whether spaces at the ends are dropped and runs of them shortened; false where the file does not say.
    pub remove_extra_whitespaces: Option<bool>,
}

impl GgufVocab {
    /// The vocabulary of a file; `None` if it has none.
    pub(super) fn read(keys: &Keys<'_>) -> Result<Option<Self>, FormatError> {
        let model_key = "tokenizer.ggml.model";
        let tokens_key = "tokenizer.ggml.tokens";
        match keys.string(model_key)? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some("llama") => {}
            Some(other) => {
                let expected = "llama (SentencePiece)";
                return Err(FormatError::unsupported(keys.file, model_key, expected, other));
            }
        }
        let tokens =
            keys.optional(tokens_key, "an array of strings", |v| v.as_array()?.strings())?;
        let tokens = tokens.ok_or_else(|| {
            FormatError::malformed(keys.file, tokens_key, "a list of pieces", "none")
        })?;
        let tokens: Vec<String> = tokens
            .enumerate()
            .map(|(id, token)| piece(keys.file, id, token))
            .collect::<Result<_, _>>()?;
        let vocab = Self {
            scores: per_token(keys, "tokenizer.ggml.scores", "f32", Array::f32s, &tokens)?,
            token_types: per_token(keys, "tokenizer.ggml.token_type", "i32", Array::i32s, &tokens)?,
            bos_id: special(keys, "tokenizer.ggml.bos_token_id", &tokens)?,
            eos_id: special(keys, "tokenizer.ggml.eos_token_id", &tokens)?,
            unk_id: special(keys, "tokenizer.ggml.unknown_token_id", &tokens)?,
            pad_id: special(keys, "tokenizer.ggml.padding_token_id", &tokens)?,
            add_bos: keys.flag("tokenizer.ggml.add_bos_token")?,
            add_eos: keys.flag("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: keys.flag("tokenizer.ggml.add_space_prefix")?,
            remove_extra_whitespaces: keys.flag("tokenizer.ggml.remove_extra_whitespaces")?,
            tokens,
        };
        Ok(Some(vocab))
    }
}

fn piece(file: &str, id: usize, token: &[u8]) -> Result<String, FormatError> {
    std::str::from_utf8(token).map(str::to_owned).map_err(|_| {
        let what = format!("tokenizer.ggml.tokens, piece {id}");
        FormatError::malformed(file, what, "UTF-8", token.escape_ascii())
    })
}

/// An array with one element for each token.
fn per_token<'a, T, I: Iterator<Item = T>>(
    keys: &Keys<'a>,
    key: &str,
    kind: &str,
    read: impl FnOnce(&'a Array) -> Option<I>,
    tokens: &[String],
) -> Result<Vec<T>, FormatError> {
    let expected = format!("{} elements of type {kind}, one for each piece", tokens.len());
    let items = keys.optional(key, &expected, |v| read(v.as_array()?))?;
    let items: Option<Vec<T>> = items.map(Iterator::collect);
    match items {
        Some(items) if items.len() == tokens.len() => Ok(items),
        Some(items) => Err(FormatError::malformed(keys.file, key, expected, items.len())),
        None => Err(FormatError::malformed(keys.file, key, expected, "none")),
    }
}

fn special(keys: &Keys<'_>, key: &str, tokens: &[String]) -> Result<Option<u32>, FormatError> {
    let id = keys.id(key)?;
    match id {
        Some(id) if id as usize >= tokens.len() => {
            let expected = format!("an id below {}", tokens.len());
            Err(FormatError::malformed(keys.file, key, expected, id))
        }
        _ => Ok(id),
    }
}
