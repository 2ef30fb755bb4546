//! Text of others' making, made fit to be shown: a terminal obeys control characters, and marks of writing direction
//! make a line read otherwise than it is.

/// Most characters of a line.
const MAX_LINE: usize = 300;

/// `text` as one line of at most [`MAX_LINE`] characters.
pub(crate) fn line(text: &str) -> String {
    text.trim().chars().filter(|&c| is_harmless(c)).take(MAX_LINE).collect()
}

/// All of `text`, with its line ends and tabs.
pub(crate) fn lines(text: &str) -> String {
    text.chars().filter(|&c| is_harmless(c) || matches!(c, '\n' | '\t')).collect()
}

fn is_harmless(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        let text = "a\x1b[2Jb\r\n\tc\x07\u{9b}d\u{202e}é";
        assert_eq!(lines(text), "a[2Jb\n\tcdé");
        assert_eq!(line(text), "a[2Jbcdé");
        assert_eq!(line(&"x".repeat(1000)).len(), MAX_LINE);
    }
}
