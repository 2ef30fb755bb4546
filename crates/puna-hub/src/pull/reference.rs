//! What a user types to name a repository.

use super::PullError;
use crate::store::{DEFAULT_REVISION, Typed};

/// A repository, and what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The repository's owner.
    pub org: String,
    /// The repository.
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// A file or a type; `None` for the repository's one model.
    pub wanted: Option<String>,
}

/// What may stand before a repository's name, as it is copied from a browser.
const PREFIXES: [&str; 5] = [
    "https://huggingface.co/",
    "http://huggingface.co/",
    "huggingface.co/",
    "https://hf.co/",
    "hf.co/",
];

impl Reference {
    /// Reads `ORG/NAME[@REVISION][:FILE|:TYPE]`, or the address of a repository's page.
    ///
    /// # Errors
    /// [`PullError::Reference`].
    pub fn parse(text: &str) -> Result<Self, PullError> {
        let bad = || PullError::Reference { found: text.to_owned() };
        let prefix = PREFIXES.iter().find(|prefix| text.starts_with(*prefix));
        let rest = prefix.map_or(text, |prefix| &text[prefix.len()..]);
        let typed = Typed::parse(rest.trim_end_matches('/')).ok_or_else(bad)?;
        let owned = |part: &str| part.to_owned();
        Ok(Self {
            org: typed.org.map(owned).ok_or_else(bad)?,
            name: typed.name.to_owned(),
            revision: typed.revision.unwrap_or(DEFAULT_REVISION).to_owned(),
            wanted: typed.tag.map(owned),
        })
    }

    /// `ORG/NAME`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_as_people_type_them() {
        let check = |text: &str, expected: (&str, &str, Option<&str>)| {
            let found = Reference::parse(text).unwrap();
            let parts = (&*found.repository(), &*found.revision, found.wanted.as_deref());
            assert_eq!(parts, expected, "{text}");
        };
        check("o/n", ("o/n", "main", None));
        check("o/n:Q4_0", ("o/n", "main", Some("Q4_0")));
        check("o/n:sub/a.gguf", ("o/n", "main", Some("sub/a.gguf")));
        check("o/n@refs/pr/2:a.gguf", ("o/n", "refs/pr/2", Some("a.gguf")));
        check("https://huggingface.co/o/n/", ("o/n", "main", None));
        check("hf.co/o/n:Q8_0", ("o/n", "main", Some("Q8_0")));
        for bad in ["", "n", "o/", "/n", "o/n/m", "../n", "o/n:", "https://example.com/o/n"] {
            let message = Reference::parse(bad).unwrap_err().to_string();
            assert!(message.starts_with("expected ORG/NAME"), "{message}");
        }
    }
}
