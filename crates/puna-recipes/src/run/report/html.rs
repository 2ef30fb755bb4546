//! Text inside HTML.

use std::fmt::{self, Write};

/// Text that is shown as it is, whatever it holds.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            '\n' | '\t' => f.write_char(c),
            // HTML has no control characters.
            c if c.is_control() => f.write_char('\u{fffd}'),
            c => f.write_char(c),
        })
    }
}

/// At most `n` characters of a text, with an ellipsis for the rest.
pub(super) fn cut(text: &str, n: usize) -> String {
    match text.char_indices().nth(n) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        let text = "<script>'a' & \"b\"\n\u{0}\u{1b}é</script>";
        let shown =
            "&lt;script&gt;&#39;a&#39; &amp; &quot;b&quot;\n\u{fffd}\u{fffd}é&lt;/script&gt;";
        assert_eq!(Text(text).to_string(), shown);
        assert_eq!((cut("héé", 2), cut("héé", 3)), ("hé…".to_owned(), "héé".to_owned()));
    }
}
