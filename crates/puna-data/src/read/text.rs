//! Plain text: documents with a marker line between them.

use super::{Lines, RawDocument, to_text};
use crate::DataError;
use crate::config::InvalidUtf8;

pub(crate) struct TextReader {
    pub(super) lines: Lines,
    pub(super) marker: String,
    pub(super) invalid: InvalidUtf8,
}

impl TextReader {
    /// What stands up to the next marker, or to the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<RawDocument>, DataError> {
        let place = self.lines.place(self.lines.number + 1);
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            if !self.lines.next_to(&mut bytes)? {
                if start == 0 {
                    return Ok(None);
                }
                break;
            }
            if bytes[start..].trim_ascii() == self.marker.as_bytes() {
                bytes.truncate(start);
                break;
            }
        }
        let (text, n_replaced) = to_text(bytes, self.invalid, &place)?;
        Ok(Some(RawDocument { text, n_replaced, group: None }))
    }
}
