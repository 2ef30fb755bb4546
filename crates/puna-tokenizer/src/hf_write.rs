//! Hugging Face's files of a vocabulary: `tokenizer.json` as the published Llama 2 tokenizer has it, and the two small
//! files beside it.

use crate::merge::Merge;
use crate::tokenizer::Prefix;
use crate::vocab::{PieceKind, Vocab};
use crate::{Tokenizer, TokenizerError};
use serde_json::{Map, Value, json};

/// [`Settings::remove_extra_whitespaces`](crate::Settings::remove_extra_whitespaces) as replacements by regular
/// expressions: spaces at the ends, then runs of them.
pub(crate) const EXTRA_SPACES: [(&str, &str); 2] = [("^ +| +$", ""), (" {2,}", " ")];

/// The text of `tokenizer.json`; texts begin with BOS and end with EOS where asked for.
pub(crate) fn tokenizer_json(
    tokenizer: &Tokenizer,
    add_bos: bool,
    add_eos: bool,
) -> Result<Vec<u8>, TokenizerError> {
    tokenizer.check_ranked_by_score()?;
    let settings = tokenizer.settings();
    let vocab = &tokenizer.vocab;
    let ids = (0u32..).zip(&vocab.pieces).map(|(id, piece)| (piece.text.clone(), json!(id)));
    let unknown = vocab.unk_id.and_then(|id| tokenizer.piece(id)).map(|piece| &piece.text);
    let (normalizer, pre_tokenizer) = spaces(tokenizer);
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(vocab),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor(tokenizer, add_bos, add_eos),
        "decoder": decoder(tokenizer),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": settings.byte_fallback,
            "vocab": ids.collect::<Map<_, _>>(),
            "merges": merges(vocab)?,
        },
    });
    Ok(text(&file))
}

/// The text of `tokenizer_config.json`.
pub(crate) fn config_json(
    tokenizer: &Tokenizer,
    add_bos: bool,
    add_eos: bool,
    chat_template: Option<&str>,
) -> Vec<u8> {
    // `LlamaTokenizer` would make a tokenizer of its own from the vocabulary alone; version 5 of transformers puts no
    // space before a text that begins with one. This class takes `tokenizer.json` at its word.
    let mut file = json!({
        "add_bos_token": add_bos,
        "add_eos_token": add_eos,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 1e30,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    for (key, name) in special_names(tokenizer) {
        file[key] = json!(name);
    }
    if let Some(template) = chat_template {
        file["chat_template"] = json!(template);
    }
    text(&file)
}

/// The text of `special_tokens_map.json`.
pub(crate) fn special_tokens_json(tokenizer: &Tokenizer) -> Vec<u8> {
    text(&Value::Object(
        special_names(tokenizer).map(|(key, name)| (key.to_owned(), json!(name))).collect(),
    ))
}

fn text(file: &Value) -> Vec<u8> {
    format!("{file:#}\n").into_bytes()
}

/// Pieces with a role, by the name of the role.
fn special_names(tokenizer: &Tokenizer) -> impl Iterator<Item = (&'static str, &str)> {
    let settings = tokenizer.settings();
    let roles = [
        ("bos_token", settings.bos_id),
        ("eos_token", settings.eos_id),
        ("unk_token", tokenizer.vocab.unk_id),
        ("pad_token", settings.pad_id),
    ];
    let name = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id));
    roles.into_iter().filter_map(move |(role, id)| Some((role, name(id)?.text.as_str())))
}

/// Pieces that are taken whole: control pieces and the unknown one as special tokens, user-defined ones as others.
fn added_tokens(vocab: &Vocab) -> Vec<Value> {
    let added = (0u32..).zip(&vocab.pieces).filter_map(|(id, piece)| {
        let special = match piece.kind {
            PieceKind::Unknown | PieceKind::Control => true,
            PieceKind::UserDefined => false,
            PieceKind::Normal | PieceKind::Unused | PieceKind::Byte => return None,
        };
        Some(json!({
            "id": id, "content": piece.text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        }))
    });
    added.collect()
}

/// The normaliser and the pre-tokeniser that make spaces `▁`.
fn spaces(tokenizer: &Tokenizer) -> (Value, Value) {
    let settings = tokenizer.settings();
    let mut steps = Vec::new();
    if settings.remove_extra_whitespaces {
        let [ends, runs] = EXTRA_SPACES.map(|(pattern, content)| {
            json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": content })
        });
        steps.extend([ends, runs]);
    }
    let pre_tokenizer = match tokenizer.prefix {
        Prefix::BySettings => {
            if settings.add_dummy_prefix {
                steps.push(json!({ "type": "Prepend", "prepend": "▁" }));
            }
            let pattern = json!({ "String": " " });
            steps.push(json!({ "type": "Replace", "pattern": pattern, "content": "▁" }));
            Value::Null
        }
        Prefix::Metaspace { first_only } => {
            let scheme = if first_only { "first" } else { "always" };
            json!({
                "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false,
            })
        }
    };
    let normalizer = match steps.len() {
        0 => Value::Null,
        1 => steps.remove(0),
        _ => json!({ "type": "Sequence", "normalizers": steps }),
    };
    (normalizer, pre_tokenizer)
}

fn post_processor(tokenizer: &Tokenizer, add_bos: bool, add_eos: bool) -> Value {
    let settings = tokenizer.settings();
    let named = |id: Option<u32>| id.and_then(|id| Some((id, tokenizer.piece(id)?.text.as_str())));
    let bos = named(settings.bos_id).filter(|_| add_bos);
    let eos = named(settings.eos_id).filter(|_| add_eos);
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let special = |(_, name): (u32, &str), side: u32| json!({ "SpecialToken": { "id": name, "type_id": side } });
    let sequence = |name: &str, side: u32| {
        let text = json!({ "Sequence": { "id": name, "type_id": side } });
        let before = bos.map(|bos| special(bos, side));
        before.into_iter().chain([text]).chain(eos.map(|eos| special(eos, side)))
    };
    let tokens = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, name)| (name.to_owned(), json!({ "id": name, "ids": [id], "tokens": [name] })));
    json!({
        "type": "TemplateProcessing",
        "single": sequence("A", 0).collect::<Vec<_>>(),
        "pair": sequence("A", 0).chain(sequence("B", 1)).collect::<Vec<_>>(),
        "special_tokens": tokens.collect::<Map<_, _>>(),
    })
}

fn decoder(tokenizer: &Tokenizer) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if tokenizer.settings().add_dummy_prefix {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

/// Every split of every piece into two, best-scored piece first; among those of one score by the ids of the piece, its
/// left and its right side. That is the order of the published file.
fn merges(vocab: &Vocab) -> Result<Vec<Value>, TokenizerError> {
    let mut merges = Vec::new();
    for ((left, right), Merge { rank, piece }) in crate::merge::rules_by_score(vocab) {
        let product = &vocab.pieces[piece as usize];
        if product.kind == PieceKind::Unused {
            continue;
        }
        let (Some(a), Some(b)) =
            (vocab.pieces.get(left as usize), vocab.pieces.get(right as usize))
        else {
            let reason = format!(
                "{:?} is made of a character that is no piece, which tokenizer.json cannot say",
                product.text
            );
            return Err(TokenizerError::BadPiece { id: piece, reason });
        };
        // A side with a space in it needs the newer spelling.
        let merge = match a.text.contains(' ') || b.text.contains(' ') {
            true => json!([a.text, b.text]),
            false => json!(format!("{} {}", a.text, b.text)),
        };
        merges.push(((rank, piece, left, right), merge));
    }
    merges.sort_unstable_by_key(|(order, _)| *order);
    Ok(merges.into_iter().map(|(_, merge)| merge).collect())
}
