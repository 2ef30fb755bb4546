//! Filters of one document: script and words. What is shorter than it may be is dropped last, when all else is cut away.

use std::collections::HashSet;
use std::path::Path;

use unicode_script::UnicodeScript;

use crate::DataError;
use crate::config::{Filter, ScriptFilter, WordAction, WordUnit, resolve};
use crate::manifest::Removed;
use crate::words::{normal, paragraphs, words};

/// Most bytes of a list of words.
const MAX_LIST_BYTES: u64 = 1 << 26;

/// The filters of a source, with their list of words read.
pub(crate) struct Filters {
    script: Option<ScriptFilter>,
    words: Option<Words>,
    /// In characters.
    pub(crate) min_chars: usize,
}

struct Words {
    list: HashSet<String>,
    action: WordAction,
    unit: WordUnit,
}

/// What the filters say of a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What is left of its text; `None` where that is nothing.
    pub(crate) text: Option<String>,
    /// What is not left.
    pub(crate) removed: Removed,
    /// Documents or paragraphs with a listed word that are only counted.
    pub(crate) counted_words: u64,
}

impl Filters {
    pub(crate) fn open(filter: &Filter, root: &Path) -> Result<Self, DataError> {
        let words = filter.words.as_ref().map(|words| {
            let list = read_list(&resolve(root, &words.list))?;
            Ok::<_, DataError>(Words { list, action: words.action, unit: words.unit })
        });
        Ok(Self {
            script: filter.script.clone(),
            words: words.transpose()?,
            min_chars: filter.min_chars,
        })
    }

    /// Looks at a document.
    pub(crate) fn apply(&self, text: String) -> Verdict {
        let mut verdict = Verdict::default();
        if self.script.as_ref().is_some_and(|script| !is_written_in(&text, script)) {
            verdict.removed.script.add(text.len());
            return verdict;
        }
        match &self.words {
            None => verdict.text = Some(text),
            Some(words) => words.apply(text, &mut verdict),
        }
        verdict
    }
}

impl Words {
    fn apply(&self, text: String, verdict: &mut Verdict) {
        let mut word = String::new();
        let mut has_word =
            |text: &str| words(text).any(|w| self.list.contains(normal(w, &mut word)));
        let (bad, good): (Vec<&str>, Vec<&str>) = match self.unit {
            WordUnit::Document => [text.as_str()].into_iter().partition(|text| has_word(text)),
            WordUnit::Paragraph => paragraphs(&text).partition(|paragraph| has_word(paragraph)),
        };
        if self.action == WordAction::Count || bad.is_empty() {
            verdict.counted_words = bad.len() as u64;
            verdict.text = Some(text);
            return;
        }
        bad.iter().for_each(|unit| verdict.removed.words.add(unit.len()));
        verdict.text = (!good.is_empty()).then(|| good.join("\n\n"));
    }
}

/// Whether enough of the letters are of the script. A text without letters is written in none.
fn is_written_in(text: &str, script: &ScriptFilter) -> bool {
    let letters = text.chars().filter(|c| c.is_alphabetic());
    let (n, of_script) = letters.fold((0u64, 0u64), |(n, of_script), c| {
        (n + 1, of_script + u64::from(c.script() == script.name))
    });
    n > 0 && of_script as f64 >= script.min_share * n as f64
}

fn read_list(path: &Path) -> Result<HashSet<String>, DataError> {
    let text = crate::read::read_small(path, MAX_LIST_BYTES)?;
    let mut list = HashSet::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut found = words(line);
        if found.next() != Some(line) {
            let place = format!("{}: line {}", path.display(), i + 1);
            return Err(DataError::input(place, "one word", format!("{line:?}")));
        }
        list.insert(normal(line, &mut String::new()).to_owned());
    }
    if list.is_empty() {
        return Err(DataError::input(path.display(), "a word a line", "none"));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use unicode_script::Script;

    use super::*;

    fn listed(action: WordAction, unit: WordUnit) -> Filters {
        let list = ["mud", "don't"].map(str::to_owned).into();
        Filters { script: None, words: Some(Words { list, action, unit }), min_chars: 0 }
    }

    #[test]
    fn listed_words_are_dropped_or_counted() {
        use WordAction::{Count, Drop};
        use WordUnit::{Document, Paragraph};
        let text = "A muddy road.\n\nMUD!\n\nClean.\n\nWe DON’T.";
        let cases = [
            (Drop, Document, text, None, (1, 0)),
            (Count, Document, text, Some(text), (0, 1)),
            (Drop, Paragraph, text, Some("A muddy road.\n\nClean."), (2, 0)),
            (Count, Paragraph, text, Some(text), (0, 2)),
            (Drop, Paragraph, "mud", None, (1, 0)),
            (Drop, Paragraph, "a\n\n\n\nb", Some("a\n\n\n\nb"), (0, 0)),
        ];
        for (action, unit, text, left, n) in cases {
            let verdict = listed(action, unit).apply(text.to_owned());
            assert_eq!(verdict.text.as_deref(), left, "{action:?} {unit:?}");
            assert_eq!((verdict.removed.words.n, verdict.counted_words), n, "{action:?} {unit:?}");
        }
    }

    #[test]
    fn the_script_of_letters_counts() {
        let latin = ScriptFilter { name: Script::Latin, min_share: 0.75 };
        for (text, expected) in
            [("abc д 123 !?", true), ("ab да", false), ("123", false), ("äöß", true)]
        {
            assert_eq!(is_written_in(text, &latin), expected, "{text}");
        }
    }
}
