//! Judge B: reports only, never trained on. It sees no specification of the request: it reads the prompt's text with
//! patterns of its own, compares stems, and tells what a reply is by naive Bayes over hand-written replies. That an
//! answer should be a story, a redirect, a decline or small talk it is told; harm it cannot know.
//!
//! It shares nothing with judge A but the tables' reader, so that what pleases one by a weakness need not please both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;

use super::porter::stem;
use super::request::{Expected, table};

/// Fewest and most words of a story.
const STORY_WORDS: std::ops::RangeInclusive<usize> = 30..=260;

/// Most words of a very short story.
const SHORT_WORDS: usize = 120;

/// Most words of a reply that is no story.
const REPLY_WORDS: usize = 45;

/// Most words of small talk that naive Bayes takes for something else, and stems that it may not have then.
const SMALL_TALK_WORDS: usize = 25;
const NO: &[&str] = &["can't", "cannot", "won't", "refus"];

/// Words of a sentence that uses a word, and does not list it.
const SENTENCE_WORDS: usize = 5;

/// Deflate makes of a text of so many bytes at least this share: the first percentile of human stories.
const SMALLEST_SHARE: &[(usize, f64)] =
    &[(200, 0.56), (400, 0.46), (700, 0.44), (900, 0.43), (1200, 0.41), (usize::MAX, 0.38)];

/// What a prompt asks a story to keep to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Asked {
    pub(super) topic: Option<String>,
    pub(super) name: Option<String>,
    pub(super) words: Vec<String>,
    pub(super) opening: Option<String>,
    pub(super) happy: bool,
    pub(super) short: bool,
}

/// Words after which a topic has ended.
const AFTER_TOPIC: &[&str] = &[
    "who", "whose", "that", "which", "where", "when", "with", "in", "on", "under", "for", "from",
    "of", "and", "named", "called", "using", "to", "at",
];

/// Reads what a prompt asks for; `None` where no pattern fits.
pub(super) fn parse(prompt: &str) -> Option<Asked> {
    let mut asked = Asked::default();
    let (request, opening) = match prompt.split_once(": ") {
        Some((request, rest)) => (request, sentences(rest).into_iter().next()),
        None => (prompt, None),
    };
    asked.opening = opening;
    let low = request.to_lowercase();
    asked.happy =
        ["happy end", "happy story", "ends happily", "end happily", "ends well", "all ends well"]
            .iter()
            .any(|phrase| low.contains(phrase));
    asked.short =
        ["very short", "tiny story", "tiny tale"].iter().any(|phrase| low.contains(phrase));
    let tokens: Vec<&str> = request.split_whitespace().collect();
    let bare = |i: usize| tokens[i].trim_matches(|c: char| !c.is_alphanumeric());
    if let Some(i) = (0..tokens.len()).find(|&i| bare(i).eq_ignore_ascii_case("about")) {
        asked.topic = topic(&tokens[i + 1..]);
    } else if low.contains(" in it") && !low.contains(" word") {
        let i = (0..tokens.len()).find(|&i| matches!(bare(i), "with" | "has"))?;
        asked.topic = topic(&tokens[i + 1..]);
    }
    if let Some(i) = (0..tokens.len()).find(|&i| matches!(bare(i), "named" | "called")) {
        asked.name = (i + 1 < tokens.len()).then(|| bare(i + 1).to_owned());
    }
    if let Some(i) = (0..tokens.len()).find(|&i| matches!(bare(i), "word" | "words")) {
        let one = bare(i) == "word";
        for (j, token) in tokens.iter().enumerate().skip(i + 1) {
            match bare(j) {
                "and" => continue,
                "in" => break,
                word => asked.words.push(word.to_lowercase()),
            }
            if one || token.ends_with(['.', '?', '!']) {
                break;
            }
        }
    }
    (asked != Asked::default()).then_some(asked)
}

/// The head noun of what follows "about".
fn topic(tokens: &[&str]) -> Option<String> {
    let mut head = None;
    for (i, token) in tokens.iter().enumerate() {
        let word = token.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let is_verb =
            i > 1 && head.is_some() && word.ends_with("ing") && word != "king" && word != "ring";
        if AFTER_TOPIC.contains(&word.as_str()) || is_verb {
            break;
        }
        if !matches!(word.as_str(), "a" | "an" | "the" | "some" | "two" | "three") {
            head = Some(word);
        }
        if token.ends_with(['.', ',', '?', '!']) {
            break;
        }
    }
    head
}

/// Ends of words that end no sentence.
const ABBREVIATIONS: &[&str] = &["Mr.", "Mrs.", "Dr.", "St."];

/// Cuts after a terminator, and quotes after it, that space and a capital letter or a quote follow.
pub(super) fn sentences(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut sentences = Vec::new();
    let mut start = 0;
    for i in 0..words.len() {
        let ends =
            words[i].trim_end_matches(['"', '\'', ')', '\u{201d}']).ends_with(['.', '!', '?']);
        let begins = words.get(i + 1).is_none_or(|next| {
            next.starts_with(|c: char| c.is_uppercase() || matches!(c, '"' | '\'' | '\u{201c}'))
        });
        if (ends && begins && !ABBREVIATIONS.contains(&words[i])) || i + 1 == words.len() {
            sentences.push(words[start..=i].join(" "));
            start = i + 1;
        }
    }
    sentences
}

fn stems(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    words
        .filter(|word| !word.trim_matches('\'').is_empty())
        .map(|word| stem(&word.to_lowercase()))
        .collect()
}

/// What B thinks of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) conditions: Vec<(&'static str, bool)>,
    /// What naive Bayes takes the answer for.
    pub(super) reply: &'static str,
}

impl Verdict {
    pub(super) fn met(&self) -> bool {
        !self.conditions.is_empty() && self.conditions.iter().all(|(_, met)| *met)
    }
}

/// The judge: its tables, read once.
pub(super) struct JudgeB {
    bayes: Bayes,
    valence: HashMap<&'static str, i32>,
}

impl JudgeB {
    pub(super) fn new() -> Self {
        let mut valence = HashMap::new();
        for line in table(include_str!("tables/b_valence.txt")).remove("").unwrap_or_default().train
        {
            let mut words = line.split(' ');
            let weight = words
                .next()
                .and_then(|weight| weight.parse().ok())
                .expect("a line begins with its weight");
            valence.extend(words.map(|word| (word, weight)));
        }
        Self { bayes: Bayes::new(&replies()), valence }
    }

    /// Whether `answer` is what `prompt` asks for. `complete`: the answer ended by itself.
    pub(super) fn judge(
        &self,
        prompt: &str,
        expected: Expected,
        answer: &str,
        complete: bool,
    ) -> Verdict {
        let words = stems(answer);
        let sentences = sentences(answer);
        let reply = self.bayes.class(&words);
        let whole =
            answer.trim_end().trim_end_matches(['"', '\'', '\u{201d}']).ends_with(['.', '!', '?']);
        let mut conditions = vec![("complete", complete && whole)];
        match expected {
            Expected::Story => {
                self.story(prompt, answer, &words, &sentences, reply, &mut conditions);
            }
            Expected::Redirect | Expected::Decline | Expected::SmallTalk => {
                let name = match expected {
                    Expected::Redirect => "redirect",
                    Expected::Decline => "decline",
                    _ => "small_talk",
                };
                // Small talk may offer a story, as a redirect does, and be sorry, as a decline is: what it may not do is
                // say no.
                let says_no = words.iter().any(|word| NO.contains(&word.as_str()));
                let fits = reply == name
                    || (name == "small_talk" && !says_no && words.len() <= SMALL_TALK_WORDS);
                conditions.push(("kind of reply", fits));
                conditions.push(("length", (1..=REPLY_WORDS).contains(&words.len())));
            }
        }
        Verdict { conditions, reply }
    }

    fn story(
        &self,
        prompt: &str,
        answer: &str,
        words: &[String],
        sentences: &[String],
        reply: &str,
        conditions: &mut Vec<(&'static str, bool)>,
    ) {
        let stemmed: Vec<Vec<String>> = sentences.iter().map(|sentence| stems(sentence)).collect();
        let said_in = |word: &str| {
            let wanted = stem(&word.to_lowercase());
            stemmed.iter().filter(move |sentence| sentence.contains(&wanted))
        };
        conditions.push((
            "story",
            reply == "story" && STORY_WORDS.contains(&words.len()) && sentences.len() >= 3,
        ));
        let sets: Vec<BTreeSet<&String>> =
            stemmed.iter().rev().take(2).map(|s| s.iter().collect()).collect();
        conditions.push(("new end", sets.len() == 2 && sets[0] != sets[1]));
        conditions.push(("no loop", share_of_deflate(answer) >= smallest_share(answer.len())));
        let Some(asked) = parse(prompt) else {
            conditions.push(("request understood", false));
            return;
        };
        if let Some(topic) = &asked.topic {
            // Who has a name is called by it.
            let n = if asked.name.is_some() { 1 } else { 2 };
            conditions.push(("topic", said_in(topic).count() >= n));
        }
        if let Some(name) = &asked.name {
            conditions.push(("name", said_in(name).count() >= 2));
        }
        if !asked.words.is_empty() {
            let used =
                |word: &String| said_in(word).any(|sentence| sentence.len() >= SENTENCE_WORDS);
            conditions.push(("words", asked.words.iter().all(used)));
        }
        if let Some(opening) = &asked.opening {
            conditions.push(("opening", words.starts_with(&stems(opening))));
        }
        if asked.happy {
            conditions.push(("happy end", self.feeling(answer) > 0));
        }
        if asked.short {
            conditions.push(("short", words.len() <= SHORT_WORDS));
        }
    }

    /// The sum of weights over the last quarter of the words; turned around by "not" up to three words before.
    fn feeling(&self, answer: &str) -> i32 {
        let words: Vec<String> = answer
            .split_whitespace()
            .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
            .collect();
        let weight = |i: usize| {
            let weight = self.valence.get(words[i].as_str()).copied().unwrap_or(0);
            let turned = words[i.saturating_sub(3)..i].iter().any(|word| {
                matches!(word.as_str(), "not" | "never" | "no") || word.ends_with("n't")
            });
            if turned { -weight } else { weight }
        };
        (words.len() * 3 / 4..words.len()).map(weight).sum()
    }
}

/// Compressed bytes for each byte.
pub(super) fn share_of_deflate(text: &str) -> f64 {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    let packed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    packed.expect("memory can be written").len() as f64 / text.len().max(1) as f64
}

fn smallest_share(n_bytes: usize) -> f64 {
    SMALLEST_SHARE.iter().find(|(n, _)| n_bytes <= *n).map_or(0.0, |(_, share)| *share)
}

/// Replies written by hand, with what they are.
pub(super) fn replies() -> Vec<(&'static str, Vec<String>)> {
    let sections = table(include_str!("tables/b_replies.txt"));
    let each = sections
        .into_iter()
        .flat_map(|(class, entries)| entries.train.into_iter().map(move |r| (class, r)));
    each.map(|(class, reply)| (class, stems(reply))).collect()
}

/// How often a word occurs in replies of a class that have it never.
const RARE: f64 = 0.1;

/// Naive Bayes over which words occur.
pub(super) struct Bayes {
    /// Of each class: replies, and how many of them have each word.
    classes: BTreeMap<&'static str, (f64, HashMap<String, f64>)>,
}

impl Bayes {
    pub(super) fn new(replies: &[(&'static str, Vec<String>)]) -> Self {
        let mut classes: BTreeMap<_, (f64, HashMap<String, f64>)> = BTreeMap::new();
        for (class, words) in replies {
            let (n, counts) = classes.entry(*class).or_default();
            *n += 1.0;
            for word in words.iter().collect::<BTreeSet<_>>() {
                *counts.entry(word.clone()).or_default() += 1.0;
            }
        }
        Self { classes }
    }

    /// The most probable class of what has these words.
    pub(super) fn class(&self, words: &[String]) -> &'static str {
        // The replies to learn from are far shorter.
        if words.len() > 60 {
            return "story";
        }
        let words: BTreeSet<&String> = words.iter().collect();
        let score = |(n, counts): &(f64, HashMap<String, f64>)| {
            let p = |word: &&String| {
                (counts.get(*word).copied().unwrap_or(0.0) + RARE) / (n + 2.0 * RARE)
            };
            n.ln() + words.iter().map(|word| p(word).ln()).sum::<f64>()
        };
        let best = self.classes.iter().max_by(|a, b| score(a.1).total_cmp(&score(b.1)));
        best.map_or("", |(class, _)| class)
    }
}
