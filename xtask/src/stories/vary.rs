//! Stories edited by rule, so that a few thousand of them answer many requests: names and nouns are exchanged for others,
//! sentences bring in words, first and last sentences are put in place. What a request names can then be guessed from
//! the request alone, and so it is copying that is learned.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::forms::plural;
use super::judge_a::Text;
use super::read_off::opening;
use super::request::{Entries, Kind, Random, Request, table};
use super::requests::{Tables, split_name, with_article};

/// Classes whose words may stand for each other, and the larger ones that a topic may be exchanged within.
const SWAPPED: [&str; 7] = ["animal", "toy", "thing", "clothes", "food", "place", "colour"];
const TOPICS: [&[&str]; 3] =
    [&["animal", "being", "lady"], &["toy", "thing", "clothes", "food"], &["place", "nature"]];

/// How often a noun is said that a story is about.
const MENTIONS: usize = 3;

/// In a hundred stories that are about an animal so many stay so.
const ANIMALS: usize = 70;

/// Kinds of requests, and how many in a hundred are of them.
const KINDS: [(Kind, usize); 8] = [
    (Kind::Topic, 14),
    (Kind::Name, 12),
    (Kind::Words, 24),
    (Kind::Opening, 16),
    (Kind::Ending, 8),
    (Kind::Combined, 16),
    (Kind::Short, 4),
    (Kind::Borderline, 6),
];

/// Sentences and words of a very short story, before its last sentence.
const SHORT: (usize, usize) = (7, 75);

/// A request, its topic in words where these are not its noun alone, and the story that answers it.
pub(super) struct Varied {
    pub(super) request: Request,
    pub(super) thing: Option<&'static str>,
    pub(super) story: String,
}

/// Edits stories.
pub(super) struct Editor<'a> {
    tables: &'a Tables,
    sections: BTreeMap<&'static str, Entries>,
    /// What no request for training may name.
    held_out: HashSet<&'static str>,
    /// Every name that is known, with who has it.
    names: BTreeMap<&'static str, char>,
    /// First sentences of other stories.
    openings: Vec<String>,
}

/// A story on its way.
struct Draft {
    story: String,
    topic: Option<&'static str>,
    name: Option<(&'static str, char)>,
    /// Words that were put into it.
    words: Vec<&'static str>,
}

impl<'a> Editor<'a> {
    pub(super) fn new(tables: &'a Tables, stories: &[String]) -> Self {
        let sections = table(include_str!("tables/edits.txt"));
        let held_out = tables.held_out_words();
        let mut names = BTreeMap::new();
        for (section, who) in [("girls", 'f'), ("boys", 'm'), ("pets", 'p')] {
            names.extend(sections[section].train.iter().map(|&name| (name, who)));
        }
        let of_requests = tables.names.train.iter().chain(&tables.names.held_out);
        names.extend(of_requests.map(|line| split_name(line)));
        let openings = stories.iter().filter_map(|story| opening(story)).collect();
        Self { tables, sections, held_out, names, openings }
    }

    /// The words of a class without those that are held out.
    fn class(&self, class: &str) -> Vec<&'static str> {
        let words = self.sections[class].train.iter().copied();
        words.filter(|word| !self.held_out.contains(word)).collect()
    }

    fn has(&self, class: &str, word: &str) -> bool {
        self.sections[class].train.contains(&word)
    }

    /// The story as an answer to a request of some kind; `None` where it does not lend itself to that.
    pub(super) fn vary(&self, random: &mut Random, story: &str) -> Option<Varied> {
        let mut chance = random.below(KINDS.iter().map(|(_, n)| n).sum());
        let kind = KINDS.iter().find(|(_, n)| match chance.checked_sub(*n) {
            Some(rest) => {
                chance = rest;
                false
            }
            None => true,
        })?;
        let mut request = Request::new(kind.0);
        let mut thing = None;
        let mut draft =
            Draft { story: story.to_owned(), topic: None, name: None, words: Vec::new() };
        let head = if kind.0 == Kind::Borderline {
            let (head, of) = random.pick(self.tables.borderline_topics()).split_once(" = ")?;
            thing = Some(of);
            Some(head)
        } else {
            None
        };
        self.swap_names(random, &mut draft);
        self.swap_topic(random, &mut draft, head);
        self.swap_words(random, &mut draft);
        let topic = draft.topic.map(str::to_owned);
        match kind.0 {
            Kind::Topic | Kind::Borderline => request.topic = Some(topic?),
            Kind::Name => (request.topic, request.name) = named(&draft)?,
            Kind::Words => {
                let n = 2 + usize::from(random.percent(40));
                request.words = self.bring_in(random, &mut draft, n)?;
            }
            Kind::Opening => request.opening = Some(self.open(random, &mut draft)?),
            Kind::Ending => (request.topic, request.happy) = (Some(topic?), true),
            Kind::Short => {
                (request.topic, request.short) = (Some(topic?), true);
                self.shorten(random, &mut draft)?;
            }
            _ => match random.below(4) {
                0 | 1 => {
                    request.topic = Some(topic?);
                    draft.words.clear();
                    request.words = self.bring_in(random, &mut draft, 1)?;
                    request.happy = random.percent(50);
                }
                2 => {
                    (request.topic, request.name) = named(&draft)?;
                    request.happy = true;
                }
                _ => {
                    request.opening = Some(self.open(random, &mut draft)?);
                    request.happy = true;
                }
            },
        }
        if request.happy && !Text::new(&draft.story).ends_well() {
            let end = self.sentence(random, "happy end", &hero(&draft)?, "");
            draft.story = format!("{} {end}", draft.story);
        }
        Some(Varied { request, thing, story: draft.story })
    }

    /// Other names for all that are known; the most frequent one is the hero's.
    fn swap_names(&self, random: &mut Random, draft: &mut Draft) {
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        for (word, _) in runs(&draft.story) {
            if let Some((name, _)) = self.names.get_key_value(word) {
                *counts.entry(name).or_default() += 1;
            }
        }
        let mut taken: HashSet<&str> = counts.keys().copied().collect();
        let mut other = BTreeMap::new();
        for name in counts.keys() {
            let who = self.names[name];
            let all: Vec<_> = self
                .names
                .iter()
                .filter(|(name, of)| **of == who && !self.held_out.contains(*name))
                .map(|(name, _)| *name)
                .collect();
            let new = random.pick(&all);
            if taken.insert(new) {
                other.insert((*name).to_owned(), new.to_owned());
            }
        }
        draft.story = exchange(&draft.story, &other);
        let main = counts.iter().max_by_key(|(_, n)| **n).filter(|(_, n)| **n >= 2);
        draft.name = main.and_then(|(name, _)| {
            let new = other.get(*name).map_or(*name, String::as_str);
            let (name, who) = self.names.get_key_value(new)?;
            (!self.held_out.contains(name)).then_some((*name, *who))
        });
    }

    /// Another noun for the one that the story is about; `head`, where that is given.
    fn swap_topic(&self, random: &mut Random, draft: &mut Draft, head: Option<&'static str>) {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (word, _) in runs(&draft.story) {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
        let said = |word: &str| counts.get(word).copied().unwrap_or(0);
        let n = |noun: &str| said(noun) + said(&plural(noun));
        let group_of = |word: &str| {
            TOPICS.iter().find(|group| group.iter().any(|class| self.has(class, word)))
        };
        let group = head.map(|head| group_of(head).unwrap_or(&TOPICS[0]));
        let candidates = TOPICS.iter().filter(|g| group.is_none_or(|group| group == *g));
        let found = candidates
            .flat_map(|group| group.iter().map(move |class| (group, class)))
            .flat_map(|(group, class)| self.sections[class].train.iter().map(move |w| (group, *w)))
            .map(|(group, noun)| (n(noun), group, noun))
            .filter(|(n, _, _)| *n >= MENTIONS)
            .max_by_key(|(n, _, _)| *n);
        let Some((_, group, old)) = found else { return };
        let is_lady = said("she") + said("her") > said("he") + said("his") + said("him");
        let class = match group[0] {
            "animal" if random.percent(ANIMALS) => "animal",
            "animal" => {
                if is_lady {
                    "lady"
                } else {
                    "being"
                }
            }
            _ => random.pick(group),
        };
        let new = head.unwrap_or_else(|| random.pick(&self.class(class)));
        if n(new) > 0 && new != old {
            return;
        }
        draft.story = exchange(&draft.story, &noun_pairs(old, new));
        draft.topic = Some(new);
    }

    /// Other words for a few that are no topic.
    fn swap_words(&self, random: &mut Random, draft: &mut Draft) {
        let words: HashSet<String> =
            runs(&draft.story).map(|(word, _)| word.to_lowercase()).collect();
        let mut found: Vec<(&'static str, &'static str)> = Vec::new();
        for class in SWAPPED {
            let of = self.sections[class].train.iter().filter(|word| words.contains(**word));
            found.extend(of.map(|word| (class, *word)));
        }
        found.retain(|(_, word)| draft.topic != Some(word) && *word != "orange");
        random.shuffle(&mut found);
        let mut other = BTreeMap::new();
        for (class, old) in found.into_iter().take(2) {
            let new = random.pick(&self.class(class));
            if words.contains(new) || draft.words.contains(&new) {
                continue;
            }
            if class == "colour" {
                other.insert(old.to_owned(), new.to_owned());
            } else {
                other.append(&mut noun_pairs(old, new));
            }
            draft.words.push(new);
        }
        draft.story = exchange(&draft.story, &other);
    }

    /// `n` words for a request: some that came into the story in another's place, some in sentences of their own.
    fn bring_in(&self, random: &mut Random, draft: &mut Draft, n: usize) -> Option<Vec<String>> {
        let mut words: Vec<&'static str> = std::mem::take(&mut draft.words);
        random.shuffle(&mut words);
        words.truncate(random.below(n));
        let classes: Vec<&str> =
            self.sections.keys().filter_map(|name| name.strip_prefix("insert ")).collect();
        while words.len() < n {
            let class = random.pick(&classes);
            let of = match class {
                "thing" => random.pick(&["toy", "thing", "clothes", "food", "nature"]),
                class => class,
            };
            let word = random.pick(&self.class(of));
            if words.contains(&word) || draft.topic == Some(word) {
                continue;
            }
            let section = format!("insert {class}");
            let sentence = self.sentence(random, &section, &hero(draft)?, word);
            draft.story = insert(random, &draft.story, &sentence)?;
            words.push(word);
        }
        random.shuffle(&mut words);
        Some(words.into_iter().map(str::to_owned).collect())
    }

    /// A line of a section with a hero and a word in it, which begins with a capital letter.
    fn sentence(&self, random: &mut Random, section: &str, hero: &str, word: &str) -> String {
        let line = random.pick(&self.sections[section].train);
        let text = line
            .replace("{H}", hero)
            .replace("{a}", &with_article(word))
            .replace("{w}", word)
            .replace(" The ", " the ");
        capital(&text)
    }

    /// Another first sentence, or the story's own.
    fn open(&self, random: &mut Random, draft: &mut Draft) -> Option<String> {
        let own = opening(&draft.story);
        let name = draft.name.map(|(name, _)| name);
        let new = match (random.below(4), name, draft.topic) {
            (0, ..) => return own,
            (1, Some(name), _) => {
                let place = random.pick(&self.class("place"));
                let line = random.pick(&self.sections["open name"].train);
                line.replace("{N}", name).replace("{p}", place)
            }
            (1 | 2, None, Some(topic)) => {
                let place = random.pick(&self.class("place"));
                let line = random.pick(&self.sections["open topic"].train);
                line.replace("{T}", &with_article(topic))
                    .replace("{t}", topic)
                    .replace("{p}", place)
                    .replace(" a old", " an old")
            }
            _ => self.borrow(random, draft)?,
        };
        let first_end = draft.story.lines().next()?.find(['.', '!', '?'])? + 1;
        let rest = draft.story[first_end..].trim_start_matches(['"', '\'']);
        if draft.story[..first_end].contains('"') {
            return own;
        }
        draft.story = format!("{new}{rest}");
        Some(new)
    }

    /// The first sentence of another story, of our hero.
    fn borrow(&self, random: &mut Random, draft: &Draft) -> Option<String> {
        for _ in 0..40 {
            let line = &self.openings[random.below(self.openings.len())];
            let names: Vec<_> =
                runs(line).filter_map(|(word, _)| self.names.get_key_value(word)).collect();
            match (names.as_slice(), draft.name) {
                ([], None) => return Some(line.clone()),
                ([(old, of)], Some((new, who))) if **of == who => {
                    let other = [((**old).to_owned(), new.to_owned())].into();
                    return Some(exchange(line, &other));
                }
                _ => {}
            }
        }
        None
    }

    /// The first sentences, and an end.
    fn shorten(&self, random: &mut Random, draft: &mut Draft) -> Option<()> {
        let cuts = cuts(&draft.story);
        let most = 3 + random.below(SHORT.0 - 2);
        let mut end = None;
        for cut in cuts {
            let text = Text::new(&draft.story[..cut]);
            if text.sentences.len() > most || text.words.len() > SHORT.1 {
                break;
            }
            end = Some(cut);
        }
        let first = draft.story[..end?].trim_end();
        let last = self.sentence(random, "happy end", &hero(draft)?, "");
        draft.story = format!("{first} {last}");
        Some(())
    }
}

/// Who the story is about, as a sentence says it.
fn hero(draft: &Draft) -> Option<String> {
    match (draft.name, draft.topic) {
        (Some((name, _)), _) => Some(name.to_owned()),
        (None, Some(topic)) => Some(format!("the {topic}")),
        (None, None) => None,
    }
}

/// "A girl named Lily" of a story whose hero has a name.
fn named(draft: &Draft) -> Option<(Option<String>, Option<String>)> {
    let (name, who) = draft.name?;
    let told = [format!(" named {name}"), format!(" called {name}")]
        .iter()
        .find_map(|phrase| draft.story.split_once(phrase.as_str()))
        .and_then(|(before, _)| before.rsplit(|c: char| !c.is_alphabetic()).next());
    let topic = match (told, who) {
        (Some(noun), _) if noun.len() > 2 && draft.topic.is_none_or(|topic| topic == noun) => noun,
        (_, 'f') => "girl",
        (_, 'm') => "boy",
        _ => return None,
    };
    Some((Some(topic.to_owned()), Some(name.to_owned())))
}

/// The singular and plural of a noun, and what stands in their place.
fn noun_pairs(old: &str, new: &str) -> BTreeMap<String, String> {
    [(old.to_owned(), new.to_owned()), (plural(old), plural(new))].into()
}

/// Letters in a row, and where they begin.
fn runs(text: &str) -> impl Iterator<Item = (&str, usize)> {
    text.split(|c: char| !c.is_alphabetic())
        .filter(|run| !run.is_empty())
        .map(move |run| (run, run.as_ptr() as usize - text.as_ptr() as usize))
}

/// Whole words exchanged for others, in small letters or with a capital; "a" before them is set right.
fn exchange(text: &str, other: &BTreeMap<String, String>) -> String {
    let (mut new, mut done) = (String::new(), 0);
    for (word, at) in runs(text) {
        let put = match other.get(word) {
            Some(put) => put.clone(),
            None => match other.get(&word.to_lowercase()) {
                Some(put) if word.starts_with(char::is_uppercase) => capital(put),
                _ => continue,
            },
        };
        new += &text[done..at];
        done = at + word.len();
        for article in ["a", "A"] {
            let before = |article: &str| new.strip_suffix(&format!("{article} ")).map(str::len);
            let len = before(&format!("{article}n")).or_else(|| before(article));
            let Some(len) = len.filter(|&len| !new[..len].ends_with(char::is_alphabetic)) else {
                continue;
            };
            new.truncate(len);
            let n =
                if put.to_lowercase().starts_with(['a', 'e', 'i', 'o', 'u']) { "n " } else { " " };
            new += article;
            new += n;
        }
        new += &put;
    }
    new + &text[done..]
}

fn capital(text: &str) -> String {
    let at = text.find(char::is_alphabetic).unwrap_or(0);
    let (first, rest) = text[at..].split_at(text[at..].chars().next().map_or(0, char::len_utf8));
    format!("{}{}{rest}", &text[..at], first.to_uppercase())
}

/// Places after a sentence, outside of quotes, before a capital letter.
fn cuts(story: &str) -> Vec<usize> {
    let mut quotes = 0;
    let mut cuts = Vec::new();
    let bytes = story.as_bytes();
    for i in 0..bytes.len() {
        quotes += usize::from(bytes[i] == b'"');
        let ends = matches!(bytes[i], b'.' | b'!' | b'?')
            || (i > 0 && bytes[i] == b'"' && matches!(bytes[i - 1], b'.' | b'!' | b'?'));
        let next = bytes.get(i + 2).is_some_and(u8::is_ascii_uppercase);
        if ends && quotes % 2 == 0 && matches!(bytes.get(i + 1), Some(b' ' | b'\n')) && next {
            cuts.push(i + 1);
        }
    }
    cuts
}

/// A sentence put in somewhere before the last third.
fn insert(random: &mut Random, story: &str, sentence: &str) -> Option<String> {
    let mut cuts = cuts(story);
    cuts.retain(|&cut| cut * 3 < story.len() * 2);
    let at = (!cuts.is_empty()).then(|| random.pick(&cuts))?;
    Some(format!("{} {sentence}{}", &story[..at], &story[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_are_exchanged_with_their_articles() {
        let other = [("dog", "owl"), ("dogs", "owls"), ("Tim", "Gus")]
            .map(|(old, new)| (old.to_owned(), new.to_owned()));
        let text = "A dog, an old dog's bone, dogs and a hotdog. Dogs like Tim. A big dog.";
        let expected = "An owl, an old owl's bone, owls and a hotdog. Owls like Gus. A big owl.";
        assert_eq!(exchange(text, &other.into()), expected);
    }

    #[test]
    fn sentences_are_put_between_sentences_outside_of_quotes() {
        let story = "A dog ran. \"Stop! Wait!\" said Tim. He was fast. They sat. They ate. It was late now.";
        let at: Vec<_> = cuts(story).into_iter().map(|cut| &story[..cut]).collect();
        assert_eq!(at[0], "A dog ran. \"Stop! Wait!\" said Tim.");
        assert_eq!(at.len(), 4);
        let new = insert(&mut Random::new(1), story, "So!").unwrap();
        assert_eq!(new.replace(" So!", ""), story);
    }

    /// What a request asks for is in the story, and nothing of it is held out.
    #[test]
    fn edited_stories_answer_their_requests() {
        let tables = Tables::new();
        let story = "Once upon a time, there was a little dog named Spot. Spot had a red ball. One day, the dog lost \
                     the ball in the park. The dog was sad. Then a bird came. \"I see it!\" said the bird. The bird \
                     gave the ball to Spot. The dog smiled. They played all day and were friends.";
        let editor = Editor::new(&tables, &[story.to_owned()]);
        let mut random = Random::new(3);
        let mut kinds = std::collections::BTreeSet::new();
        for _ in 0..400 {
            let Some(Varied { request, story, .. }) = editor.vary(&mut random, story) else {
                continue;
            };
            let text = Text::new(&story);
            let missed = text.conditions(&request).into_iter().filter(|(_, met)| !met).count();
            assert!(missed == 0, "{request:?} {story}");
            // A poison apple is another topic than an apple.
            kinds.insert(request.kind);
            if request.kind == Kind::Borderline {
                continue;
            }
            let named = request.words.iter().chain(&request.topic).chain(&request.name);
            assert!(
                named.clone().all(|word| !editor.held_out.contains(word.as_str())),
                "{request:?}"
            );
        }
        assert_eq!(kinds.len(), KINDS.len(), "{kinds:?}");
    }
}
