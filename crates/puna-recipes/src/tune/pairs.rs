//! Pairs of answers to one prompt, as reward models and DPO learn from them.

use std::path::PathBuf;

use puna_data::Sha256;
use puna_data::chat::{OnProblem, PreferenceRecord, RequiredLabels, SafetyLabel, read_preferences};
use puna_tokenizer::chat::{Message, Role, TrainingDialogue, render_training};
use serde::Deserialize;

use super::{Base, Item, LeftOut, Packed, Place, pack, shuffled};
use crate::RecipeError;

/// A file of pairs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairsTable {
    /// JSONL, also packed as `.zst` or `.gz`.
    pub path: PathBuf,
    /// Take no more than so many of its pairs, in an order drawn from the seed.
    pub at_most: Option<usize>,
    /// Take so many that they are this part of all pairs; files without a share are taken in full. So the paper's mixes
    /// are written: 0.5 for what is not of the helpfulness model's own kind, 0.1 for what is not of the safety model's.
    pub share: Option<f64>,
}

/// A pair as tokens, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Both conversations, the chosen one first; their last answers are learned.
    pub item: Item,
    pub strength: Option<u8>,
    pub safety: Option<SafetyLabel>,
}

/// Pairs to learn from, and those held out.
pub(crate) struct Pairs {
    pub train: Vec<Pair>,
    pub held_out: Vec<Pair>,
    /// What was read and left out, a line a fact.
    pub lines: Vec<String>,
    pub hash: Sha256,
}

/// Reads all files. Pairs whose prompt hashes into the lowest `fraction` are held out.
pub(crate) fn read_pairs(
    tables: &[PairsTable],
    place: &Place<'_>,
    base: &Base,
    seq_len: usize,
    on_problem: OnProblem,
    seed: u64,
    fraction: f64,
) -> Result<Pairs, RecipeError> {
    for share in tables.iter().filter_map(|table| table.share) {
        place.part("share", share)?;
    }
    let shares: f64 = tables.iter().filter_map(|table| table.share).sum();
    place.check("share", shares < 1.0, "shares of together less than 1", shares)?;
    let mut left_out = LeftOut::default();
    let mut files = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let path = place.path(&table.path);
        let name = path.display().to_string();
        let (records, problems) =
            read_preferences(&path, None, RequiredLabels::default(), on_problem)?;
        left_out.add_problems(&name, &problems);
        let mut pairs = Vec::new();
        for record in &records {
            match pair(record, base, seq_len) {
                Ok(pair) => pairs.push((is_held_out(record, fraction), pair)),
                Err(why) if on_problem == OnProblem::Skip => {
                    left_out.add(&name, record.line, why.kind, &why.detail);
                }
                Err(why) => {
                    let (line, detail) = (record.line, why.detail);
                    return Err(RecipeError::Check(format!(
                        "{name}: line {line}: {detail}; `unfit = \"skip\"` leaves such pairs out"
                    )));
                }
            }
        }
        let order = shuffled(pairs.len(), seed, (1 << 32) + i as u64);
        let mut pairs: Vec<_> = order.iter().map(|&i| pairs[i].clone()).collect();
        pairs.truncate(table.at_most.unwrap_or(usize::MAX));
        files.push((name, records.len(), table.share, pairs));
    }
    take_shares(&mut files);
    let mut lines = Vec::new();
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (name, n_found, _, pairs) in files {
        lines.push(format!("data        {name}: {} of {n_found} pairs", pairs.len()));
        for (is_held_out, pair) in pairs {
            if is_held_out { held_out.push(pair) } else { train.push(pair) }
        }
    }
    lines.extend(left_out.lines());
    if train.is_empty() {
        return Err(RecipeError::Check(format!("{}: no pair is left to train on", place.file)));
    }
    let hash = hash(train.iter().chain(&held_out));
    Ok(Pairs { train, held_out, lines, hash })
}

type File = (String, usize, Option<f64>, Vec<(bool, Pair)>);

/// Cuts files that have a share, so that they are that part of all: `n = share/(1 − Σ shares) · taken in full`.
fn take_shares(files: &mut [File]) {
    let in_full: usize =
        files.iter().filter(|file| file.2.is_none()).map(|file| file.3.len()).sum();
    let shares: f64 = files.iter().filter_map(|file| file.2).sum();
    for (_, _, share, pairs) in files {
        if let Some(share) = share {
            pairs.truncate((*share / (1.0 - shares) * in_full as f64).round() as usize);
        }
    }
}

struct Why {
    kind: &'static str,
    detail: String,
}

fn pair(record: &PreferenceRecord, base: &Base, seq_len: usize) -> Result<Pair, Why> {
    let mut item = Item::default();
    for answer in [&record.chosen, &record.rejected] {
        let mut messages = record.prompt.clone();
        messages.push(Message::new(Role::Assistant, answer.clone()));
        let TrainingDialogue { ids, turns, .. } = render_training(&base.tokenizer, &messages)
            .map_err(|e| Why { kind: "not in the chat form", detail: e.to_string() })?;
        let mut learned = vec![false; ids.len()];
        if let Some(last) = turns.last() {
            learned[last.clone()].fill(true);
        }
        item.push(&ids, &learned);
    }
    let context = base.config.max_seq_len;
    if let Some(longest) = item.sequences().map(|range| range.len()).max().filter(|&n| n > context)
    {
        let detail = format!(
            "expected an answer of at most {context} tokens with its prompt, found {longest}"
        );
        return Err(Why { kind: "longer than the context", detail });
    }
    if item.ids.len() > seq_len {
        let detail = format!(
            "expected a pair of together at most {seq_len} tokens, found {}",
            item.ids.len()
        );
        return Err(Why { kind: "longer than a row", detail });
    }
    let [chosen, rejected]: [_; 2] = {
        let parts: Vec<_> = item.sequences().map(|range| &item.ids[range]).collect();
        parts.try_into().expect("two answers")
    };
    if chosen == rejected {
        let detail = "expected two answers, found the same tokens twice".to_owned();
        return Err(Why { kind: "equal answers", detail });
    }
    Ok(Pair { item, strength: record.strength, safety: record.safety })
}

/// Whether the hash of the prompt is among the lowest `fraction`: pairs of one prompt share their side.
fn is_held_out(record: &PreferenceRecord, fraction: f64) -> bool {
    let text: String = record.prompt.iter().map(|m| format!("{}\n", m.content)).collect();
    let hash = Sha256::of(text.as_bytes());
    let head = u32::from_le_bytes(hash.0[..4].try_into().expect("four bytes"));
    f64::from(head) < fraction * 2f64.powi(32)
}

fn hash<'a>(pairs: impl Iterator<Item = &'a Pair>) -> Sha256 {
    let mut bytes = Vec::new();
    for Pair { item, strength, safety, .. } in pairs {
        bytes.extend(format!("{strength:?} {safety:?} {:?}", item.ends).into_bytes());
        item.ids.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
    }
    Sha256::of(&bytes)
}

/// The pairs of a step, and how they are packed.
pub(crate) struct PairBatch {
    /// Indices of pairs.
    pub pairs: Vec<usize>,
    /// Rows of places in `pairs`.
    pub packed: Packed,
}

/// The batches of an epoch, `n_pairs` each, in an order drawn from `seed`; the last may be smaller.
pub(crate) fn batches(
    pairs: &[Pair],
    n_pairs: usize,
    seq_len: usize,
    seed: u64,
    epoch: u64,
) -> Vec<PairBatch> {
    let order = shuffled(pairs.len(), seed, epoch);
    let batch = |part: &[usize]| {
        let lens: Vec<usize> = part.iter().map(|&i| pairs[i].item.ids.len()).collect();
        PairBatch { pairs: part.to_vec(), packed: pack(&lens, seq_len, seed, epoch) }
    };
    order.chunks(n_pairs).map(batch).collect()
}
