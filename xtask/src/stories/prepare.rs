//! The data of the chat model: dialogues to learn from, prompts to sample with, held-out prompts to be judged by.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use puna_tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::corpus::{Stories, tokenizer, unpacked};
use super::judge_a::JudgeA;
use super::read_off::ReadOff;
use super::request::{Expected, Kind, Random, Request};
use super::requests::{Prompt, Side, Tables};
use super::vary::{Editor, Varied};

/// Decides all choices.
const SEED: u64 = 7;

/// Most tokens of a dialogue.
const MAX_TOKENS: usize = 400;

/// Tokens of all edited stories, and how often a story is tried for each that is to come of it.
const STORY_TOKENS: usize = 6_000_000;
const TRIES: usize = 60;

/// Dialogues of each other kind.
const N_REDIRECTS: usize = 2_500;
const N_DECLINES: usize = 3_000;
const N_SMALL_TALK: usize = 1_500;
const N_QUESTIONS: usize = 300;
const N_TWO_TURNS: usize = 600;

/// Dialogues that ask to repeat words, and how many of them stand among the others, too.
const N_COPIES: usize = 6_000;
const N_COPIES_AMONG: usize = 1_500;

/// Prompts for sampling: of each kind, how many.
const PROMPTS: [(Kind, usize); 11] = [
    (Kind::Topic, 600),
    (Kind::Name, 400),
    (Kind::Words, 700),
    (Kind::Opening, 400),
    (Kind::Ending, 300),
    (Kind::Combined, 500),
    (Kind::Short, 200),
    (Kind::Borderline, 150),
    (Kind::OffTopic, 300),
    (Kind::Unsafe, 350),
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

/// What is asked for, and the answer to learn.
#[derive(Clone)]
struct Dialogue {
    source: &'static str,
    messages: Vec<String>,
}

impl Dialogue {
    fn new<const N: usize>(source: &'static str, messages: [&str; N]) -> Self {
        Self { source, messages: messages.map(str::to_owned).to_vec() }
    }

    /// In Llama 2's form, BOS and EOS with them.
    fn n_tokens(&self, tokenizer: &Tokenizer) -> usize {
        let turns = self.messages.chunks(2).map(|turn| {
            let answer = turn.get(1).map(String::as_str).unwrap_or_default();
            tokenizer.encode(&format!("[INST] {} [/INST] {answer} ", turn[0])).len() + 2
        });
        turns.sum()
    }

    fn record(&self) -> Value {
        let roles = ["user", "assistant"].into_iter().cycle();
        let messages = self.messages.iter().zip(roles);
        let messages: Vec<_> =
            messages.map(|(content, role)| json!({ "role": role, "content": content })).collect();
        json!({ "messages": messages, "source": self.source })
    }
}

/// Writes `copy.jsonl`, `sft.jsonl`, `prompts.jsonl`, `held-out.jsonl` and `human.jsonl`.
pub(super) fn prepare(texts: &Path, chat: &Path, out: &Path) -> Result<()> {
    let (tokenizer, tables) = (tokenizer()?, Tables::new());
    let stories = Stories::read(texts, &tokenizer)?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let maker =
        Maker { tokenizer: &tokenizer, tables: &tables, stories: &stories, judge: JudgeA::new() };
    let copies = maker.copies();
    let dialogues = maker.dialogues(chat, &copies)?;
    let held_out = held_out(&tables);
    let asked: HashSet<String> = held_out.iter().map(|prompt| folded(&prompt.text)).collect();
    let dialogues: Vec<_> = dialogues
        .into_iter()
        .filter(|d| d.messages.iter().all(|text| !asked.contains(&folded(text))))
        .collect();
    summarize(&dialogues, &tokenizer);
    write(out, "copy.jsonl", copies.iter().map(Dialogue::record))?;
    write(out, "sft.jsonl", dialogues.iter().map(Dialogue::record))?;
    write(out, "prompts.jsonl", prompts(&tables, &asked).iter().map(prompt_record))?;
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
fn prompt(tables: &Tables, random: &mut Random, kind: Kind, i: usize, side: Side) -> Prompt {
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
fn distinct(
    tables: &Tables,
    seed: u64,
    kinds: &[(Kind, usize)],
    without: &HashSet<String>,
    side: impl Fn(usize) -> Side,
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
            let of_lists = side(made);
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

pub(super) fn prompts(tables: &Tables, held_out: &HashSet<String>) -> Vec<Prompt> {
    let mut prompts = distinct(tables, SEED + 1, &PROMPTS, held_out, |_| Side::TRAIN);
    Random::new(SEED + 2).shuffle(&mut prompts);
    prompts
}

/// Held-out prompts: phrasings of their own, and every second with topics, names and words of their own, too.
pub(super) fn held_out(tables: &Tables) -> Vec<Prompt> {
    let side = |i: usize| Side { phrasing: true, lists: i.is_multiple_of(2) };
    distinct(tables, SEED + 3, &HELD_OUT, &HashSet::new(), side)
}

struct Maker<'a> {
    tokenizer: &'a Tokenizer,
    tables: &'a Tables,
    stories: &'a Stories,
    judge: JudgeA,
}

impl Maker<'_> {
    fn dialogues(&self, chat: &Path, copies: &[Dialogue]) -> Result<Vec<Dialogue>> {
        let mut random = Random::new(SEED);
        let asked = self.asked(&mut random);
        let mut dialogues = self.two_turns(&mut random, &asked);
        dialogues.extend(asked.into_iter().map(|(_, dialogue)| dialogue));
        dialogues.extend(self.edited(&mut random));
        dialogues.extend(self.replies(&mut random));
        dialogues.extend(self.small_talk(&mut random, chat)?);
        dialogues.extend(self.questions(&mut random, chat)?);
        dialogues.extend(copies.iter().take(N_COPIES_AMONG).cloned());
        dialogues.retain(|dialogue| dialogue.n_tokens(self.tokenizer) <= MAX_TOKENS);
        random.shuffle(&mut dialogues);
        Ok(dialogues)
    }

    /// Words and sentences to be repeated. A network of this size learns from them, in a minute, to look up what it was told;
    /// from requests for stories it does not in an hour.
    fn copies(&self) -> Vec<Dialogue> {
        let mut random = Random::new(SEED + 4);
        let held_out: HashSet<_> = self.tables.held_out_words();
        let stories: Vec<&str> =
            self.stories.train.iter().flat_map(|story| story.lines()).collect();
        let words: BTreeSet<&str> = stories
            .iter()
            .flat_map(|line| line.split(|c: char| !c.is_alphabetic()))
            .filter(|word| !word.is_empty() && !held_out.contains(word.to_lowercase().as_str()))
            .collect();
        let words: Vec<&str> = words.into_iter().collect();
        let sentences: Vec<&str> = stories
            .iter()
            .flat_map(|line| line.split_inclusive(['.', '!', '?']))
            .map(str::trim)
            .filter(|text| (20..100).contains(&text.len()) && !text.contains('"'))
            .collect();
        let copy = |_| {
            let text = if random.percent(70) {
                let n = 5 + random.below(36);
                (0..n).map(|_| random.pick(&words)).collect::<Vec<_>>().join(" ")
            } else {
                let n = 1 + random.below(3);
                (0..n).map(|_| random.pick(&sentences)).collect::<Vec<_>>().join(" ")
            };
            let ask = random.pick(&["Say after me: ", "Repeat this: ", "Please repeat: ", "Say: "]);
            Dialogue::new("copy", [&format!("{ask}{text}"), &text])
        };
        (0..N_COPIES).map(copy).collect()
    }

    /// Stories edited for requests, one of each in turn, again and again.
    fn edited(&self, random: &mut Random) -> Vec<Dialogue> {
        let editor = Editor::new(self.tables, &self.stories.train);
        let (mut dialogues, mut tokens) = (Vec::new(), 0);
        let mut order: Vec<&String> = self.stories.train.iter().collect();
        for _ in 0..TRIES {
            random.shuffle(&mut order);
            for original in &order {
                let Some(Varied { request, thing, story }) = editor.vary(random, original) else {
                    continue;
                };
                let text = self.tables.phrase(random, &request, thing, false);
                if !self.judge.judge(&request, &text, &story, true).met() {
                    continue;
                }
                let dialogue = Dialogue::new("edited", [&text, &story]);
                let n = dialogue.n_tokens(self.tokenizer);
                if n <= MAX_TOKENS {
                    tokens += n;
                    dialogues.push(dialogue);
                }
                if tokens > STORY_TOKENS {
                    return dialogues;
                }
            }
        }
        dialogues
    }

    /// Stories as they are, each with a request read off it.
    fn asked(&self, random: &mut Random) -> Vec<(Request, Dialogue)> {
        let read_off = ReadOff::new(self.tables, &self.stories.train);
        let mut asked = Vec::new();
        let mut order: Vec<&String> = self.stories.train.iter().collect();
        random.shuffle(&mut order);
        for story in order {
            let mut requests = read_off.requests(story);
            random.shuffle(&mut requests);
            // What few stories fit comes first.
            requests.sort_by_key(|request| !matches!(request.kind, Kind::Short | Kind::Borderline));
            for request in requests {
                let text = self.tables.phrase(random, &request, None, false);
                if !self.judge.judge(&request, &text, story, true).met() {
                    continue;
                }
                let dialogue = Dialogue::new("story", [&text, story]);
                if dialogue.n_tokens(self.tokenizer) <= MAX_TOKENS {
                    asked.push((request, dialogue));
                    break;
                }
            }
        }
        asked
    }

    /// Redirects and declines.
    fn replies(&self, random: &mut Random) -> Vec<Dialogue> {
        let mut dialogues = Vec::new();
        for _ in 0..N_REDIRECTS {
            let prompt = self.tables.off_topic(random, Side::TRAIN);
            dialogues.push(Dialogue::new(
                "redirect",
                [&prompt.text, &self.tables.reply(random, "redirect")],
            ));
        }
        for i in 0..N_DECLINES {
            let prompt = prompt(self.tables, random, Kind::Unsafe, i, Side::TRAIN);
            let section = match prompt.request.form.as_deref() {
                Some("advice") => "decline_advice",
                Some("self") => "decline_self",
                _ => "decline",
            };
            dialogues.push(Dialogue::new(
                "decline",
                [&prompt.text, &self.tables.reply(random, section)],
            ));
        }
        let mut seen = HashSet::new();
        dialogues.retain(|dialogue| seen.insert(dialogue.messages.clone()));
        dialogues
    }

    /// Small talk of the table, and phrasings of the same out of `ms_chitchat` with the table's answers.
    fn small_talk(&self, random: &mut Random, chat: &Path) -> Result<Vec<Dialogue>> {
        let mut dialogues = Vec::new();
        let answer = |random: &mut Random, section: &str| {
            let lines = &self.tables.small_talk[section].train;
            let answers: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("> ")).collect();
            random.pick(&answers)
        };
        for (section, entries) in &self.tables.small_talk {
            for line in entries.train.iter().filter(|line| !line.starts_with("> ")) {
                for _ in 0..3 {
                    dialogues.push(Dialogue::new("small_talk", [line, answer(random, section)]));
                }
            }
        }
        let mut more = Vec::new();
        for record in records(&chat.join("sft/ms_chitchat.jsonl.zst"))? {
            let (user, reply) = turn(&record, 0)?;
            let section = CHITCHAT
                .iter()
                .find(|(replies, _)| replies.contains(&reply))
                .map(|(_, section)| *section);
            let is_plain = user.is_ascii()
                && user.len() <= 60
                && !CRUDE.iter().any(|word| user.to_lowercase().contains(word));
            if let Some(section) = section.filter(|_| is_plain) {
                more.push(Dialogue::new("ms_chitchat", [user, answer(random, section)]));
            }
        }
        random.shuffle(&mut more);
        more.truncate(N_SMALL_TALK.saturating_sub(dialogues.len()));
        dialogues.extend(more);
        Ok(dialogues)
    }

    /// Questions on a short passage of a fairy tale that is not held out.
    fn questions(&self, random: &mut Random, chat: &Path) -> Result<Vec<Dialogue>> {
        let mut dialogues = Vec::new();
        for record in records(&chat.join("sft/fairytaleqa.jsonl.zst"))? {
            let (user, answer) = turn(&record, 0)?;
            let fits = user.is_ascii()
                && (3..=20).contains(&answer.split(' ').count())
                && user.len() < 1_000;
            if fits && !self.stories.is_held_out(user) {
                dialogues.push(Dialogue::new("fairytaleqa", [user, answer]));
            }
        }
        random.shuffle(&mut dialogues);
        dialogues.truncate(N_QUESTIONS);
        Ok(dialogues)
    }

    /// A story between small talk, after a redirect or a decline; and one story after another, where both are short.
    fn two_turns(&self, random: &mut Random, asked: &[(Request, Dialogue)]) -> Vec<Dialogue> {
        let mut dialogues = Vec::new();
        let short = |max: usize| {
            asked
                .iter()
                .map(|(_, dialogue)| dialogue)
                .filter(move |d| d.n_tokens(self.tokenizer) <= max)
                .collect::<Vec<_>>()
        };
        let (one, two) = (short(MAX_TOKENS - 70), short(MAX_TOKENS / 2));
        for i in 0..N_TWO_TURNS {
            let story = random.pick(&one);
            let [ask, tell] = [&story.messages[0], &story.messages[1]];
            let (before, reply) = match i % 6 {
                0 | 1 => {
                    let lines =
                        &self.tables.small_talk[if i % 6 == 0 { "thanks" } else { "praise" }].train;
                    let (answers, users): (Vec<&str>, Vec<&str>) =
                        lines.iter().partition(|line| line.starts_with("> "));
                    let (user, answer) = (random.pick(&users), &random.pick(&answers)[2..]);
                    dialogues.push(Dialogue::new("two_turns", [ask, tell, user, answer]));
                    continue;
                }
                2 => {
                    let (first, second) = (random.pick(&two), random.pick(&two));
                    let [a, b] = [&first.messages, &second.messages];
                    if a[1] != b[1] {
                        dialogues.push(Dialogue::new("two_turns", [&a[0], &a[1], &b[0], &b[1]]));
                    }
                    continue;
                }
                3 => {
                    let entries = &self.tables.small_talk["hello"].train;
                    let (answers, users): (Vec<&str>, Vec<&str>) =
                        entries.iter().partition(|line| line.starts_with("> "));
                    dialogues.push(Dialogue::new(
                        "two_turns",
                        [random.pick(&users), &random.pick(&answers)[2..], ask, tell],
                    ));
                    continue;
                }
                4 => (self.tables.off_topic(random, Side::TRAIN), "redirect"),
                _ => (self.tables.unwanted(random, "plain", Side::TRAIN), "decline"),
            };
            dialogues.push(Dialogue::new(
                "two_turns",
                [&before.text, &self.tables.reply(random, reply), ask, tell],
            ));
        }
        dialogues
    }
}

/// Replies of `ms_chitchat`, and the section of our small talk that their questions are of.
const CHITCHAT: &[(&[&str], &str)] = &[
    (&["Hello.", "Hi.", "Good morning.", "Good evening."], "hello"),
    (&["Good, thanks.", "Great, thanks.", "Just standing by, ready to help."], "how"),
    (&["I'm here to answer your questions and help out.", "I don't have a name."], "who"),
    (&["I'm digital. In other words, I'm not human."], "human"),
    (&["You're welcome."], "thanks"),
    (&["Goodbye."], "bye"),
    (&["Good night.", "I hope you're able to get some rest soon."], "night"),
    (&["I'm very sorry to hear that.", "Sorry to hear that."], "mood"),
    (&["I'm happy to hear that."], "joy"),
];

/// Parts of words that we leave out.
const CRUDE: &[&str] = &[
    "suck", "crap", "ass ", "damn", "hell ", "sex", "shit", "fuck", "bitch", "die", "kill", "gay",
    "bot", "piss",
];

fn records(path: &Path) -> Result<Vec<Value>> {
    let text = unpacked(path)?;
    let parse = |(i, line)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}:{}: expected JSON", path.display(), i + 1))
    };
    text.lines().enumerate().map(parse).collect()
}

/// The texts of a user's message and of its answer.
fn turn(record: &Value, i: usize) -> Result<(&str, &str)> {
    let content = |i: usize| record["messages"][i]["content"].as_str();
    let both = content(i).zip(content(i + 1));
    both.with_context(|| format!("expected two messages with content, found {record}"))
}
