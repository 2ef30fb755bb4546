//! Plots, the classes of words that fill them, and the filling.

use std::collections::{BTreeMap, HashSet};

use super::request::{Random, table};
use super::requests::{Tables, split_name, with_article};

/// What can be a hero, a thing, a place and an idea: classes of words, and how many topics in a hundred are of them.
pub(super) const ROLES: [(Role, usize, &[&str]); 4] = [
    (Role::Hero, 46, &["animal", "being", "lady"]),
    (Role::Thing, 32, &["toy", "thing", "clothes", "food"]),
    (Role::Place, 14, &["place", "nature"]),
    (Role::Idea, 8, &["idea"]),
];

/// Classes of words that a request may ask for, and the sentences that bring them in.
pub(super) const WORDS: [(&str, &[&str]); 13] = [
    ("thing", &["toy", "thing", "clothes", "food", "nature"]),
    ("animal", &["animal"]),
    ("place", &["place"]),
    ("colour", &["colour"]),
    ("feeling", &["feeling"]),
    ("quality", &["quality"]),
    ("verb", &["verb"]),
    ("world", &["world"]),
    ("meal", &["meal"]),
    ("idea", &["idea"]),
    ("person", &["person"]),
    ("part", &["part"]),
    ("thing", &["any"]),
];

/// A part that a topic plays.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Role {
    Hero,
    Thing,
    Place,
    Idea,
}

pub(super) struct Plot {
    pub(super) name: &'static str,
    /// Each a sentence or two in several wordings.
    pub(super) steps: Vec<Vec<&'static str>>,
}

/// The tables of stories told by rule.
pub(super) struct Plots {
    pub(super) plots: BTreeMap<Role, Vec<Plot>>,
    /// First sentences, by their name.
    pub(super) intros: BTreeMap<&'static str, Vec<&'static str>>,
    /// What brings words in, by class.
    pub(super) inserts: BTreeMap<&'static str, Vec<&'static str>>,
    /// What a topic does, for whoever and whatever it is.
    pub(super) clauses: BTreeMap<&'static str, Vec<&'static str>>,
    /// Words of each class, none of them held out.
    pub(super) classes: BTreeMap<&'static str, Vec<&'static str>>,
    /// Names with who has them, none of them held out.
    pub(super) names: BTreeMap<&'static str, char>,
}

/// Who and what a story has.
pub(super) struct Cast {
    pub(super) hero: String,
    /// The noun and the name of the hero, as far as there are.
    pub(super) noun: String,
    pub(super) name: &'static str,
    /// "she", "her", "her".
    pub(super) pronouns: [&'static str; 3],
    /// Two animals.
    pub(super) friends: [&'static str; 2],
    pub(super) thing: &'static str,
    pub(super) place: &'static str,
    /// The topic in words.
    pub(super) phrase: String,
}

impl Plots {
    pub(super) fn new(tables: &Tables, nouns: &[String]) -> Self {
        let held_out = tables.held_out_words();
        let classes_of = table(include_str!("tables/classes.txt"));
        let plots_of = table(include_str!("tables/plots.txt"));
        let mut classes = BTreeMap::new();
        let mut names = BTreeMap::new();
        let (mut inserts, mut intros, mut clauses) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut plots: BTreeMap<Role, Vec<Plot>> = BTreeMap::new();
        for (section, entries) in classes_of.into_iter().chain(plots_of) {
            let lines = entries.train;
            if let Some(class) = section.strip_prefix("insert ") {
                inserts.insert(class, lines);
            } else if let Some(name) = section.strip_prefix("intro ") {
                intros.insert(name, lines.iter().flat_map(|line| line.split(" | ")).collect());
            } else if let Some(name) = section.strip_prefix("topic ") {
                clauses.insert(name, lines);
            } else if let Some((role, name)) = section.split_once(": ") {
                let role = match role {
                    "hero" => Role::Hero,
                    "thing" => Role::Thing,
                    "place" => Role::Place,
                    _ => Role::Idea,
                };
                let steps = lines.iter().map(|line| line.split(" | ").collect()).collect();
                plots.entry(role).or_default().push(Plot { name, steps });
            } else if let Some(who) =
                [("girls", 'f'), ("boys", 'm'), ("pets", 'p')].iter().find(|(s, _)| *s == section)
            {
                names.extend(lines.iter().map(|&name| (name, who.1)));
            } else {
                let words = lines.into_iter().filter(|word| !held_out.contains(word));
                classes.insert(section, words.collect());
            }
        }
        // Nouns of all kinds, whatever they are.
        let nouns: HashSet<&str> = nouns.iter().map(String::as_str).collect();
        let english =
            table(include_str!("tables/english.txt")).remove("").unwrap_or_default().train;
        let any = english.into_iter().flat_map(str::split_whitespace);
        let any = any.filter(|word| nouns.contains(word) && !held_out.contains(word));
        classes.insert("any", any.collect::<Vec<_>>());
        names.extend(tables.names.train.iter().map(|line| split_name(line)));
        names.retain(|name, _| !held_out.contains(name));
        Self { plots, intros, inserts, clauses, classes, names }
    }

    pub(super) fn class(&self, random: &mut Random, class: &str) -> &'static str {
        random.pick(&self.classes[class])
    }

    pub(super) fn is_of(&self, classes: &[&str], word: &str) -> bool {
        classes.iter().any(|class| self.classes[class].contains(&word))
    }

    pub(super) fn name(&self, random: &mut Random, who: &[char]) -> (&'static str, char) {
        let all: Vec<_> = self.names.iter().filter(|(_, of)| who.contains(of)).collect();
        let (name, who) = random.pick(&all);
        (name, *who)
    }

    pub(super) fn role_of(&self, noun: &str) -> Role {
        let role = ROLES.iter().find(|(_, _, classes)| self.is_of(classes, noun));
        role.map_or(Role::Hero, |(role, _, _)| *role)
    }

    /// One of the first words of a class. What nobody asked for is always one of a few words, so that all others come from
    /// the request.
    pub(super) fn common(&self, random: &mut Random, class: &str) -> &'static str {
        let words = &self.classes[class];
        random.pick(&words[..words.len().min(COMMON)])
    }

    /// An animal, and whatever else a story may need.
    pub(super) fn cast(&self, random: &mut Random) -> Cast {
        let noun = self.common(random, "animal");
        let pronouns = random.pick(&[HE, SHE]);
        let mut friends = [noun; 2];
        while friends.contains(&noun) || friends[0] == friends[1] {
            friends = [(); 2].map(|()| self.common(random, "animal"));
        }
        let class = random.pick(&["toy", "thing"]);
        Cast {
            hero: format!("the {noun}"),
            noun: noun.to_owned(),
            name: "",
            pronouns,
            friends,
            thing: self.common(random, class),
            place: self.common(random, "place"),
            phrase: String::new(),
        }
    }

    pub(super) fn intro(&self, random: &mut Random, cast: &Cast, name: &str) -> String {
        let line = random.pick(&self.intros[name]);
        self.fill(random, cast, line, "")
    }

    /// A sentence with a word in it.
    pub(super) fn bring_in(&self, random: &mut Random, cast: &Cast, word: &str) -> Option<String> {
        let class = WORDS.iter().find(|(_, classes)| self.is_of(classes, word))?.0;
        let line = random.pick(&self.inserts[class]);
        Some(self.fill(random, cast, line, word))
    }

    /// A line with its slots filled and its sentences begun with capital letters.
    pub(super) fn fill(&self, random: &mut Random, cast: &Cast, line: &str, word: &str) -> String {
        let (mut text, mut rest) = (String::new(), line);
        while let Some((before, after)) = rest.split_once('{') {
            let (slot, after) = after.split_once('}').expect("a slot is closed");
            text += before;
            rest = after;
            let (article, slot) = match slot.split_once(' ') {
                Some((_, slot)) => (true, slot),
                None => (slot == "a", slot),
            };
            let value = match slot {
                "H" => &cast.hero,
                "N" => cast.name,
                "W" => &cast.noun,
                "T" => &cast.phrase,
                "F" => cast.friends[0],
                "G" => cast.friends[1],
                "X" => cast.thing,
                "P" => cast.place,
                "a" | "w" => word,
                "he" | "He" => cast.pronouns[0],
                "him" => cast.pronouns[1],
                "his" | "His" => cast.pronouns[2],
                class => self.common(random, class),
            };
            let value = if article { with_article(value) } else { value.to_owned() };
            let begins = text.is_empty()
                || (text.ends_with('"') && text.matches('"').count() % 2 == 1)
                || [". ", "! ", "? "].iter().any(|end| text.ends_with(end));
            text += &if begins { capital(&value) } else { value };
        }
        fix_articles(&(text + rest))
    }
}

/// Words of a class that stories have unasked.
const COMMON: usize = 12;

pub(super) const HE: [&str; 3] = ["he", "him", "his"];
pub(super) const SHE: [&str; 3] = ["she", "her", "her"];

/// "a" before a vowel is "an".
fn fix_articles(text: &str) -> String {
    let mut fixed = String::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let vowel = words.peek().is_some_and(|next| next.starts_with(['a', 'e', 'i', 'o', 'u']));
        fixed += match word {
            "a" if vowel => "an",
            "A" if vowel => "An",
            "\"A" if vowel => "\"An",
            word => word,
        };
        if words.peek().is_some() {
            fixed.push(' ');
        }
    }
    fixed
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}", first.to_uppercase())
}
