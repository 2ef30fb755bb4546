//! Rows of Parquet as JSON objects. Lists of messages lie in columns inside columns, so rows are read as records.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use serde_json::{Map, Value};

use super::rows::Row;
use super::{Fault, ProblemKind};
use crate::DataError;
use crate::read::parquet::{check_place, guarded, told};
use crate::read::{Place, check_file};

pub(super) struct ParquetRows {
    name: Arc<str>,
    rows: RowIter<'static>,
    number: u64,
}

impl ParquetRows {
    pub(super) fn open(name: Arc<str>, path: &Path) -> Result<Self, DataError> {
        let n_bytes = check_file(path)?;
        let file = File::open(path).map_err(DataError::io(path))?;
        let place = Arc::clone(&name);
        guarded(&place, || {
            let file = SerializedFileReader::new(file)
                .map_err(|e| DataError::input(&name, "a Parquet file", told(&e)))?;
            for group in file.metadata().row_groups() {
                for column in group.columns() {
                    check_place(&name, column, n_bytes)?;
                }
            }
            Ok(Self { name, rows: file.into_iter(), number: 0 })
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>, DataError> {
        let Some(record) = guarded(&self.name, || Ok(self.rows.next()))? else { return Ok(None) };
        let record =
            record.map_err(|e| DataError::input(&self.name, "sound Parquet data", told(&e)))?;
        self.number += 1;
        let place = Place::new(&self.name, "row", self.number);
        Ok(Some(Row { place, object: object(record) }))
    }
}

fn object(record: Record) -> Result<Map<String, Value>, Fault> {
    record.into_columns().into_iter().map(|(name, field)| Ok((name, value(field)?))).collect()
}

/// A field as JSON. Dates and the like, which no form has, are null.
fn value(field: Field) -> Result<Value, Fault> {
    Ok(match field {
        Field::Bool(x) => x.into(),
        Field::Byte(x) => x.into(),
        Field::Short(x) => x.into(),
        Field::Int(x) => x.into(),
        Field::Long(x) => x.into(),
        Field::UByte(x) => x.into(),
        Field::UShort(x) => x.into(),
        Field::UInt(x) => x.into(),
        Field::ULong(x) => x.into(),
        Field::Float(x) => x.into(),
        Field::Double(x) => x.into(),
        Field::Str(text) => text.into(),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(e) => {
                let found = format!("bytes that are none, at {}", e.valid_up_to());
                return Err(Fault::new(ProblemKind::NotText, "UTF-8", found));
            }
        },
        Field::Group(row) => Value::Object(object(row)?),
        Field::ListInternal(list) => {
            let elements = list.elements().iter().cloned().map(value);
            Value::Array(elements.collect::<Result<_, _>>()?)
        }
        _ => Value::Null,
    })
}
