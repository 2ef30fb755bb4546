//! Documents out of files, one after the other.

mod jsonl;
pub(crate) mod parquet;
mod text;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::DataError;
use crate::config::{Format, InvalidUtf8, Source};

/// Most bytes of a document: a marker that never comes must not fill the memory.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 1 << 26;

const BUFFER_BYTES: usize = 1 << 17;

/// A document as its file has it.
pub(crate) struct RawDocument {
    pub(crate) text: String,
    /// Stretches that were no UTF-8, each now U+FFFD.
    pub(crate) n_replaced: u64,
    /// The group that a field names.
    pub(crate) group: Option<String>,
}

/// Where a document or record begins, for messages.
pub(crate) struct Place {
    file: Arc<str>,
    unit: &'static str,
    number: u64,
}

impl Place {
    pub(crate) fn new(file: &Arc<str>, unit: &'static str, number: u64) -> Self {
        Self { file: Arc::clone(file), unit, number }
    }

    /// Counted from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.file, self.unit, self.number)
    }
}

/// How a file is compressed, by the end of its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some(e) if e.eq_ignore_ascii_case("gz") => Self::Gzip,
            Some(e) if e.eq_ignore_ascii_case("zst") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The documents of one file.
pub(crate) enum Documents {
    Text(text::TextReader),
    Jsonl(jsonl::JsonlReader),
    Parquet(Box<parquet::ParquetReader>),
}

impl Documents {
    /// Opens a file of `source`. Bytes read are added to `progress`. A compressed Parquet file, which has to be read
    /// from its end, is unpacked into `scratch`, a file that need not exist.
    pub(crate) fn open(
        path: &Path,
        source: &Source,
        invalid: InvalidUtf8,
        progress: &Arc<AtomicU64>,
        scratch: &Path,
    ) -> Result<Self, DataError> {
        let name: Arc<str> = path.display().to_string().into();
        let field = |field: &Option<toml::Spanned<String>>| {
            field.as_ref().map(|field| field.get_ref().clone())
        };
        let fields = Fields {
            text: field(&source.text_field).unwrap_or_else(|| "text".to_owned()),
            group: field(&source.group_field),
        };
        let lines = || Ok(Lines::new(unpacked(path, progress)?, name.clone()));
        Ok(match source.format {
            Format::Text => {
                let marker = field(&source.marker).unwrap_or_default();
                Self::Text(text::TextReader { lines: lines()?, marker, invalid })
            }
            Format::Jsonl => Self::Jsonl(jsonl::JsonlReader { lines: lines()?, fields, invalid }),
            Format::Parquet => {
                let file = seekable(path, progress, scratch)?;
                Self::Parquet(Box::new(parquet::ParquetReader::open(name, file, fields, invalid)?))
            }
        })
    }

    /// The next document.
    pub(crate) fn next(&mut self) -> Result<Option<RawDocument>, DataError> {
        match self {
            Self::Text(reader) => reader.next(),
            Self::Jsonl(reader) => reader.next(),
            Self::Parquet(reader) => reader.next(),
        }
    }
}

/// The fields or columns to read.
struct Fields {
    text: String,
    group: Option<String>,
}

/// Bytes as text, and how many stretches of them were no UTF-8.
fn to_text(
    bytes: Vec<u8>,
    invalid: InvalidUtf8,
    place: &Place,
) -> Result<(String, u64), DataError> {
    let (at, bytes) = match String::from_utf8(bytes) {
        Ok(text) => return Ok((text, 0)),
        Err(e) => (e.utf8_error().valid_up_to(), e.into_bytes()),
    };
    if invalid == InvalidUtf8::Fail {
        let found = format!("the byte {:#04x} {at} bytes further on", bytes[at]);
        let expected = "UTF-8 (or invalid_utf8 = \"replace\")";
        return Err(DataError::input(place, expected, found));
    }
    let n = bytes.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    Ok((String::from_utf8_lossy(&bytes).into_owned(), n as u64))
}

/// A regular file, with its length; an empty one is refused.
pub(crate) fn check_file(path: &Path) -> Result<u64, DataError> {
    let found = std::fs::metadata(path).map_err(DataError::io(path))?;
    if !found.is_file() {
        return Err(DataError::input(path.display(), "a regular file", "something else"));
    }
    if found.len() == 0 {
        return Err(DataError::input(path.display(), "texts", "an empty file"));
    }
    Ok(found.len())
}

/// A small text file, whole.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<String, DataError> {
    let n_bytes = check_file(path)?;
    if n_bytes > limit {
        let expected = format!("at most {limit} bytes");
        return Err(DataError::input(path.display(), expected, n_bytes));
    }
    std::fs::read_to_string(path).map_err(DataError::io(path))
}

/// The bytes of a file, unpacked if its name ends in `.gz` or `.zst`. Bytes read from the disk are added to `progress`.
///
/// # Errors
/// The file cannot be read, is no regular one, or is empty.
pub fn unpacked(
    path: &Path,
    progress: &Arc<AtomicU64>,
) -> Result<Box<dyn BufRead + Send>, DataError> {
    check_file(path)?;
    let file = File::open(path).map_err(DataError::io(path))?;
    let file = BufReader::with_capacity(BUFFER_BYTES, Counted { file, n: Arc::clone(progress) });
    Ok(match Compression::of(path) {
        Compression::None => Box::new(file),
        Compression::Gzip => {
            let unpacked = flate2::bufread::MultiGzDecoder::new(file);
            Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked))
        }
        Compression::Zstd => {
            let unpacked =
                zstd::stream::read::Decoder::with_buffer(file).map_err(DataError::io(path))?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, unpacked))
        }
    })
}

/// A file that can be read anywhere.
fn seekable(path: &Path, progress: &Arc<AtomicU64>, scratch: &Path) -> Result<File, DataError> {
    if Compression::of(path) == Compression::None {
        progress.fetch_add(check_file(path)?, Ordering::Relaxed);
        return File::open(path).map_err(DataError::io(path));
    }
    let mut input = unpacked(path, progress)?;
    let mut out = File::create(scratch).map_err(DataError::io(scratch))?;
    io::copy(&mut input, &mut out).map_err(DataError::io(path))?;
    File::open(scratch).map_err(DataError::io(scratch))
}

/// A file that tells how much of it was read.
struct Counted {
    file: File,
    n: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.n.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The lines of a file, which are bytes of any kind.
pub(crate) struct Lines {
    input: Box<dyn BufRead + Send>,
    file: Arc<str>,
    /// The line that was read last, counted from 1.
    number: u64,
}

impl Lines {
    pub(crate) fn new(input: Box<dyn BufRead + Send>, file: Arc<str>) -> Self {
        Self { input, file, number: 0 }
    }

    /// Appends the next line, its end included, to `to`; `false` at the end of the file.
    pub(crate) fn next_to(&mut self, to: &mut Vec<u8>) -> Result<bool, DataError> {
        let room = (MAX_DOCUMENT_BYTES + 1).saturating_sub(to.len()) as u64;
        let n = (&mut self.input)
            .take(room)
            .read_until(b'\n', to)
            .map_err(|source| DataError::Io { path: PathBuf::from(&*self.file), source })?;
        self.number += 1;
        if to.len() > MAX_DOCUMENT_BYTES {
            let expected = format!("a document of at most {MAX_DOCUMENT_BYTES} bytes");
            return Err(DataError::input(self.place(self.number), expected, "a longer one"));
        }
        Ok(n > 0)
    }

    /// Where the line is that was read last.
    pub(crate) fn last(&self) -> Place {
        self.place(self.number)
    }

    fn place(&self, line: u64) -> Place {
        Place::new(&self.file, "line", line)
    }
}
