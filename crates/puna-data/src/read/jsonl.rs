//! JSONL: an object a line.

use serde_json::{Map, Value};

use super::{Fields, Lines, Place, RawDocument, to_text};
use crate::DataError;
use crate::config::InvalidUtf8;

pub(crate) struct JsonlReader {
    pub(super) lines: Lines,
    pub(super) fields: Fields,
    pub(super) invalid: InvalidUtf8,
}

impl JsonlReader {
    /// The document of the next line that is not blank.
    pub(super) fn next(&mut self) -> Result<Option<RawDocument>, DataError> {
        let mut line = Vec::new();
        while line.trim_ascii().is_empty() {
            line.clear();
            if !self.lines.next_to(&mut line)? {
                return Ok(None);
            }
        }
        let place = self.lines.place(self.lines.number);
        let (line, n_replaced) = to_text(line, self.invalid, &place)?;
        let mut object: Map<String, Value> = serde_json::from_str(&line)
            .map_err(|e| DataError::input(&place, "a JSON object", format!("none: {e}")))?;
        let text = string(&mut object, &self.fields.text, &place)?;
        let group = self.fields.group.as_ref();
        let group = group.map(|field| string(&mut object, field, &place)).transpose()?;
        Ok(Some(RawDocument { text, n_replaced, group }))
    }
}

fn string(
    object: &mut Map<String, Value>,
    field: &str,
    place: &Place,
) -> Result<String, DataError> {
    let found = match object.remove(field) {
        Some(Value::String(text)) => return Ok(text),
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a truth value",
        Some(Value::Number(_)) => "a number",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
        None => "no such field",
    };
    Err(DataError::input(place, format!("a string in the field {field:?}"), found))
}
