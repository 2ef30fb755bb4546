//! The zip form. The archive's directory is read by the `zip` crate; entries are stored, not compressed,
//! and are used where they lie in the map.

use std::io::Cursor;
use std::ops::Range;

use ::zip::{CompressionMethod, ZipArchive};
use puna_core::SharedBytes;

use super::machine::{MAX_PICKLE_BYTES, Machine};
use super::storage::{check_len, view};
use crate::FormatError;
use crate::listed::Listed;

/// What every zip archive with an entry begins with.
const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
const PICKLE: &str = "data.pkl";

pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(&LOCAL_HEADER)
}

struct Archive<'a> {
    file: &'a str,
    bytes: &'a SharedBytes,
    archive: ZipArchive<Cursor<&'a [u8]>>,
    /// The folder inside the archive that holds everything, with its slash.
    prefix: String,
}

pub(super) fn parse(file: &str, bytes: &SharedBytes) -> Result<Vec<Listed>, FormatError> {
    let mut archive = Archive::open(file, bytes)?;
    archive.check_byte_order()?;
    let pickle = archive.entry(PICKLE)?;
    if pickle.len() > MAX_PICKLE_BYTES {
        let expected = format!("at most {MAX_PICKLE_BYTES} bytes");
        return Err(FormatError::malformed(file, PICKLE, expected, pickle.len()));
    }
    let mut machine = Machine::new(file, &pickle);
    let top = machine.run()?;
    let mut listed = Vec::new();
    for (name, tensor) in machine.tensors(top)? {
        let storage = archive.entry(&format!("data/{}", tensor.storage.key))?;
        check_len(file, &tensor.storage, storage.len())?;
        listed.push(view(file, name, tensor, &storage)?);
    }
    Ok(listed)
}

impl<'a> Archive<'a> {
    fn open(file: &'a str, bytes: &'a SharedBytes) -> Result<Self, FormatError> {
        let archive = ZipArchive::new(Cursor::new(&**bytes)).map_err(|e| {
            let found = format!("{e}: the file is truncated or damaged");
            FormatError::malformed(file, "zip directory", "a sound one", found)
        })?;
        let prefix = archive.file_names_raw().find_map(|name| {
            let prefix = std::str::from_utf8(name).ok()?.strip_suffix(PICKLE)?;
            (prefix.is_empty() || prefix.ends_with('/')).then(|| prefix.to_owned())
        });
        let prefix = prefix.ok_or_else(|| {
            FormatError::malformed(file, "zip archive", format!("an entry {PICKLE}"), "none")
        })?;
        Ok(Self { file, bytes, archive, prefix })
    }

    fn check_byte_order(&mut self) -> Result<(), FormatError> {
        let name = "byteorder";
        let full = format!("{}{name}", self.prefix);
        if self.archive.index_for_name_raw(full.as_bytes()).is_none() {
            return Ok(());
        }
        let order = self.entry(name)?;
        if &*order == b"little" {
            return Ok(());
        }
        let found = order[..order.len().min(16)].escape_ascii();
        Err(FormatError::unsupported(self.file, name, "little", found))
    }

    /// The bytes of an entry under the archive's folder.
    fn entry(&mut self, name: &str) -> Result<SharedBytes, FormatError> {
        let full = format!("{}{name}", self.prefix);
        let malformed = |expected: &str, found: String| {
            FormatError::malformed(self.file, format!("entry {full}"), expected, found)
        };
        let Some(idx) = self.archive.index_for_name_raw(full.as_bytes()) else {
            return Err(malformed("an entry of the archive", "none".to_owned()));
        };
        let entry = self.archive.by_index_raw(idx);
        let entry = entry.map_err(|e| malformed("a sound entry", e.to_string()))?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(malformed("stored bytes", "compressed or encrypted ones".to_owned()));
        }
        let range = entry.data_start().and_then(|start| range(start, entry.size()));
        range.and_then(|range| self.bytes.slice(range)).ok_or_else(|| {
            let found = format!("{} bytes: the file is truncated or damaged", entry.size());
            malformed("an entry inside the file", found)
        })
    }
}

fn range(start: u64, len: u64) -> Option<Range<usize>> {
    let end = usize::try_from(start.checked_add(len)?).ok()?;
    Some(usize::try_from(start).ok()?..end)
}
