//! What can be wrong with a record, and what is done about it.

use std::collections::BTreeMap;
use std::fmt;

use crate::DataError;

/// What to do with a record that is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnProblem {
    /// End with an error that names the place.
    #[default]
    Refuse,
    /// Leave it out, and count.
    Skip,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// Bytes that are no JSON object.
    Json,
    /// A field that is missing or of another type.
    Field,
    /// Bytes or a value where text should be.
    NotText,
    /// A speaker who is no system, user or assistant.
    UnknownRole,
    /// Messages that do not follow each other as a dialogue's do.
    RoleOrder,
    /// A prompt without text.
    EmptyPrompt,
    /// An answer without text.
    EmptyAnswer,
    /// A pair whose answers are the same text.
    EqualAnswers,
    /// A pair of answers to different prompts.
    DifferentPrompts,
    /// A label that is asked for and not there.
    MissingLabel,
    /// A label that means nothing.
    BadLabel,
    /// A pair whose chosen answer is unsafe and whose rejected one is safe. The paper leaves them out (arXiv
    /// 2307.09288, section 3.2.1).
    UnsafeChosen,
}

impl ProblemKind {
    /// In a few words, after "record with".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "invalid JSON",
            Self::Field => "a missing or wrong field",
            Self::NotText => "something else than text",
            Self::UnknownRole => "an unknown role",
            Self::RoleOrder => "roles out of order",
            Self::EmptyPrompt => "an empty prompt",
            Self::EmptyAnswer => "an empty answer",
            Self::EqualAnswers => "equal answers",
            Self::DifferentPrompts => "different prompts",
            Self::MissingLabel => "a missing label",
            Self::BadLabel => "a bad label",
            Self::UnsafeChosen => "the unsafe answer chosen",
        }
    }
}

/// How often a problem was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Records.
    pub n: u64,
    /// Place, expected and found of the first.
    pub first: String,
}

/// The records that were left out, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    by_kind: BTreeMap<ProblemKind, Found>,
}

impl Problems {
    pub(super) fn add(&mut self, kind: ProblemKind, error: DataError) {
        let first = || Found { n: 0, first: error.to_string() };
        self.by_kind.entry(kind).or_insert_with(first).n += 1;
    }

    /// Adds what was found in another file, read after this one.
    pub fn merge(&mut self, other: Self) {
        for (kind, found) in other.by_kind {
            let n = found.n;
            self.by_kind.entry(kind).or_insert(Found { n: 0, ..found }).n += n;
        }
    }

    /// Records left out.
    #[must_use]
    pub fn n_records(&self) -> u64 {
        self.by_kind.values().map(|found| found.n).sum()
    }

    /// Each kind that was found.
    pub fn iter(&self) -> impl Iterator<Item = (ProblemKind, &Found)> {
        self.by_kind.iter().map(|(&kind, found)| (kind, found))
    }
}

/// A line for each kind; nothing where there is none.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, found)) in self.iter().enumerate() {
            let (end, s) = (if i == 0 { "" } else { "\n" }, if found.n == 1 { "" } else { "s" });
            write!(f, "{end}{} record{s} with {}, first {}", found.n, kind.name(), found.first)?;
        }
        Ok(())
    }
}

/// What is wrong with one record.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: ProblemKind,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Fault {
    pub(super) fn new(
        kind: ProblemKind,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self { kind, expected: expected.to_string(), found: found.to_string() }
    }
}
