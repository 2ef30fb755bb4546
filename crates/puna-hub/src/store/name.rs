//! How a model of a repository is called: `org/name`, `org/name:Q4_K_M`, `org/name@v2:Q4_K_M`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The revision that is meant when none is said, and that names do not mention.
pub const DEFAULT_REVISION: &str = "main";

/// Most characters of each part.
const MAX_PART: usize = 96;

/// The name of a pulled model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelName {
    /// The repository's owner.
    pub org: String,
    /// The repository.
    pub name: String,
    /// The branch, tag or commit it was pulled from.
    pub revision: String,
    /// Which of the repository's models: its type or file; `None` for the repository's one model.
    pub tag: Option<String>,
}

impl ModelName {
    /// The repository, `org/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }

    /// The one model that is called exactly as typed; `None` if no owner was.
    pub(super) fn from_typed(typed: &Typed<'_>) -> Option<Self> {
        Some(Self {
            org: typed.org?.to_owned(),
            name: typed.name.to_owned(),
            revision: typed.revision.unwrap_or(DEFAULT_REVISION).to_owned(),
            tag: typed.tag.map(str::to_owned),
        })
    }

    /// Whether this model may be meant by `typed`: parts that were not typed count as equal, and case never counts.
    pub(super) fn answers_to(&self, typed: &Typed<'_>) -> bool {
        let same =
            |typed: Option<&str>, own: &str| typed.is_none_or(|t| t.eq_ignore_ascii_case(own));
        same(typed.org, &self.org)
            && same(Some(typed.name), &self.name)
            && typed.revision.is_none_or(|revision| revision == self.revision)
            && typed.tag.is_none_or(|t| self.tag.as_ref().is_some_and(|own| same(Some(t), own)))
    }

    /// A file name that only models of this revision and tag of their repository have.
    pub(super) fn file_stem(&self) -> String {
        let tag = self.tag.as_deref().map(encode).unwrap_or_default();
        if self.revision == DEFAULT_REVISION && !tag.is_empty() {
            return tag;
        }
        format!("{tag}@{}", encode(&self.revision))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)?;
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        self.tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

/// A name as typed, whose parts may be missing: `[org/]name[@revision][:tag]`.
pub(crate) struct Typed<'a> {
    pub(crate) org: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) revision: Option<&'a str>,
    pub(crate) tag: Option<&'a str>,
}

impl<'a> Typed<'a> {
    /// Takes a name apart; `None` if it can be no model's.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (rest, tag) = match text.split_once(':') {
            Some((rest, tag)) => (rest, Some(tag)),
            None => (text, None),
        };
        let (path, revision) = match rest.split_once('@') {
            Some((path, revision)) => (path, Some(revision)),
            None => (rest, None),
        };
        let (org, name) = match path.split_once('/') {
            Some((org, name)) => (Some(org), name),
            None => (None, path),
        };
        let parts_are_sound = is_part(name) && org.is_none_or(is_part);
        let rest_is_sound = [revision, tag].into_iter().flatten().all(|part| !part.is_empty());
        (parts_are_sound && rest_is_sound).then_some(Self { org, name, revision, tag })
    }
}

/// Whether `part` can be an owner's or a repository's name: letters, digits, `-`, `_` and `.`, as the hub has them,
/// and nothing that means another folder.
pub(crate) fn is_part(part: &str) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_PART).contains(&part.len())
        && part.chars().all(sound)
        && !part.starts_with('.')
        && !part.ends_with('.')
}

/// `text` with all but letters, digits, `-`, `_` and `.` as `%` and two hexadecimal digits a byte; a first `.` too,
/// which could mean another folder.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if plain && (byte != b'.' || !out.is_empty()) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(revision: &str, tag: Option<&str>) -> ModelName {
        let (org, name, revision) = ("Org".to_owned(), "Llama-2".to_owned(), revision.to_owned());
        ModelName { org, name, revision, tag: tag.map(str::to_owned) }
    }

    #[test]
    fn names_are_shown_and_stored_apart() {
        let cases = [
            (name("main", None), "Org/Llama-2", "@main"),
            (name("main", Some("Q4_0")), "Org/Llama-2:Q4_0", "Q4_0"),
            (name("main", Some("..")), "Org/Llama-2:..", "%2E."),
            (
                name("refs/pr/1", Some("a b.bin")),
                "Org/Llama-2@refs/pr/1:a b.bin",
                "a%20b.bin@refs%2Fpr%2F1",
            ),
        ];
        for (name, shown, stem) in cases {
            assert_eq!((&*name.to_string(), &*name.file_stem()), (shown, stem));
            let typed = Typed::parse(shown).unwrap();
            assert!(name.answers_to(&typed), "{shown}");
        }
    }

    #[test]
    fn parts_that_were_not_typed_do_not_count() {
        let model = name("main", Some("Q4_0"));
        for typed in ["llama-2", "org/llama-2", "Llama-2:q4_0", "Llama-2@main"] {
            assert!(model.answers_to(&Typed::parse(typed).unwrap()), "{typed}");
        }
        for typed in ["llama", "other/llama-2", "llama-2:q4_1", "llama-2@v2"] {
            assert!(!model.answers_to(&Typed::parse(typed).unwrap()), "{typed}");
        }
        for typed in ["", "a/b/c", "../x", "a b", "x:", "x@", ".hidden", "a/"] {
            assert!(Typed::parse(typed).is_none(), "{typed}");
        }
    }
}
