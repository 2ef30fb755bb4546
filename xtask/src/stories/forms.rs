//! Forms of a word by rules of English spelling and a table of what has no rule: what judge A takes for the same word.

use std::collections::HashSet;

/// Plurals and pasts without a rule.
const IRREGULAR: &[(&str, &[&str])] = &[
    ("child", &["children"]),
    ("fisherman", &["fishermen"]),
    ("knife", &["knives"]),
    ("leaf", &["leaves"]),
    ("man", &["men"]),
    ("mouse", &["mice"]),
    ("policeman", &["policemen"]),
    ("snowman", &["snowmen"]),
    ("thief", &["thieves"]),
    ("wolf", &["wolves"]),
    ("woman", &["women"]),
    ("dream", &["dreamt"]),
    ("hide", &["hid", "hidden"]),
    ("ring", &["rang"]),
    ("swing", &["swung"]),
];

/// The word, its plurals and possessives.
pub(super) fn noun_forms(noun: &str) -> HashSet<String> {
    let mut forms: HashSet<String> =
        [noun.to_owned(), format!("{noun}s"), format!("{noun}es")].into();
    if let Some(stem) = noun.strip_suffix('y') {
        forms.insert(format!("{stem}ies"));
    }
    if let Some((_, irregular)) = IRREGULAR.iter().find(|(word, _)| *word == noun) {
        forms.extend(irregular.iter().map(|&form| form.to_owned()));
    }
    let possessives: Vec<_> =
        forms.iter().flat_map(|form| [format!("{form}'s"), format!("{form}'")]).collect();
    forms.extend(possessives);
    forms
}

/// The word as a noun and as a verb.
pub(super) fn word_forms(word: &str) -> HashSet<String> {
    let mut forms = noun_forms(word);
    let last = word.chars().next_back().unwrap_or_default();
    let mut stems = vec![word.to_owned(), format!("{word}{last}")];
    stems.extend(word.strip_suffix('e').map(str::to_owned));
    for stem in &stems {
        forms.extend(["ed", "ing"].map(|suffix| format!("{stem}{suffix}")));
    }
    forms.extend(word.strip_suffix('y').map(|stem| format!("{stem}ied")));
    forms
}

#[cfg(test)]
mod tests {
    use super::{noun_forms, word_forms};

    #[test]
    fn forms_are_those_of_the_word() {
        for (noun, form) in [
            ("fairy", "fairies"),
            ("mouse", "mice"),
            ("fox", "foxes"),
            ("dog", "dogs'"),
            ("wolf", "wolf's"),
        ] {
            assert!(noun_forms(noun).contains(form), "{noun}");
        }
        for (word, form) in [
            ("hug", "hugged"),
            ("share", "sharing"),
            ("carry", "carried"),
            ("hop", "hopping"),
            ("red", "red"),
        ] {
            assert!(word_forms(word).contains(form), "{word}");
        }
        assert!(!noun_forms("cat").contains("cattle") && !word_forms("ball").contains("balloon"));
    }
}
