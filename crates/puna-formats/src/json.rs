//! Typed access to the fields of a JSON object, with messages that name the field.

use serde_json::{Map, Value};

use crate::FormatError;

/// A JSON object and the file it stands in.
pub(crate) struct Fields<'a> {
    file: &'a str,
    /// In front of a field's name in messages: empty, or `outer.` for a nested object.
    prefix: String,
    map: Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Parses a document that must be an object.
    pub(crate) fn parse(file: &'a str, bytes: &[u8]) -> Result<Self, FormatError> {
        let map = serde_json::from_slice(bytes)
            .map_err(|e| FormatError::malformed(file, "document", "a JSON object", e))?;
        Ok(Self { file, prefix: String::new(), map })
    }

    /// Fields and values, in alphabetical order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.map.iter()
    }

    /// Whether a field is there, be it null.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    /// The value of a field; one that is null counts as absent.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// The value of a field as `read` understands it.
    pub(crate) fn optional<'s, T>(
        &'s self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&'s Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.malformed(field, expected, &brief(value)))
    }

    pub(crate) fn count(&self, field: &str) -> Result<Option<usize>, FormatError> {
        self.optional(field, "a count", |v| usize::try_from(v.as_u64()?).ok())
    }

    pub(crate) fn float(&self, field: &str) -> Result<Option<f64>, FormatError> {
        self.optional(field, "a number", Value::as_f64)
    }

    pub(crate) fn flag(&self, field: &str) -> Result<Option<bool>, FormatError> {
        self.optional(field, "true or false", Value::as_bool)
    }

    pub(crate) fn string(&self, field: &str) -> Result<Option<&str>, FormatError> {
        self.optional(field, "a string", Value::as_str)
    }

    /// A nested object.
    pub(crate) fn object(&self, field: &str) -> Result<Option<Self>, FormatError> {
        let map = self.optional(field, "an object", Value::as_object)?;
        let prefix = format!("{}{field}.", self.prefix);
        Ok(map.map(|map| Self { file: self.file, prefix, map: map.clone() }))
    }

    /// Token ids: one, or a list.
    pub(crate) fn ids(&self, field: &str) -> Result<Option<Vec<u32>>, FormatError> {
        let id = |v: &Value| u32::try_from(v.as_u64()?).ok();
        self.optional(field, "a token id or a list of them", |value| match value {
            Value::Array(items) => items.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        })
    }

    pub(crate) fn malformed(&self, field: &str, expected: &str, found: &str) -> FormatError {
        FormatError::malformed(self.file, format_args!("{}{field}", self.prefix), expected, found)
    }

    pub(crate) fn unsupported(
        &self,
        field: &str,
        expected: &str,
        found: impl std::fmt::Display,
    ) -> FormatError {
        FormatError::unsupported(self.file, format_args!("{}{field}", self.prefix), expected, found)
    }
}

/// A value for a message.
pub(crate) fn brief(value: &Value) -> String {
    crate::error::cut(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_typed_and_named() {
        let json = br#"{"n": 3, "x": 0.5, "none": null, "ids": [1, 2], "in": {"n": -1}}"#;
        let fields = Fields::parse("f", json).unwrap();
        assert_eq!(fields.count("n").unwrap(), Some(3));
        assert_eq!(fields.float("x").unwrap(), Some(0.5));
        assert_eq!(fields.flag("none").unwrap(), None);
        assert_eq!(fields.ids("ids").unwrap(), Some(vec![1, 2]));
        assert_eq!(fields.ids("n").unwrap(), Some(vec![3]));
        let inner = fields.object("in").unwrap().unwrap();
        let message = inner.count("n").unwrap_err().to_string();
        assert_eq!(message, "f: in.n: expected a count, found -1");
        assert!(Fields::parse("f", b"[]").is_err());
    }
}
