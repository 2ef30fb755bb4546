//! Parquet: a row a document. Pages are read one after the other, so memory holds a page of each column.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::{Fields, MAX_DOCUMENT_BYTES, Place, RawDocument, to_text};
use crate::DataError;
use crate::config::InvalidUtf8;

/// Rows read at once.
const N_ROWS: usize = 64;

pub(crate) struct ParquetReader {
    name: Arc<str>,
    file: SerializedFileReader<File>,
    n_bytes: u64,
    invalid: InvalidUtf8,
    n_groups_read: usize,
    text: Column,
    group: Option<Column>,
    /// Counted from 1.
    row: u64,
}

/// A column of strings, and where it is being read.
struct Column {
    idx: usize,
    max_def_level: i16,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    values: VecDeque<Option<ByteArray>>,
}

impl ParquetReader {
    pub(super) fn open(
        name: Arc<str>,
        file: File,
        fields: Fields,
        invalid: InvalidUtf8,
    ) -> Result<Self, DataError> {
        let place = Arc::clone(&name);
        guarded(&place, || Self::open_file(name, file, fields, invalid))
    }

    fn open_file(
        name: Arc<str>,
        file: File,
        fields: Fields,
        invalid: InvalidUtf8,
    ) -> Result<Self, DataError> {
        let n_bytes = file.metadata().map_err(DataError::io(Path::new(&*name)))?.len();
        let file = SerializedFileReader::new(file)
            .map_err(|e| DataError::input(&name, "a Parquet file", told(&e)))?;
        let text = Column::find(&name, &file, &fields.text)?;
        let group = fields.group.map(|field| Column::find(&name, &file, &field)).transpose()?;
        Ok(Self { name, file, n_bytes, invalid, n_groups_read: 0, text, group, row: 0 })
    }

    /// The document of the next row.
    pub(super) fn next(&mut self) -> Result<Option<RawDocument>, DataError> {
        let place = Arc::clone(&self.name);
        guarded(&place, || self.next_row())
    }

    fn next_row(&mut self) -> Result<Option<RawDocument>, DataError> {
        let fail = |e: ParquetError| DataError::input(&self.name, "sound Parquet data", told(&e));
        while self.text.fill().map_err(fail)? == 0 {
            if self.n_groups_read == self.file.num_row_groups() {
                return Ok(None);
            }
            for column in std::iter::once(&mut self.text).chain(&mut self.group) {
                let chunk = self.file.metadata().row_group(self.n_groups_read).column(column.idx);
                check_place(&self.name, chunk, self.n_bytes)?;
                let rows = self.file.get_row_group(self.n_groups_read).map_err(fail)?;
                match rows.get_column_reader(column.idx).map_err(fail)? {
                    ColumnReader::ByteArrayColumnReader(reader) => column.reader = Some(reader),
                    _ => return Err(DataError::input(&self.name, "strings", "another type")),
                }
            }
            self.n_groups_read += 1;
        }
        if let Some(group) = &mut self.group {
            group.fill().map_err(fail)?;
        }
        self.row += 1;
        let place = Place { file: Arc::clone(&self.name), unit: "row", number: self.row };
        let (text, n_replaced) = self.text.take(self.invalid, &place)?;
        let group =
            self.group.as_mut().map(|group| group.take(self.invalid, &place)).transpose()?;
        Ok(Some(RawDocument { text, n_replaced, group: group.map(|(group, _)| group) }))
    }
}

/// Work of the crate `parquet`, which panics on some damaged pages. What it was doing is given up with the file.
pub(crate) fn guarded<T>(
    name: &str,
    work: impl FnOnce() -> Result<T, DataError>,
) -> Result<T, DataError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(DataError::input(name, "sound Parquet data", "pages that cannot be read"))
    })
}

impl Column {
    fn find(name: &str, file: &SerializedFileReader<File>, field: &str) -> Result<Self, DataError> {
        let schema = file.metadata().file_metadata().schema_descr();
        let columns = schema.columns();
        let idx = columns.iter().position(|column| is_strings(column, field));
        let Some(idx) = idx else {
            let found: Vec<String> =
                columns.iter().map(|column| column.path().string()).take(20).collect();
            let expected = format!("a column of strings called {field:?}");
            return Err(DataError::input(name, expected, found.join(", ")));
        };
        let max_def_level = columns[idx].max_def_level();
        Ok(Self { idx, max_def_level, reader: None, values: VecDeque::new() })
    }

    /// Reads on when nothing is left, and says how many values there are now; zero at the end of a row group.
    fn fill(&mut self) -> Result<usize, ParquetError> {
        let Some(reader) = self.reader.as_mut().filter(|_| self.values.is_empty()) else {
            return Ok(self.values.len());
        };
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let wants_levels = self.max_def_level > 0;
        let (n_rows, _, _) =
            reader.read_records(N_ROWS, wants_levels.then_some(&mut levels), None, &mut values)?;
        let mut values = values.into_iter();
        for i in 0..n_rows {
            let is_null = wants_levels && levels.get(i) != Some(&self.max_def_level);
            self.values.push_back(if is_null { None } else { values.next() });
        }
        Ok(self.values.len())
    }

    fn take(&mut self, invalid: InvalidUtf8, place: &Place) -> Result<(String, u64), DataError> {
        match self.values.pop_front() {
            Some(Some(value)) if value.len() > MAX_DOCUMENT_BYTES => {
                let expected = format!("a document of at most {MAX_DOCUMENT_BYTES} bytes");
                Err(DataError::input(place, expected, format!("{} bytes", value.len())))
            }
            Some(Some(value)) => to_text(value.data().to_vec(), invalid, place),
            _ => Err(DataError::input(place, "a string", "null")),
        }
    }
}

/// Whether it is a column of its own, not inside a list or a structure, whose values are bytes.
fn is_strings(column: &ColumnDescriptor, name: &str) -> bool {
    column.path().parts() == [name]
        && column.max_rep_level() == 0
        && column.physical_type() == parquet::basic::Type::BYTE_ARRAY
}

/// Whether the pages of a column lie in the file: the parser takes it for granted.
pub(crate) fn check_place(
    name: &str,
    chunk: &ColumnChunkMetaData,
    n_bytes: u64,
) -> Result<(), DataError> {
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let end = start.checked_add(chunk.compressed_size());
    let is_inside = start >= 0
        && chunk.compressed_size() >= 0
        && end.and_then(|end| u64::try_from(end).ok()).is_some_and(|end| end <= n_bytes);
    if is_inside {
        return Ok(());
    }
    let found = format!("{} bytes from byte {start} on", chunk.compressed_size());
    Err(DataError::input(name, format!("pages inside the {n_bytes} bytes of the file"), found))
}

/// The parser's message, in one line.
pub(crate) fn told(error: &ParquetError) -> String {
    error.to_string().replace('\n', " ")
}
