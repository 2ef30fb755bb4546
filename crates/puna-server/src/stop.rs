//! Stop strings: text that ends an answer and is not part of it, found across the borders of tokens.

/// Most stop strings of a request.
pub(crate) const MAX_STOPS: usize = 16;
/// Most bytes of one.
pub(crate) const MAX_STOP_BYTES: usize = 1024;

/// Holds back what may be the beginning of a stop string.
pub(crate) struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// `stops` are not empty strings.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes text and appends to `out` what is certain to be part of the answer. Returns whether a stop string was found:
    /// then the answer ends before the earliest of them.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> bool {
        self.held.push_str(text);
        if let Some(start) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            out.push_str(&self.held[..start]);
            self.held.clear();
            return true;
        }
        let n_kept = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let n_certain = self.held.len() - n_kept;
        out.extend(self.held.drain(..n_certain));
        false
    }

    /// The answer has ended otherwise: what was held back is part of it.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&std::mem::take(&mut self.held));
    }
}

/// Bytes of the longest end of `text` that `stop` begins with, shorter than `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let starts = text.char_indices().map(|(start, _)| start);
    let may_be =
        |&start: &usize| text.len() - start < stop.len() && stop.starts_with(&text[start..]);
    starts.filter(may_be).map(|start| text.len() - start).next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The answer, in one piece, and whether a stop string ended it.
    fn run(stops: &[String], parts: &[String]) -> (String, bool) {
        let mut matcher = StopStrings::new(stops.to_vec());
        let mut out = String::new();
        for part in parts {
            if matcher.push(part, &mut out) {
                return (out, true);
            }
        }
        matcher.finish(&mut out);
        (out, false)
    }

    #[test]
    fn text_is_held_back_only_as_long_as_it_must_be() {
        let mut matcher = StopStrings::new(vec!["\n\nUser".into(), "äx".into()]);
        let mut out = String::new();
        for (part, certain) in
            [("a\n", "a"), ("\n", "a"), ("Us", "a"), ("h", "a\n\nUsh"), ("ä", "a\n\nUsh")]
        {
            assert!(!matcher.push(part, &mut out));
            assert_eq!(out, certain, "after {part:?}");
        }
        assert!(matcher.push("xyz", &mut out));
        assert_eq!(out, "a\n\nUsh");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// However the text is cut, the answer ends before the stop string that is complete first in the whole of it.
        #[test]
        fn cuts_make_no_difference(
            stops in prop::collection::vec("[abä]{1,4}", 0..4),
            parts in prop::collection::vec("[abä]{0,3}", 0..20),
        ) {
            let text = parts.concat();
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let whole = stops.iter().filter_map(|stop| Some((text.find(stop)? + stop.len(), stop)));
            // One character at a time: a stop string that is complete earlier wins over one that began earlier.
            let first_end = whole.map(|(end, _)| end).min();
            let (by_char, stopped) = run(&stops, &chars);
            prop_assert_eq!(stopped, first_end.is_some());
            if let Some(end) = first_end {
                let start = stops.iter().filter(|s| text[..end].ends_with(*s)).map(|s| end - s.len()).min();
                prop_assert_eq!(Some(by_char.len()), start);
            } else {
                prop_assert_eq!(&by_char, &text);
            }
            // In other parts, it is at least one of the stop strings that ends it, at its earliest place.
            let (found, stopped) = run(&stops, &parts);
            prop_assert_eq!(stopped, first_end.is_some());
            prop_assert!(text.starts_with(&found));
            prop_assert!(stops.iter().all(|stop| !found.contains(stop)));
        }
    }
}
