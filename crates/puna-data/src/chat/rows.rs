//! JSON objects out of a file: lines, elements of one array, or rows of Parquet.

use std::io::{BufRead, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec::IntoIter;

use serde_json::{Map, Value};

use super::parquet::ParquetRows;
use super::{Fault, ProblemKind};
use crate::DataError;
use crate::read::{Lines, Place, unpacked};

/// Most bytes of a JSON array, which is read whole.
const MAX_ARRAY_BYTES: u64 = 1 << 30;

/// The records of a file, one after the other.
pub(super) enum Rows {
    Lines(Lines),
    /// Elements of an array, counted from 1.
    Array {
        file: Arc<str>,
        elements: IntoIter<Value>,
        number: u64,
    },
    Parquet(Box<ParquetRows>),
}

/// A record, if it is an object.
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) object: Result<Map<String, Value>, Fault>,
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let name: Arc<str> = path.display().to_string().into();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) {
            return Ok(Self::Parquet(Box::new(ParquetRows::open(name, path)?)));
        }
        Self::of_input(name, unpacked(path, &Arc::default())?)
    }

    pub(super) fn of_bytes(name: &str, bytes: &[u8]) -> Result<Self, DataError> {
        Self::of_input(name.into(), Box::new(Cursor::new(bytes.to_vec())))
    }

    /// An array if the first byte that is no space opens one, else lines.
    fn of_input(file: Arc<str>, mut input: Box<dyn BufRead + Send>) -> Result<Self, DataError> {
        let fail = |source| DataError::Io { path: PathBuf::from(&*file), source };
        let first = input.fill_buf().map_err(fail)?.trim_ascii_start().first();
        if first != Some(&b'[') {
            return Ok(Self::Lines(Lines::new(input, file)));
        }
        let mut bytes = Vec::new();
        input.take(MAX_ARRAY_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > MAX_ARRAY_BYTES {
            let expected = format!("an array of at most {MAX_ARRAY_BYTES} bytes");
            return Err(DataError::input(&file, expected, "a longer one: JSONL has no limit"));
        }
        let elements: Vec<Value> = serde_json::from_slice(&bytes)
            .map_err(|e| DataError::input(&file, "a JSON array", format!("none: {e}")))?;
        Ok(Self::Array { file, elements: elements.into_iter(), number: 0 })
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Row>, DataError> {
        match self {
            Self::Lines(lines) => next_line(lines),
            Self::Array { file, elements, number } => {
                let Some(value) = elements.next() else { return Ok(None) };
                *number += 1;
                let place = Place::new(file, "element", *number);
                Ok(Some(Row { place, object: object(value) }))
            }
            Self::Parquet(rows) => rows.next(),
        }
    }
}

/// The record of the next line that is not blank.
fn next_line(lines: &mut Lines) -> Result<Option<Row>, DataError> {
    let mut line = Vec::new();
    while line.trim_ascii().is_empty() {
        line.clear();
        if !lines.next_to(&mut line)? {
            return Ok(None);
        }
    }
    let object = match std::str::from_utf8(&line) {
        Ok(text) => serde_json::from_str(text)
            .map_err(|e| Fault::new(ProblemKind::Json, "a JSON object", format!("none: {e}")))
            .and_then(object),
        Err(e) => {
            let (at, byte) = (e.valid_up_to(), line[e.valid_up_to()]);
            let found = format!("the byte {byte:#04x} {at} bytes further on");
            Err(Fault::new(ProblemKind::NotText, "UTF-8", found))
        }
    };
    Ok(Some(Row { place: lines.last(), object }))
}

fn object(value: Value) -> Result<Map<String, Value>, Fault> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(Fault::new(ProblemKind::Json, "a JSON object", kind_of(&other))),
    }
}

/// What a value is, for messages.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
