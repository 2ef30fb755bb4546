//! Requests put into words, and requests of each kind made from the tables.

use std::collections::{BTreeMap, HashSet};

use super::request::{Entries, Kind, Random, Request, table};

/// All tables.
pub(super) struct Tables {
    requests: Sections,
    off_topic: Sections,
    unwanted: Sections,
    borderline: Sections,
    pub(super) small_talk: Sections,
    replies: Sections,
    pub(super) topics: Entries,
    pub(super) words: Entries,
    /// With the letter of who has it.
    pub(super) names: Entries,
}

type Sections = BTreeMap<&'static str, Entries>;

/// Whether to draw from what is kept for the held-out requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    /// Phrasings.
    pub(super) phrasing: bool,
    /// Topics, names, words, and what fills the slots of other requests.
    pub(super) lists: bool,
}

impl Side {
    pub(super) const TRAIN: Self = Self { phrasing: false, lists: false };
}

/// A prompt and what it asks for.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    pub(super) text: String,
    pub(super) request: Request,
}

impl Tables {
    pub(super) fn new() -> Self {
        let list = |text| table(text).remove("").unwrap_or_default();
        Self {
            requests: table(include_str!("tables/requests.txt")),
            off_topic: table(include_str!("tables/off_topic.txt")),
            unwanted: table(include_str!("tables/unsafe.txt")),
            borderline: table(include_str!("tables/borderline.txt")),
            small_talk: table(include_str!("tables/small_talk.txt")),
            replies: table(include_str!("tables/replies.txt")),
            topics: list(include_str!("tables/topics.txt")),
            words: list(include_str!("tables/words.txt")),
            names: list(include_str!("tables/names.txt")),
        }
    }

    /// Tables whose topics, words and names are those that fine-tuning does not ask for, and whose unsafe and off-topic
    /// requests are put in other ways.
    pub(super) fn of_rounds() -> Self {
        let mut rounds = table(include_str!("tables/rounds.txt"));
        let mut list = |section| rounds.remove(section).expect("a section of the table");
        let mut tables = Self {
            topics: list("topics"),
            words: list("words"),
            names: list("names"),
            ..Self::new()
        };
        tables.off_topic.insert("prompts", list("prompts"));
        tables.unwanted.extend(rounds);
        tables
    }

    /// Things that sound dangerous.
    #[cfg(test)]
    pub(super) fn things(&self) -> &[&'static str] {
        &self.borderline["things"].train
    }

    /// Who first sentences are about, those for training.
    pub(super) fn heroes(&self) -> &[&'static str] {
        &self.requests["heroes"].train
    }

    /// Topics that sound dangerous, those for training: the head noun, " = ", the topic.
    pub(super) fn borderline_topics(&self) -> &[&'static str] {
        &self.borderline["topics"].train
    }

    /// Topics, words and names that are kept for the held-out requests.
    pub(super) fn held_out_words(&self) -> HashSet<&'static str> {
        let names = self.names.held_out.iter().map(|line| split_name(line).0);
        let heads = self.borderline["topics"].held_out.iter();
        let heads = heads.filter_map(|line| line.split_once(" = ")).map(|(head, _)| head);
        let places = self.requests["places"].held_out.iter().copied();
        let lists = self.topics.held_out.iter().chain(&self.words.held_out).copied();
        lists.chain(names).chain(heads).chain(places).collect()
    }

    /// A request for a story in words. `thing` takes the place of its topic with an article.
    pub(super) fn phrase(
        &self,
        random: &mut Random,
        request: &Request,
        thing: Option<&str>,
        held_out: bool,
    ) -> String {
        let section = match request.kind {
            Kind::Topic => "topic",
            Kind::Name => "name",
            Kind::Words => "words",
            Kind::Opening => "opening",
            Kind::Ending => "ending",
            Kind::Short => "short",
            Kind::Combined if request.opening.is_some() => "opening_ending",
            Kind::Combined if request.words.is_empty() => "ending",
            Kind::Combined if request.happy => "topic_word_ending",
            Kind::Combined => "topic_word",
            Kind::Borderline if thing.is_some() => "topic",
            _ => "with_thing",
        };
        let phrasing = random.pick(self.requests[section].of(held_out));
        let topic = request.topic.as_deref().unwrap_or_default();
        let thing = match (&request.name, thing) {
            (_, Some(thing)) => thing.to_owned(),
            (Some(name), None) => format!("{} named {name}", with_article(topic)),
            (None, None) => with_article(topic),
        };
        let words = match request.words.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
            words => words.concat(),
        };
        phrasing
            .replace("{T}", &thing)
            .replace("{W}", &words)
            .replace("{w}", &words)
            .replace("{O}", request.opening.as_deref().unwrap_or_default())
    }

    /// System prompts that change nothing.
    pub(super) fn systems(&self) -> &[&'static str] {
        &self.requests["system"].train
    }

    /// A request for any story.
    pub(super) fn any(&self, random: &mut Random) -> String {
        random.pick(&self.requests["any"].train).to_owned()
    }

    /// A request of a kind that asks for a story.
    pub(super) fn story(&self, random: &mut Random, kind: Kind, side: Side) -> Prompt {
        let mut request = Request::new(kind);
        let lists = side.lists;
        let topic = |random: &mut Random| Some(random.pick(self.topics.of(lists)).to_owned());
        let words = |random: &mut Random, n: usize| {
            let mut words = Vec::new();
            while words.len() < n {
                let word = random.pick(self.words.of(lists)).to_owned();
                if !words.contains(&word) {
                    words.push(word);
                }
            }
            words
        };
        let mut thing = None;
        match kind {
            Kind::Topic => request.topic = topic(random),
            Kind::Short => (request.topic, request.short) = (topic(random), true),
            Kind::Ending => (request.topic, request.happy) = (topic(random), true),
            Kind::Name => (request.topic, request.name) = self.named(random, lists),
            Kind::Words => {
                let n = 2 + usize::from(random.percent(40));
                request.words = words(random, n);
            }
            Kind::Opening => request.opening = Some(self.opening(random, side)),
            Kind::Combined => match random.below(4) {
                0 => (request.topic, request.words) = (topic(random), words(random, 1)),
                1 => {
                    (request.topic, request.words) = (topic(random), words(random, 1));
                    request.happy = true;
                }
                2 => {
                    (request.topic, request.name) = self.named(random, lists);
                    request.happy = true;
                }
                _ => (request.opening, request.happy) = (Some(self.opening(random, side)), true),
            },
            _ => {
                let (head, of) = random
                    .pick(self.borderline["topics"].of(lists))
                    .split_once(" = ")
                    .expect("a line has the head noun and the topic");
                (request.topic, thing) = (Some(head.to_owned()), Some(of));
            }
        }
        // A word that is the topic is no second condition.
        if request.topic.as_ref().is_some_and(|topic| request.words.contains(topic)) {
            return self.story(random, kind, side);
        }
        request.unseen = lists;
        Prompt { text: self.phrase(random, &request, thing, side.phrasing), request }
    }

    /// A girl, boy or animal, and a name.
    fn named(&self, random: &mut Random, held_out: bool) -> (Option<String>, Option<String>) {
        let (name, who) = split_name(random.pick(self.names.of(held_out)));
        let topic = match who {
            'f' => "girl",
            'm' => "boy",
            _ => random.pick(&["dog", "cat", "bear", "puppy"]),
        };
        (Some(topic.to_owned()), Some(name.to_owned()))
    }

    pub(super) fn opening(&self, random: &mut Random, side: Side) -> String {
        let frame = random.pick(self.requests["openings"].of(side.phrasing));
        let topic = random.pick(self.topics.of(side.lists));
        let who = if frame.contains("his") { " m" } else { " f" };
        let names = self.names.of(side.lists).iter().copied().filter(|name| name.ends_with(who));
        frame
            .replace("{h}", random.pick(self.requests["heroes"].of(side.lists)))
            .replace("{T}", &with_article(topic))
            .replace("{N}", split_name(random.pick(&names.collect::<Vec<_>>())).0)
            .replace("{p}", random.pick(self.requests["places"].of(side.phrasing)))
    }

    /// A question that has nothing to do with stories.
    pub(super) fn off_topic(&self, random: &mut Random, side: Side) -> Prompt {
        let text = fill(&self.off_topic, "prompts", random, side);
        Prompt { text, request: Request { unseen: side.lists, ..Request::new(Kind::OffTopic) } }
    }

    /// A request to be declined, of a section of the table.
    pub(super) fn unwanted(&self, random: &mut Random, form: &str, side: Side) -> Prompt {
        let text = fill(&self.unwanted, form, random, side);
        let form = Some(form.to_owned());
        Prompt { text, request: Request { unseen: side.lists, form, ..Request::new(Kind::Unsafe) } }
    }

    /// Small talk without its answers.
    pub(super) fn greeting(&self, random: &mut Random, held_out: bool) -> Prompt {
        let all = self.small_talk.values().flat_map(|entries| entries.of(held_out)).copied();
        let all: Vec<&str> = all.filter(|line| !line.starts_with("> ")).collect();
        let request = Request { unseen: held_out, ..Request::new(Kind::SmallTalk) };
        Prompt { text: random.pick(&all).to_owned(), request }
    }

    /// A short reply of a section of the table.
    pub(super) fn reply(&self, random: &mut Random, section: &str) -> String {
        let topic = with_article(random.pick(&self.topics.train));
        random.pick(&self.replies[section].train).replace("{T}", &topic)
    }
}

/// A line of a section with its slots filled, each from the section of its name.
fn fill(sections: &Sections, section: &str, random: &mut Random, side: Side) -> String {
    let mut text = random.pick(sections[section].of(side.phrasing)).to_owned();
    while let Some((before, rest)) = text.split_once('{') {
        let (slot, after) = rest.split_once('}').expect("a slot is closed");
        let value = random.pick(sections[slot].of(side.lists));
        // Twice the same in one question asks for nothing.
        if before.contains(value) && slot != "n" {
            continue;
        }
        text = format!("{before}{value}{after}");
    }
    text
}

/// A line of the table of names: the name, and who has it.
pub(super) fn split_name(line: &str) -> (&str, char) {
    let (name, who) = line.split_once(' ').expect("a name is followed by who has it");
    (name, who.chars().next().unwrap_or_default())
}

/// "a rabbit", "an owl".
pub(super) fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
