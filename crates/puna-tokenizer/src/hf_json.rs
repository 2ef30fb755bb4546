//! Hugging Face's `tokenizer.json` (BPE), and the names in the `tokenizer_config.json` beside it.
//!
//! Spaces become `▁` in one of two ways: a normaliser that prepends `▁` and replaces spaces, or the pre-tokeniser
//! `Metaspace`. Merges are ranked pair by pair, in the order of the list; for files converted from SentencePiece that
//! gives SentencePiece's ids. Special added tokens are control pieces here; the others are cut out of the text first.

use crate::hf_write::EXTRA_SPACES;
use crate::merge::{self, Merge, Rules};
use crate::tokenizer::{Parts, Prefix};
use crate::vocab::{Piece, PieceKind, Settings, Vocab, byte_value};
use crate::{TokenizerError, chat};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default, rename = "type")]
    model_type: Option<String>,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    // Other kinds of model keep other things here; `check_model` names the kind first.
    #[serde(default)]
    vocab: Value,
    #[serde(default)]
    merges: Vec<Line>,
}

/// One merge: "a b" in older files, ["a", "b"] in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Pair(String, String),
}

impl Line {
    fn sides(&self, index: usize) -> Result<(&str, &str), TokenizerError> {
        match self {
            Line::Pair(left, right) => Ok((left, right)),
            Line::Text(rule) => {
                let sides = rule.split_once(' ').filter(|(_, right)| !right.contains(' '));
                let reason = "expected two pieces with one space between them".to_owned();
                sides.ok_or_else(|| TokenizerError::BadMerge { index, rule: rule.clone(), reason })
            }
        }
    }
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

/// How a file says "spaces are `▁`".
#[derive(Clone, Copy, PartialEq)]
struct Spaces {
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    prefix: Prefix,
}

/// Reads both files.
pub(crate) fn read(
    tokenizer_json: &[u8],
    config_json: Option<&[u8]>,
) -> Result<Parts, TokenizerError> {
    let json_error = |source| TokenizerError::Json { file: "tokenizer.json", source };
    let file: File = serde_json::from_slice(tokenizer_json).map_err(json_error)?;
    let config = config_json.map_or(Ok(Value::Null), chat::parse_config)?;
    check_model(&file.model)?;
    let spaces = spaces(&file)?;
    let vocab = BTreeMap::<String, u32>::deserialize(&file.model.vocab).map_err(json_error)?;
    let (mut pieces, ids) = pieces(&file, vocab)?;
    let named = |key| special_id(&ids, &config, key);
    let settings = Settings {
        add_dummy_prefix: spaces.add_dummy_prefix,
        remove_extra_whitespaces: spaces.remove_extra_whitespaces,
        byte_fallback: file.model.byte_fallback,
        bos_id: named("bos_token")?.or(ids.get("<s>").copied()),
        eos_id: named("eos_token")?.or(ids.get("</s>").copied()),
        ..Settings::default()
    };
    let merges = file.model.merges.iter().enumerate().map(|(index, line)| line.sides(index));
    let merges = merges.collect::<Result<Vec<_>, _>>()?;
    score(&mut pieces, &ids, &merges);
    let vocab = Vocab::new(pieces, &settings)?;
    let rules = merge::rules_by_list(&vocab, merges.into_iter())?;
    let ranked_by_score = same_results(&rules, &merge::rules_by_score(&vocab));
    Ok(Parts {
        vocab,
        settings,
        prefix: spaces.prefix,
        rules,
        ranked_by_score,
        user_defined_apart: true,
    })
}

fn unsupported<T>(
    what: &'static str,
    expected: &'static str,
    found: &(impl ToString + ?Sized),
) -> Result<T, TokenizerError> {
    let found = found.to_string().chars().take(200).collect();
    Err(TokenizerError::Unsupported { what, expected, found })
}

fn check_model(model: &Model) -> Result<(), TokenizerError> {
    match model.model_type.as_deref() {
        None | Some("BPE") => {}
        Some(other) => return unsupported("tokenizer.json: model.type", "BPE", other),
    }
    if model.ignore_merges {
        return unsupported("tokenizer.json: model.ignore_merges", "false", "true");
    }
    if let Some(dropout) = model.dropout.filter(|&p| p != 0.0) {
        return unsupported("tokenizer.json: model.dropout", "none", &dropout);
    }
    for affix in [&model.continuing_subword_prefix, &model.end_of_word_suffix] {
        if let Some(affix) = affix.as_deref().filter(|a| !a.is_empty()) {
            return unsupported("tokenizer.json: model's subword prefix or suffix", "none", affix);
        }
    }
    Ok(())
}

/// The steps inside a (perhaps nested) `Sequence`.
fn flatten<'v>(value: &'v Value, list: &str, out: &mut Vec<&'v Value>) {
    match value.get(list).and_then(Value::as_array) {
        Some(steps) if value["type"] == "Sequence" => {
            steps.iter().for_each(|step| flatten(step, list, out));
        }
        _ if value.is_null() => {}
        _ => out.push(value),
    }
}

fn spaces(file: &File) -> Result<Spaces, TokenizerError> {
    let (mut steps, mut replaced, mut add_dummy_prefix) = (Vec::new(), false, false);
    flatten(&file.normalizer, "normalizers", &mut steps);
    let remove_extra_whitespaces = steps.len() > 1
        && EXTRA_SPACES.iter().zip(&steps).all(|(&(pattern, content), step)| {
            step["type"] == "Replace"
                && step["pattern"]["Regex"] == pattern
                && step["content"] == content
        });
    let n_read = if remove_extra_whitespaces { EXTRA_SPACES.len() } else { 0 };
    for step in steps.drain(n_read..) {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == "▁" => add_dummy_prefix = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == "▁" => {
                replaced = true;
            }
            _ => {
                return unsupported(
                    "tokenizer.json: normalizer",
                    "Prepend \"▁\", Replace \" \" by \"▁\"",
                    step,
                );
            }
        }
    }
    let mut steps = Vec::new();
    flatten(&file.pre_tokenizer, "pretokenizers", &mut steps);
    match (replaced, steps.as_slice()) {
        (true, []) => {
            Ok(Spaces { add_dummy_prefix, remove_extra_whitespaces, prefix: Prefix::BySettings })
        }
        (false, [step]) if !add_dummy_prefix => metaspace(step, remove_extra_whitespaces),
        _ => unsupported(
            "tokenizer.json: normalizer and pre_tokenizer",
            "one of them that makes spaces ▁",
            &format!("{} and {}", file.normalizer, file.pre_tokenizer),
        ),
    }
}

fn metaspace(step: &Value, remove_extra_whitespaces: bool) -> Result<Spaces, TokenizerError> {
    let known = step["type"] == "Metaspace" && step["replacement"] == "▁" && step["split"] == false;
    let scheme = step.get("prepend_scheme").map_or(Some("always"), Value::as_str);
    let prefix = match scheme {
        Some("never") if known => Prefix::BySettings,
        Some("always") if known => Prefix::Metaspace { first_only: false },
        Some("first") if known => Prefix::Metaspace { first_only: true },
        _ => {
            let expected = "Metaspace that replaces by ▁ and does not split";
            return unsupported("tokenizer.json: pre_tokenizer", expected, step);
        }
    };
    let add_dummy_prefix = prefix != Prefix::BySettings;
    Ok(Spaces { add_dummy_prefix, remove_extra_whitespaces, prefix })
}

/// The pieces in order of their ids, which must have no gap, and the ids by text. Scores are still 0.
fn pieces(
    file: &File,
    mut vocab: BTreeMap<String, u32>,
) -> Result<(Vec<Piece>, HashMap<String, u32>), TokenizerError> {
    let mut added = HashMap::new();
    for token in &file.added_tokens {
        check_added(token, !file.normalizer.is_null())?;
        let id = *vocab.entry(token.content.clone()).or_insert(token.id);
        if id != token.id {
            let reason = format!(
                "added token {:?} has id {}, the vocabulary says {id}",
                token.content, token.id
            );
            return Err(TokenizerError::BadVocabulary(reason));
        }
        added.insert(id, if token.special { PieceKind::Control } else { PieceKind::UserDefined });
    }
    let n = vocab.len();
    let mut slots: Vec<Option<Piece>> = vec![None; n];
    for (text, &id) in &vocab {
        let kind = match added.get(&id) {
            _ if file.model.unk_token.as_ref() == Some(text) => PieceKind::Unknown,
            Some(&kind) => kind,
            None if file.model.byte_fallback && byte_value(text).is_some() => PieceKind::Byte,
            None => PieceKind::Normal,
        };
        let piece = Piece { text: text.clone(), score: 0.0, kind };
        match slots.get_mut(id as usize) {
            Some(slot @ None) => *slot = Some(piece),
            Some(Some(other)) => {
                let reason = format!("pieces {text:?} and {:?} both have id {id}", other.text);
                return Err(TokenizerError::BadVocabulary(reason));
            }
            None => {
                let reason = format!("piece {text:?} has id {id}, but there are only {n} pieces");
                return Err(TokenizerError::BadVocabulary(reason));
            }
        }
    }
    // As many ids as slots, none twice, none beyond the end: every slot is filled.
    Ok((slots.into_iter().flatten().collect(), vocab.into_iter().collect()))
}

fn check_added(token: &AddedToken, has_normalizer: bool) -> Result<(), TokenizerError> {
    if token.special {
        return Ok(());
    }
    if token.lstrip || token.rstrip || token.single_word {
        let found = format!("one of them for {:?}", token.content);
        return unsupported(
            "tokenizer.json: added token",
            "no lstrip, rstrip, single_word",
            &found,
        );
    }
    if token.normalized && has_normalizer {
        let found = format!("\"normalized\": true for {:?}", token.content);
        return unsupported("tokenizer.json: added token", "matched in the text as it is", &found);
    }
    Ok(())
}

/// Gives pieces the scores that a `tokenizer.model` would: the earlier the first merge that makes a piece, the higher;
/// pieces that no merge makes come last.
fn score(pieces: &mut [Piece], ids: &HashMap<String, u32>, merges: &[(&str, &str)]) {
    let mut first = vec![usize::MAX; pieces.len()];
    for (index, (left, right)) in merges.iter().enumerate() {
        if let Some(&id) = ids.get(&[*left, *right].concat()) {
            first[id as usize] = first[id as usize].min(index);
        }
    }
    let mut order: Vec<usize> =
        (0..pieces.len()).filter(|&id| pieces[id].kind == PieceKind::Normal).collect();
    order.sort_by_key(|&id| first[id]);
    for (rank, id) in order.into_iter().enumerate() {
        pieces[id].score = -(rank as f32);
    }
}

/// Whether two rule sets join the same pairs, and piece after piece in the same order. (Within one piece the listed
/// order of its pairs can matter only where two of its occurrences overlap.)
fn same_results(listed: &Rules, by_score: &Rules) -> bool {
    let in_order = |rules: &Rules| {
        let mut merges: Vec<Merge> = rules.values().copied().collect();
        merges.sort_unstable_by_key(|m| (m.rank, m.piece));
        merges.into_iter().map(|m| m.piece).collect::<Vec<_>>()
    };
    listed.len() == by_score.len()
        && listed
            .iter()
            .all(|(pair, m)| by_score.get(pair).is_some_and(|other| other.piece == m.piece))
        && in_order(listed) == in_order(by_score)
}

/// The id of the token that a `tokenizer_config.json` names under `key`: a string, or an object with a `content`.
fn special_id(
    ids: &HashMap<String, u32>,
    config: &Value,
    key: &str,
) -> Result<Option<u32>, TokenizerError> {
    let value = &config[key];
    let Some(name) = value.as_str().or_else(|| value["content"].as_str()) else { return Ok(None) };
    let missing = || {
        let reason =
            format!("tokenizer_config.json: {key} is {name:?}, which tokenizer.json does not have");
        TokenizerError::BadVocabulary(reason)
    };
    ids.get(name).copied().map(Some).ok_or_else(missing)
}
