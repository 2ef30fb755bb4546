//! Conversations of files as items to be packed.

use puna_data::Sha256;
use puna_data::chat::{ChatRecord, read_chat};
use puna_tokenizer::chat::{TrainingDialogue, render_training};

use super::config::{Learn, SftConfig, Unfit};
use crate::RecipeError;
use crate::tune::{Base, Item, LeftOut, Place, shuffled};

/// What was read, and what of it is used.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// For each file, its name, conversations in it and those taken.
    files: Vec<(String, usize, usize)>,
    /// Conversations left out, by what is wrong with them.
    left_out: LeftOut,
}

impl Counts {
    /// A line a fact.
    pub(super) fn lines(&self) -> Vec<String> {
        let file = |(name, n, taken): &(String, usize, usize)| {
            format!("data        {name}: {taken} of {n} conversations")
        };
        self.files.iter().map(file).chain(self.left_out.lines()).collect()
    }
}

/// Items to train on, and those held out.
pub(super) struct Conversations {
    pub items: Vec<Item>,
    pub held_out: Vec<Item>,
    pub counts: Counts,
    /// Of everything above.
    pub hash: Sha256,
}

/// Reads all files.
pub(super) fn read(
    config: &SftConfig,
    place: &Place<'_>,
    base: &Base,
    seq_len: usize,
) -> Result<Conversations, RecipeError> {
    let mut counts = Counts::default();
    let (mut items, mut held_out) = (Vec::new(), Vec::new());
    for (i, table) in config.data.iter().enumerate() {
        let path = place.path(&table.path);
        let name = path.display().to_string();
        let (mut records, problems) = read_chat(&path, None, config.unfit.into())?;
        counts.left_out.add_problems(&name, &problems);
        let n_found = records.len();
        if let Some(most) = table.at_most {
            choose(&mut records, most, config.seed, i as u64);
        }
        let mut n_taken = 0;
        for record in &records {
            let item = match item(record, table.learn, base, seq_len) {
                Ok(item) => item,
                Err(why) if config.unfit == Unfit::Skip => {
                    counts.left_out.add(&name, record.line, why.kind, &why.detail);
                    continue;
                }
                Err(why) => {
                    return Err(RecipeError::Check(format!(
                        "{name}: line {}: {}; `unfit = \"skip\"` leaves such conversations out",
                        record.line, why.detail
                    )));
                }
            };
            if !item.learned.contains(&true) {
                return Err(RecipeError::Check(format!(
                    "{name}: line {}: the conversation has no token to be learned",
                    record.line
                )));
            }
            n_taken += 1;
            match is_held_out(record, config.eval.fraction) {
                true => held_out.push(item),
                false => items.extend(std::iter::repeat_n(item, table.repeat)),
            }
        }
        counts.files.push((name, n_found, n_taken));
    }
    if items.is_empty() {
        return Err(RecipeError::Check(format!(
            "{}: no conversation is left to train on",
            place.file
        )));
    }
    let hash = hash([&items[..], &held_out[..]]);
    Ok(Conversations { items, held_out, counts, hash })
}

/// What is wrong with a conversation: in a word to count by, and for its own message.
struct Why {
    kind: &'static str,
    detail: String,
}

fn item(record: &ChatRecord, learn: Learn, base: &Base, seq_len: usize) -> Result<Item, Why> {
    let rendered = render_training(&base.tokenizer, &record.messages);
    let TrainingDialogue { ids, mut is_answer, turns } =
        rendered.map_err(|e| Why { kind: "not in the chat form", detail: e.to_string() })?;
    if ids.len() > seq_len {
        let detail = format!("expected at most {seq_len} tokens, found {}", ids.len());
        return Err(Why { kind: "longer than a row", detail });
    }
    if let (Learn::Last, Some(last)) = (learn, turns.last()) {
        is_answer[..last.start].fill(false);
    }
    Ok(Item::one(ids, is_answer))
}

/// Keeps `most` records, drawn without regard to their order.
fn choose(records: &mut Vec<ChatRecord>, most: usize, seed: u64, file: u64) {
    let mut order = shuffled(records.len(), seed, (1 << 32) + file);
    order.truncate(most);
    order.sort_unstable();
    let mut kept = order.into_iter().peekable();
    let mut index = 0;
    records.retain(|_| {
        index += 1;
        kept.next_if_eq(&(index - 1)).is_some()
    });
}

/// Whether the hash of what the user says first is among the lowest `fraction`: copies of a request share their side.
fn is_held_out(record: &ChatRecord, fraction: f64) -> bool {
    let first = record.messages.iter().find(|m| m.role == puna_tokenizer::chat::Role::User);
    let hash = Sha256::of(first.map_or("", |m| &m.content).as_bytes());
    let head = u32::from_le_bytes(hash.0[..4].try_into().expect("four bytes"));
    f64::from(head) < fraction * 2f64.powi(32)
}

fn hash(parts: [&[Item]; 2]) -> Sha256 {
    let mut bytes = Vec::new();
    for item in parts.into_iter().flatten() {
        bytes.extend((item.ids.len() as u64).to_le_bytes());
        for (id, &learned) in item.ids.iter().zip(&item.learned) {
            bytes.extend((id << 1 | u32::from(learned)).to_le_bytes());
        }
    }
    Sha256::of(&bytes)
}
