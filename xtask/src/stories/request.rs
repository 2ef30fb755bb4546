//! What is asked for, as data; the tables of what it may be made of; and the generator of numbers that chooses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What kind of request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A story about a topic.
    Topic,
    /// About somebody with a name.
    Name,
    /// With some words.
    Words,
    /// With a first sentence.
    Opening,
    /// About a topic, ending well.
    Ending,
    /// Of several of these.
    Combined,
    /// About a topic, and very short.
    Short,
    /// A story whose words sound dangerous.
    Borderline,
    /// Something that is no story.
    OffTopic,
    /// The same, as people put it.
    Question,
    /// Something that harms.
    Unsafe,
    /// "Hello!"
    SmallTalk,
}

/// What an answer should be.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Expected {
    /// A story.
    Story,
    /// A sentence on what can be asked for.
    Redirect,
    /// A friendly no.
    Decline,
    /// A sentence or two.
    SmallTalk,
}

impl Kind {
    /// All kinds, in the order of reports.
    pub(super) const ALL: [Self; 12] = [
        Self::Topic,
        Self::Name,
        Self::Words,
        Self::Opening,
        Self::Ending,
        Self::Combined,
        Self::Short,
        Self::Borderline,
        Self::OffTopic,
        Self::Question,
        Self::Unsafe,
        Self::SmallTalk,
    ];

    /// What an answer to it should be.
    pub(super) fn expected(self) -> Expected {
        match self {
            Self::OffTopic | Self::Question => Expected::Redirect,
            Self::Unsafe => Expected::Decline,
            Self::SmallTalk => Expected::SmallTalk,
            _ => Expected::Story,
        }
    }

    /// As it stands in files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Name => "name",
            Self::Words => "words",
            Self::Opening => "opening",
            Self::Ending => "ending",
            Self::Combined => "combined",
            Self::Short => "short",
            Self::Borderline => "borderline",
            Self::OffTopic => "off_topic",
            Self::Question => "question",
            Self::Unsafe => "unsafe",
            Self::SmallTalk => "small_talk",
        }
    }
}

/// A request. Of a story it says all that the story must keep to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) kind: Kind,
    /// A noun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) words: Vec<String>,
    /// The first sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opening: Option<String>,
    /// Ends well.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) happy: bool,
    /// Very short.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) short: bool,
    /// Its topic, name or words are of those that no request for training has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) unseen: bool,
    /// Of unsafe requests: which section of the table it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) form: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Request {
    /// Nothing but its kind.
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            topic: None,
            name: None,
            words: Vec::new(),
            opening: None,
            happy: false,
            short: false,
            unseen: false,
            form: None,
        }
    }
}

/// Entries of a table: for training, and kept for the held-out requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    pub(super) train: Vec<&'static str>,
    pub(super) held_out: Vec<&'static str>,
}

impl Entries {
    /// Of one side.
    pub(super) fn of(&self, held_out: bool) -> &[&'static str] {
        if held_out { &self.held_out } else { &self.train }
    }
}

/// Reads a table: `[section]`, then an entry a line, `*` before those that are held out, `#` before remarks. Entries
/// before the first section are in the section "".
pub(super) fn table(text: &'static str) -> BTreeMap<&'static str, Entries> {
    let mut sections: BTreeMap<&str, Entries> = BTreeMap::new();
    let mut section = "";
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some(entry) = line.strip_prefix("* ") {
            sections.entry(section).or_default().held_out.push(entry);
        } else if !line.starts_with('#') {
            sections.entry(section).or_default().train.push(line);
        }
    }
    sections
}

/// SplitMix64 (Steele et al., "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Whether one of so many hundred chances comes.
    pub(super) fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    /// One of them.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
