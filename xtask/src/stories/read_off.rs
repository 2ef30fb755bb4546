//! Requests that a story answers, read off it: how the judges are tried on stories by people.

use std::collections::HashSet;

use super::forms::{noun_forms, word_forms};
use super::judge_a::Text;
use super::request::{Kind, Request};
use super::requests::{Tables, split_name};
use super::tell::opening;

/// How often a story says its topic or its hero's name.
const MENTIONS: usize = 3;

/// Most sentences of a very short story.
const SHORT_SENTENCES: usize = 10;

/// Reads requests off stories.
pub(super) struct ReadOff<'a> {
    tables: &'a Tables,
    topics: Vec<(&'static str, HashSet<String>)>,
    /// Words for requests with their forms, those of few stories first.
    words: Vec<(&'static str, HashSet<String>)>,
}

impl<'a> ReadOff<'a> {
    pub(super) fn new(tables: &'a Tables, stories: &[String]) -> Self {
        let topics = tables.topics.train.iter().map(|&topic| (topic, noun_forms(topic))).collect();
        let mut words: Vec<_> =
            tables.words.train.iter().map(|&word| (word, word_forms(word))).collect();
        let texts: Vec<HashSet<String>> =
            stories.iter().map(|story| Text::new(story).words.into_iter().collect()).collect();
        words.sort_by_cached_key(|(word, forms)| {
            let has = |text: &&HashSet<String>| forms.iter().any(|form| text.contains(form));
            (texts.iter().filter(has).count(), *word)
        });
        Self { tables, topics, words }
    }

    /// One request of each kind that the story fits, without what is kept for the held-out requests.
    pub(super) fn requests(&self, story: &str) -> Vec<Request> {
        let text = Text::new(story);
        let topic = self.topic(&text);
        let named = self.named(story, &text);
        let words = self.words(&text);
        let opening = opening(story);
        let happy = text.ends_well();
        let mut requests = Vec::new();
        if topic.is_some() {
            let request = Request { topic: topic.clone(), ..Request::new(Kind::Topic) };
            if happy {
                requests.push(Request { kind: Kind::Ending, happy, ..request.clone() });
            }
            if text.sentences.len() <= SHORT_SENTENCES {
                requests.push(Request { kind: Kind::Short, short: true, ..request.clone() });
            }
            if let Some(word) = words.iter().find(|&word| Some(word) != topic.as_ref()) {
                let words = vec![word.clone()];
                requests.push(Request { kind: Kind::Combined, words, happy, ..request.clone() });
            }
            requests.push(request);
        }
        if let Some((topic, name)) = named {
            let request =
                Request { topic: Some(topic), name: Some(name), ..Request::new(Kind::Name) };
            if happy {
                requests.push(Request { kind: Kind::Combined, happy, ..request.clone() });
            }
            requests.push(request);
        }
        if words.len() >= 2 {
            requests.push(Request { words, ..Request::new(Kind::Words) });
        }
        if opening.is_some() {
            if happy {
                let opening = opening.clone();
                requests.push(Request { opening, happy, ..Request::new(Kind::Combined) });
            }
            requests.push(Request { opening, ..Request::new(Kind::Opening) });
        }
        let things = self.tables.things().iter();
        requests.extend(
            things.filter(|thing| count(&text, &noun_forms(thing)) >= MENTIONS - 1).map(|thing| {
                Request { topic: Some((*thing).to_owned()), ..Request::new(Kind::Borderline) }
            }),
        );
        requests.retain(|request| text.conditions(request).iter().all(|(_, met)| *met));
        requests
    }

    /// The noun of the list that is said most often, of those that are introduced as "a rabbit", "an old tree".
    fn topic(&self, text: &Text) -> Option<String> {
        let early =
            text.sentences.get(3).or(text.sentences.last()).map_or(0, |sentence| sentence.end);
        let introduced = |topic: &str| {
            let is_article = |word: &String| word == "a" || word == "an";
            (1..early).any(|i| {
                text.words[i] == topic && text.words[i.saturating_sub(4)..i].iter().any(is_article)
            })
        };
        let all = self.topics.iter();
        let counted =
            all.map(|(topic, forms)| (count(text, forms), topic)).filter(|(n, _)| *n >= MENTIONS);
        // Children are in every story: it is about something else, if there is anything.
        let ranked = counted.map(|(n, topic)| (!matches!(*topic, "girl" | "boy"), n, *topic));
        let best = ranked.filter(|(_, _, topic)| introduced(topic)).max();
        best.map(|(_, _, topic)| topic.to_owned())
    }

    /// "A girl named Lily".
    fn named(&self, story: &str, text: &Text) -> Option<(String, String)> {
        let names = self.tables.names.train.iter().map(|line| split_name(line));
        let counted =
            names.map(|(name, who)| (count(text, &noun_forms(&name.to_lowercase())), name, who));
        let (_, name, who) =
            counted.filter(|(n, name, _)| *n >= MENTIONS && story.contains(name)).max()?;
        // What the story itself says: "a dog named Spot".
        let told = [format!(" named {name}"), format!(" called {name}")]
            .iter()
            .find_map(|phrase| story.split_once(phrase.as_str()))
            .and_then(|(before, _)| before.rsplit(|c: char| !c.is_alphabetic()).next())
            .filter(|noun| self.tables.topics.train.contains(noun));
        let by_name = match who {
            'f' => Some("girl"),
            'm' => Some("boy"),
            _ => None,
        };
        told.or(by_name).map(|topic| (topic.to_owned(), name.to_owned()))
    }

    /// Two or three words that few stories have, in the order of the story.
    fn words(&self, text: &Text) -> Vec<String> {
        let place = |forms: &HashSet<String>| text.words.iter().position(|w| forms.contains(w));
        let found = self.words.iter().filter_map(|(word, forms)| Some((place(forms)?, *word)));
        // Of every third story three.
        let n = 2 + usize::from(text.words.len().is_multiple_of(3));
        let mut found: Vec<_> = found.take(n).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, word)| word.to_owned()).collect()
    }
}

fn count(text: &Text, forms: &HashSet<String>) -> usize {
    text.words.iter().filter(|word| forms.contains(*word)).count()
}
