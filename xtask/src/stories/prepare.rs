//! The data of the chat model: dialogues to learn from, prompts to sample with, held-out prompts to be judged by.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use puna_tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::corpus::{Stories, tokenizer};
use super::dialogues::{Dialogue, Maker, SEED};
use super::pairs::sentence_pairs;
use super::questions::{Questions, asked};
use super::request::{Expected, Kind, Random};
use super::requests::{Prompt, Side, Tables};

/// Prompts for sampling: of each kind, how many.
const PROMPTS: [(Kind, usize); 11] = [
    (Kind::Topic, 1_000),
    (Kind::Name, 800),
    (Kind::Words, 900),
    (Kind::Opening, 500),
    (Kind::Ending, 500),
    (Kind::Combined, 800),
    (Kind::Short, 200),
    (Kind::Borderline, 300),
    (Kind::OffTopic, 500),
    (Kind::Unsafe, 700),
    (Kind::SmallTalk, 50),
];

/// Held-out prompts of each kind.
const HELD_OUT: [(Kind, usize); 11] = [
    (Kind::Topic, 80),
    (Kind::Name, 60),
    (Kind::Words, 80),
    (Kind::Opening, 60),
    (Kind::Ending, 40),
    (Kind::Combined, 60),
    (Kind::Short, 20),
    (Kind::Borderline, 100),
    (Kind::OffTopic, 100),
    (Kind::Unsafe, 100),
    (Kind::SmallTalk, 50),
];

/// Sources of all that is no story, which a next version of a chat model learns most from.
const REPLIES: [&str; 6] =
    ["question", "redirect", "decline", "small_talk", "ms_chitchat", "persona"];

/// Writes `copy.jsonl`, `sentences.jsonl`, `sft.jsonl`, `replies.jsonl` (a part of it), `turns.jsonl`, `prompts.jsonl`, `held-out.jsonl` and `human.jsonl`.
pub(super) fn prepare(texts: &Path, chat: &Path, out: &Path) -> Result<()> {
    let (tokenizer, tables) = (tokenizer()?, Tables::new());
    let stories = Stories::read(texts, &tokenizer)?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let questions = Questions::read(chat)?;
    let maker = Maker::new(&tokenizer, &tables, &stories, &questions.train);
    let copies = maker.copies();
    let dialogues = maker.dialogues(chat, &copies)?;
    let mut held_out = held_out(&tables);
    held_out.extend(questions.held_out.iter().map(|text| asked(text, true)));
    let held_out_texts: HashSet<String> =
        held_out.iter().map(|prompt| folded(&prompt.text)).collect();
    let dialogues: Vec<_> = dialogues
        .into_iter()
        .filter(|d| d.messages.iter().all(|text| !held_out_texts.contains(&folded(text))))
        .collect();
    summarize(&dialogues, &tokenizer);
    write(out, "copy.jsonl", copies.iter().map(Dialogue::record))?;
    write(out, "sft.jsonl", dialogues.iter().map(Dialogue::record))?;
    let replies = dialogues.iter().filter(|d| REPLIES.contains(&d.source));
    write(out, "replies.jsonl", replies.map(Dialogue::record))?;
    write(out, "sentences.jsonl", sentence_pairs(&copies).into_iter())?;
    write(out, "turns.jsonl", maker.turns(&dialogues).iter().map(Dialogue::record))?;
    let mut prompts = prompts(&tables, &held_out_texts);
    prompts.extend(questions.prompts.iter().map(|text| asked(text, false)));
    Random::new(SEED + 2).shuffle(&mut prompts);
    write(out, "prompts.jsonl", prompts.iter().map(prompt_record))?;
    write(out, "held-out.jsonl", held_out.iter().map(prompt_record))?;
    let human = |side: &'static str| move |text: &String| json!({ "side": side, "text": text });
    let sides = stories
        .train
        .iter()
        .map(human("train"))
        .chain(stories.held_out.iter().map(human("held_out")));
    write(out, "human.jsonl", sides)
}

fn write(folder: &Path, name: &str, records: impl Iterator<Item = Value>) -> Result<()> {
    let (mut text, mut n) = (String::new(), 0);
    for record in records {
        text += &format!("{record}\n");
        n += 1;
    }
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("{}: {n} records", path.display());
    Ok(())
}

fn summarize(dialogues: &[Dialogue], tokenizer: &Tokenizer) {
    let mut sources: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for dialogue in dialogues {
        let n = dialogue.n_tokens(tokenizer);
        for source in [dialogue.source, "all"] {
            let sum = sources.entry(source).or_default();
            *sum = (sum.0 + 1, sum.1 + n, sum.2.max(n));
        }
    }
    for (source, (n, tokens, longest)) in sources {
        eprintln!("{source:16} {n:5} dialogues, {tokens:7} tokens, the longest of {longest}");
    }
}

/// Small letters and no punctuation: two prompts that differ in less are one.
fn folded(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

pub(super) fn prompt_record(prompt: &Prompt) -> Value {
    let safety = prompt.request.kind == Kind::Unsafe;
    json!({
        "prompt": [{ "role": "user", "content": prompt.text }],
        "safety": safety,
        "is_safety": safety,
        "request": prompt.request,
    })
}

/// One of a kind. Of unsafe ones, `i` decides on the form.
pub(super) fn prompt(
    tables: &Tables,
    random: &mut Random,
    kind: Kind,
    i: usize,
    side: Side,
) -> Prompt {
    match kind.expected() {
        Expected::Story => tables.story(random, kind, side),
        Expected::Redirect => tables.off_topic(random, side),
        Expected::SmallTalk => tables.greeting(random, side.phrasing),
        // Half of them as stories; of the rest some on what an expert should say, on oneself, on what is for adults.
        Expected::Decline => {
            let form = match i % 20 {
                1 | 5 => "advice",
                3 => "self",
                7 => "adult",
                i if i.is_multiple_of(2) => "story",
                _ => "plain",
            };
            tables.unwanted(random, form, side)
        }
    }
}

/// Different prompts of one side, none of `without`.
fn distinct<'a>(
    seed: u64,
    kinds: &[(Kind, usize)],
    without: &HashSet<String>,
    from: impl Fn(usize) -> (&'a Tables, Side),
) -> Vec<Prompt> {
    let mut random = Random::new(seed);
    let mut seen = without.clone();
    let mut prompts = Vec::new();
    for &(kind, n) in kinds {
        let mut made = 0;
        // A list that is short gives fewer.
        for i in 0..n * 40 {
            if made == n {
                break;
            }
            // Of what has no lists, all is held out.
            let (tables, of_lists) = from(made);
            let side = match kind {
                Kind::Borderline | Kind::OffTopic | Kind::Unsafe | Kind::SmallTalk => {
                    Side { phrasing: of_lists.phrasing, lists: of_lists.phrasing }
                }
                _ => of_lists,
            };
            // A form whose list is spent makes room for the others.
            let prompt = prompt(tables, &mut random, kind, if i < 2 * n { made } else { i }, side);
            if seen.insert(folded(&prompt.text)) {
                prompts.push(prompt);
                made += 1;
            }
        }
    }
    prompts
}

/// Prompts to sample with: two of three ask for what fine-tuning does not ask for, where reward models see answers go wrong.
pub(super) fn prompts(tables: &Tables, held_out: &HashSet<String>) -> Vec<Prompt> {
    let rounds = Tables::of_rounds();
    let from = |i: usize| (if i.is_multiple_of(3) { tables } else { &rounds }, Side::TRAIN);
    distinct(SEED + 1, &PROMPTS, held_out, from)
}

/// Held-out prompts: phrasings of their own, and every second with topics, names and words of their own, too.
pub(super) fn held_out(tables: &Tables) -> Vec<Prompt> {
    let from = |i: usize| (tables, Side { phrasing: true, lists: i.is_multiple_of(2) });
    distinct(SEED + 3, &HELD_OUT, &HashSet::new(), from)
}
