//! Log-probabilities in OpenAI's two forms.

use puna_engine::Logprobs;
use puna_tokenizer::{PieceKind, Tokenizer};
use serde_json::{Map, Value, json};

/// A token's text, and its bytes: a part of a character is no text by itself.
fn text_of(tokenizer: &Tokenizer, id: u32) -> (String, Vec<u8>) {
    let Some(piece) = tokenizer.piece(id) else { return (String::new(), Vec::new()) };
    match piece.kind {
        PieceKind::Byte => {
            let bytes = tokenizer.decode_bytes(&[id]);
            let text = match std::str::from_utf8(&bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => format!("bytes:\\x{:02x}", bytes.first().copied().unwrap_or(0)),
            };
            (text, bytes)
        }
        _ => {
            let text = piece.text.replace('▁', " ");
            let bytes = text.clone().into_bytes();
            (text, bytes)
        }
    }
}

/// `logprobs` of a chat's choice.
pub(super) fn chat(tokenizer: &Tokenizer, tokens: &[(u32, Option<Logprobs>)]) -> Value {
    let entry = |id: u32, logprob: f32| {
        let (token, bytes) = text_of(tokenizer, id);
        json!({ "token": token, "logprob": finite(logprob), "bytes": bytes })
    };
    let content: Vec<Value> = tokens
        .iter()
        .filter_map(|(id, logprobs)| {
            let logprobs = logprobs.as_ref()?;
            let mut object = entry(*id, logprobs.chosen);
            object["top_logprobs"] = logprobs.top.iter().map(|&(id, x)| entry(id, x)).collect();
            Some(object)
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

/// `logprobs` of a completion's choice, whose text so far has `offset` characters.
pub(super) fn completion(
    tokenizer: &Tokenizer,
    tokens: &[(u32, Option<Logprobs>)],
    offset: &mut usize,
) -> Value {
    let (mut texts, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for (id, logprobs) in tokens {
        let Some(logprobs) = logprobs else { continue };
        let (text, _) = text_of(tokenizer, *id);
        offsets.push(*offset);
        *offset += text.chars().count();
        texts.push(text);
        values.push(finite(logprobs.chosen));
        let top = logprobs.top.iter().map(|&(id, x)| (text_of(tokenizer, id).0, json!(finite(x))));
        tops.push(Value::Object(top.collect::<Map<_, _>>()));
    }
    json!({ "tokens": texts, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets })
}

/// JSON has no infinity; OpenAI's own word for a token that cannot be is this number.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}
