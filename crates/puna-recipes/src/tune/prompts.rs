//! Prompts that a model answers.

use std::path::PathBuf;

use puna_data::Sha256;
use puna_data::chat::{PromptRecord, read_prompts};
use puna_tokenizer::chat::{ChatTemplate, Message};
use serde::Deserialize;

use super::{Base, LeftOut, Place, shuffled};
use crate::RecipeError;
use crate::sft::Unfit;

/// A file of prompts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptsTable {
    /// JSONL, also packed as `.zst` or `.gz`.
    pub path: PathBuf,
    /// Take no more than so many, in an order drawn from the seed.
    pub at_most: Option<usize>,
    /// What to do with a prompt that cannot be used.
    #[serde(default)]
    pub unfit: Unfit,
}

/// A prompt as tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prompt {
    /// The ids after which the model answers.
    pub ids: Vec<u32>,
    pub messages: Vec<Message>,
    /// Whether it calls for safety; not, where its record does not say.
    pub is_safety: bool,
}

/// Prompts to train on, and those held out.
#[derive(Debug)]
pub(crate) struct Prompts {
    pub train: Vec<Prompt>,
    pub held_out: Vec<Prompt>,
    /// What was read, a line a file.
    pub lines: Vec<String>,
    pub hash: Sha256,
}

/// Reads all files; every prompt must leave room for `max_new_tokens` in the model's context. Prompts whose hash is among
/// the lowest `fraction` are held out.
pub(crate) fn read_prompt_files(
    tables: &[PromptsTable],
    place: &Place<'_>,
    base: &Base,
    max_new_tokens: usize,
    seed: u64,
    fraction: f64,
) -> Result<Prompts, RecipeError> {
    let most = base.config.max_seq_len.saturating_sub(max_new_tokens);
    let (mut train, mut held_out, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bytes, mut left_out) = (Vec::new(), LeftOut::default());
    for (i, table) in tables.iter().enumerate() {
        let path = place.path(&table.path);
        let name = path.display().to_string();
        let (records, problems) = read_prompts(&path, table.unfit.into())?;
        left_out.add_problems(&name, &problems);
        let mut order = shuffled(records.len(), seed, (1 << 32) + i as u64);
        order.truncate(table.at_most.unwrap_or(usize::MAX));
        let mut n_safety = 0;
        for index in order {
            let record = &records[index];
            let ids = match prompt_of(record, base, most, max_new_tokens) {
                Ok(ids) => ids,
                Err((kind, detail)) if table.unfit == Unfit::Skip => {
                    left_out.add(&name, record.line, kind, &detail);
                    continue;
                }
                Err((_, detail)) => {
                    return Err(RecipeError::Check(format!(
                        "{name}: line {}: {detail}; `unfit = \"skip\"` of `prompts` leaves such out",
                        record.line
                    )));
                }
            };
            let is_safety = record.is_safety.unwrap_or(false);
            n_safety += usize::from(is_safety);
            ids.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
            bytes.push(u8::from(is_safety));
            let head = Sha256::of(&bytes[bytes.len() - 1 - 4 * ids.len()..]).0;
            let head = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
            let is_held_out = f64::from(head) < fraction * 2f64.powi(32);
            let prompt = Prompt { ids, messages: record.messages.clone(), is_safety };
            if is_held_out { held_out.push(prompt) } else { train.push(prompt) }
        }
        lines.push(format!(
            "prompts     {name}: {} in the file; {n_safety} of those taken call for safety",
            records.len()
        ));
    }
    lines.extend(left_out.lines());
    if train.is_empty() {
        return Err(RecipeError::Check(format!("{}: no prompt is left to train on", place.file)));
    }
    Ok(Prompts { train, held_out, lines, hash: Sha256::of(&bytes) })
}

/// The ids of a prompt, or what is wrong with it: in a word, and for its own message.
fn prompt_of(
    record: &PromptRecord,
    base: &Base,
    most: usize,
    max_new_tokens: usize,
) -> Result<Vec<u32>, (&'static str, String)> {
    let ids = ChatTemplate::Llama2.render(&base.tokenizer, &record.messages);
    let ids = ids.map_err(|e| ("not in the chat form", e.to_string()))?;
    if ids.len() > most {
        let detail = format!(
            "expected a prompt of at most {most} tokens, so that {max_new_tokens} more fit into the context, found {}",
            ids.len()
        );
        return Err(("too long to be answered", detail));
    }
    Ok(ids)
}
