//! Dialogues that the chat model learns from.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use puna_tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::corpus::{Stories, unpacked};
use super::judge_a::JudgeA;
use super::prepare::prompt;
use super::request::{Kind, Random};
use super::requests::{Side, Tables, split_name};
use super::tell::{Teller, Told};

/// Decides all choices of dialogues.
pub(super) const SEED: u64 = 7;

/// Most tokens of a dialogue.
const MAX_TOKENS: usize = 400;

/// Tokens of all stories told by rule.
const TOLD_TOKENS: usize = 4_400_000;

/// Of a hundred of them so many answer a request for any story.
const ANY: usize = 3;

/// Dialogues of each other kind.
const N_REDIRECTS: usize = 3_000;
const N_DECLINES: usize = 12_000;
const N_SMALL_TALK: usize = 2_000;
const N_QUESTIONS: usize = 300;
const N_TWO_TURNS: usize = 600;
const N_PERSONAS: usize = 2_000;

/// Dialogues of many turns, and how many tokens they may have.
const N_TURNS: usize = 2_500;
const CONTEXT: usize = 500;

/// In a hundred dialogues so many have a system prompt, and the tokens of its marks.
const SYSTEMS: usize = 8;
const SYSTEM_TOKENS: usize = 40;

/// Dialogues that ask to repeat words, and how many of them stand among the others, too.
const N_COPIES: usize = 11_000;
const N_SENTENCES: usize = 12_000;
const N_COPIES_AMONG: usize = 5_000;

/// What is asked for, and the answer to learn.
#[derive(Clone)]
pub(super) struct Dialogue {
    pub(super) source: &'static str,
    pub(super) messages: Vec<String>,
    system: Option<&'static str>,
}

impl Dialogue {
    pub(super) fn new<const N: usize>(source: &'static str, messages: [&str; N]) -> Self {
        Self { source, messages: messages.map(str::to_owned).to_vec(), system: None }
    }

    /// In Llama 2's form, BOS and EOS with them.
    pub(super) fn n_tokens(&self, tokenizer: &Tokenizer) -> usize {
        let turns = self.messages.chunks(2).map(|turn| {
            let answer = turn.get(1).map(String::as_str).unwrap_or_default();
            tokenizer.encode(&format!("[INST] {} [/INST] {answer} ", turn[0])).len() + 2
        });
        let system = self.system.map_or(0, |system| tokenizer.encode(system).len() + SYSTEM_TOKENS);
        turns.sum::<usize>() + system
    }

    pub(super) fn record(&self) -> Value {
        let roles = ["user", "assistant"].into_iter().cycle();
        let messages = self.messages.iter().zip(roles);
        let system =
            self.system.iter().map(|content| json!({ "role": "system", "content": content }));
        let messages: Vec<_> = system
            .chain(messages.map(|(content, role)| json!({ "role": role, "content": content })))
            .collect();
        json!({ "messages": messages, "source": self.source })
    }
}

/// Makes dialogues.
pub(super) struct Maker<'a> {
    tokenizer: &'a Tokenizer,
    tables: &'a Tables,
    stories: &'a Stories,
    questions: &'a [String],
    judge: JudgeA,
}

impl<'a> Maker<'a> {
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        tables: &'a Tables,
        stories: &'a Stories,
        questions: &'a [String],
    ) -> Self {
        Self { tokenizer, tables, stories, questions, judge: JudgeA::new() }
    }

    /// All of them, in the order of learning; `copies` are those that ask to repeat words.
    pub(super) fn dialogues(&self, chat: &Path, copies: &[Dialogue]) -> Result<Vec<Dialogue>> {
        let mut random = Random::new(SEED);
        let told = self.told(&mut random);
        let mut dialogues = self.two_turns(&mut random, &told);
        dialogues.extend(told);
        dialogues.extend(self.replies(&mut random));
        dialogues.extend(self.small_talk(&mut random, chat)?);
        dialogues.extend(self.personas(&mut random));
        dialogues.extend(self.questions(&mut random, chat)?);
        dialogues.extend(copies.iter().take(N_COPIES_AMONG).cloned());
        dialogues.retain(|dialogue| dialogue.n_tokens(self.tokenizer) <= MAX_TOKENS);
        random.shuffle(&mut dialogues);
        for dialogue in &mut dialogues {
            dialogue.system = random.percent(SYSTEMS).then(|| random.pick(self.tables.systems()));
        }
        Ok(dialogues)
    }

    /// Dialogues of several turns, as long as the context allows: what was said before a request does not change its answer.
    pub(super) fn turns(&self, dialogues: &[Dialogue]) -> Vec<Dialogue> {
        let mut random = Random::new(SEED + 5);
        let of = |sources: &[&str]| {
            let fits = |d: &&Dialogue| sources.contains(&d.source) && d.messages.len() == 2;
            dialogues.iter().filter(fits).collect::<Vec<_>>()
        };
        let (told, other) =
            (of(&["told"]), of(&["small_talk", "ms_chitchat", "redirect", "question", "decline"]));
        let turns = |_| {
            let mut messages = Vec::new();
            loop {
                let of = if random.percent(65) { &told } else { &other };
                let turn = random.pick(of);
                let longer = [messages.as_slice(), &turn.messages].concat();
                let longer = Dialogue { source: "turns", messages: longer, system: None };
                if longer.n_tokens(self.tokenizer) > CONTEXT {
                    return Dialogue { messages, ..longer };
                }
                messages = longer.messages;
            }
        };
        (0..N_TURNS).map(turns).collect()
    }

    /// Words and sentences to be repeated, and words to make sentences of. A network of this size learns from them, in
    /// minutes, to look up what it was told; from requests for stories it does not in an hour. Each word has to be repeated
    /// for that, those that no request names, too: what a word looks like when it is copied is learned word by word.
    pub(super) fn copies(&self) -> Vec<Dialogue> {
        let mut random = Random::new(SEED + 4);
        let stories: Vec<&str> =
            self.stories.train.iter().flat_map(|story| story.lines()).collect();
        let words: BTreeSet<&str> = stories
            .iter()
            .flat_map(|line| line.split(|c: char| !c.is_alphabetic()))
            .filter(|word| !word.is_empty())
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
        let mut copies: Vec<_> = (0..N_COPIES).map(copy).collect();
        let teller = Teller::new(self.tables, self.stories);
        while copies.len() < N_COPIES + N_SENTENCES {
            let n = 1 + random.below(6);
            let Some((words, told)) = teller.sentences(&mut random, n) else { continue };
            let (ask, list) = match words.as_slice() {
                [word] => ("Make a sentence with the word ", word.clone()),
                [first @ .., last] => (
                    "Make a sentence for each of the words ",
                    format!("{} and {last}", first.join(", ")),
                ),
                [] => continue,
            };
            copies.push(Dialogue::new("sentences", [&format!("{ask}{list}."), &told]));
        }
        random.shuffle(&mut copies);
        copies
    }

    /// Stories told by rule.
    fn told(&self, random: &mut Random) -> Vec<Dialogue> {
        let teller = Teller::new(self.tables, self.stories);
        let (mut dialogues, mut tokens) = (Vec::new(), 0);
        while tokens < TOLD_TOKENS {
            let Some(Told { request, thing, story }) = teller.tell(random) else { continue };
            let text = self.tables.phrase(random, &request, thing.as_deref(), false);
            if !self.judge.judge(&request, &text, &story, true).met() {
                continue;
            }
            let text = if random.percent(ANY) { self.tables.any(random) } else { text };
            let dialogue = Dialogue::new("told", [&text, &story]);
            let n = dialogue.n_tokens(self.tokenizer);
            if n <= MAX_TOKENS {
                tokens += n;
                dialogues.push(dialogue);
            }
        }
        dialogues
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
        for question in self.questions {
            let reply = self.tables.reply(random, "redirect");
            dialogues.push(Dialogue::new("question", [question, &reply]));
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
                for _ in 0..5 {
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

    /// Who to be, said with every message, and questions about it between small talk: what Ghost Attention starts from.
    fn personas(&self, random: &mut Random) -> Vec<Dialogue> {
        let persona = |_| {
            let (name, animal) = self.persona(random);
            let [called, likes] = [
                random.pick(&[
                    "Your name is {}. Say your name when I ask for it.",
                    "Your name is {}.",
                    "Name: {}.",
                    "Be {}.",
                ]),
                random.pick(&[
                    "Your favourite animal is the {}. Say it when I ask.",
                    "Animal: {}.",
                    "You love the {}.",
                ]),
            ]
            .map(str::to_owned);
            let (called, likes) = (called.replace("{}", name), likes.replace("{}", animal));
            let asks_name = random.percent(50);
            let instruction = match (random.percent(50), asks_name) {
                (true, _) => format!("{called} {likes}"),
                (_, true) => called,
                _ => likes,
            };
            let mut messages = Vec::new();
            for _ in 0..random.below(3) {
                let lines = &self.tables.small_talk
                    [random.pick(&["hello", "how", "thanks", "praise"])]
                .train;
                let (answers, users): (Vec<&str>, Vec<&str>) =
                    lines.iter().partition(|line| line.starts_with("> "));
                messages.push(format!("{instruction} {}", random.pick(&users)));
                messages.push(random.pick(&answers)[2..].to_owned());
            }
            let (question, answers) = if asks_name {
                ("What is your name?", ["My name is {}.", "I am {}.", "You can call me {}."])
            } else {
                (
                    "What is your favourite animal?",
                    ["The {}.", "I like the {} best.", "My favourite animal is the {}."],
                )
            };
            messages.push(format!("{instruction} {question}"));
            messages
                .push(random.pick(&answers).replace("{}", if asks_name { name } else { animal }));
            Dialogue { source: "persona", messages, system: None }
        };
        (0..N_PERSONAS).map(persona).collect()
    }

    /// Any name, and an animal.
    fn persona(&self, random: &mut Random) -> (&'static str, &'static str) {
        let name = random.pick(&self.tables.names.train);
        let animals = [
            "cat", "dog", "bear", "rabbit", "frog", "duck", "mouse", "owl", "pig", "bee", "wolf",
            "hen",
        ];
        (split_name(name).0, random.pick(&animals))
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
    fn two_turns(&self, random: &mut Random, told: &[Dialogue]) -> Vec<Dialogue> {
        let mut dialogues = Vec::new();
        let short = |max: usize| {
            told.iter().filter(move |d| d.n_tokens(self.tokenizer) <= max).collect::<Vec<_>>()
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

pub(super) fn records(path: &Path) -> Result<Vec<Value>> {
    let text = unpacked(path)?;
    let parse = |(i, line)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}:{}: expected JSON", path.display(), i + 1))
    };
    text.lines().enumerate().map(parse).collect()
}

/// The texts of a user's message and of its answer.
pub(super) fn turn(record: &Value, i: usize) -> Result<(&str, &str)> {
    let content = |i: usize| record["messages"][i]["content"].as_str();
    let both = content(i).zip(content(i + 1));
    both.with_context(|| format!("expected two messages with content, found {record}"))
}
