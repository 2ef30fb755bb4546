//! The words of a text, for filters and for what is nearly the same text.

/// The words of `text`: runs of letters, digits and apostrophes inside them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || is_apostrophe(c)))
        .map(|word| word.trim_matches(is_apostrophe))
        .filter(|word| !word.is_empty())
}

fn is_apostrophe(c: char) -> bool {
    c == '\'' || c == '’'
}

/// A word in small letters, with one kind of apostrophe, written over `to`.
pub(crate) fn normal<'t>(word: &str, to: &'t mut String) -> &'t str {
    to.clear();
    for c in word.chars() {
        match c {
            '’' => to.push('\''),
            c if c.is_ascii() => to.push(c.to_ascii_lowercase()),
            c => to.extend(c.to_lowercase()),
        }
    }
    to
}

/// The paragraphs of `text`: stretches between blank lines, without them.
pub(crate) fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (paragraph, after) = cut_paragraph(rest);
            rest = after;
            if !paragraph.trim().is_empty() {
                return Some(paragraph);
            }
        }
        None
    })
}

/// `text` up to its first blank line, and what follows that line.
fn cut_paragraph(text: &str) -> (&str, &str) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() {
            return (text[..at].trim_end_matches(['\n', '\r']), &text[at + line.len()..]);
        }
        at += line.len();
    }
    (text.trim_end_matches(['\n', '\r']), "")
}

/// `text` without the blank lines at its beginning and the space at its end.
pub(crate) fn trimmed(text: &str) -> &str {
    let first = text.len() - text.trim_start().len();
    let line_start = text[..first].rfind('\n').map_or(0, |at| at + 1);
    text[line_start..].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters() {
        let cases: [(&str, &[&str]); 5] = [
            ("", &[]),
            ("- ' -", &[]),
            ("\"It's the dogs' day,\" he said.", &["It's", "the", "dogs", "day", "he", "said"]),
            ("Zoë ’tis", &["Zoë", "tis"]),
            ("3 little-pigs_x", &["3", "little", "pigs", "x"]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
        assert_eq!(normal("DON’T Ä", &mut String::new()), "don't ä");
    }

    #[test]
    fn paragraphs_stand_between_blank_lines() {
        let cases: [(&str, &[&str]); 5] = [
            ("", &[]),
            ("\n \n", &[]),
            ("a\nb", &["a\nb"]),
            ("a\r\n\r\nb\n \n\n c\n", &["a", "b", " c"]),
            ("\n\na\n\nb", &["a", "b"]),
        ];
        for (text, expected) in cases {
            assert_eq!(paragraphs(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn blank_lines_around_a_text_are_not_of_it() {
        for (text, expected) in
            [("", ""), (" \n\n", ""), ("\n \n  a \n b\n\n", "  a \n b"), (" a", " a"), ("a", "a")]
        {
            assert_eq!(trimmed(text), expected, "{text:?}");
        }
    }
}
