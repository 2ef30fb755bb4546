//! Files as shared bytes: mapped read-only, so that opening a model copies nothing.

use std::fs::{File, Metadata};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::Mmap;
use puna_core::SharedBytes;

use crate::FormatError;

/// A file's bytes, and the name by which messages call it.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub(crate) name: String,
    pub(crate) bytes: SharedBytes,
    /// `None` for bytes that never were a file.
    on_disk: Option<OnDisk>,
}

/// What is kept of a file to notice that it changed, and to give its memory back.
#[derive(Debug)]
struct OnDisk {
    handle: File,
    /// When it had last been written to; `None` where the system does not say.
    modified: Option<SystemTime>,
    /// `None` for an empty file.
    map: Option<Arc<Mmap>>,
}

/// A map that several own.
struct SharedMap(Arc<Mmap>);

impl AsRef<[u8]> for SharedMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl DataFile {
    /// Maps a file.
    ///
    /// The file must not be shortened or written to while it is in use, as with every program that maps
    /// its models. [`DataFile::check_unchanged`] notices a change before bytes are handed out.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, FormatError> {
        Self::open_as(path, path.display().to_string())
    }

    /// As [`DataFile::open`], under another name for messages.
    pub(crate) fn open_as(path: &Path, name: String) -> Result<Arc<Self>, FormatError> {
        let io = |source| FormatError::io(&name, source);
        // Asked before opening: to open a pipe would wait for someone to write into it.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(FormatError::not_a_model(&name, "not a regular file", "give a file"));
        }
        let handle = File::open(path).map_err(io)?;
        let metadata = handle.metadata().map_err(io)?;
        let map = if metadata.len() == 0 {
            None
        } else {
            // SAFETY: the map is read-only and its bytes are only ever read as `u8`, for which every
            // pattern is valid. That nobody else writes to the file meanwhile cannot be enforced by any
            // program; it is the documented condition of use above. Shortening the file ends the
            // process with a signal instead of reading other memory.
            Some(Arc::new(unsafe { Mmap::map(&handle) }.map_err(io)?))
        };
        let bytes = match &map {
            Some(map) => SharedBytes::new(SharedMap(Arc::clone(map))),
            None => SharedBytes::new(Vec::new()),
        };
        if bytes.len() as u64 != metadata.len() {
            return Err(changed_length(&name, metadata.len(), bytes.len() as u64));
        }
        let on_disk = OnDisk { handle, modified: modified(&metadata), map };
        Ok(Arc::new(Self { name, bytes, on_disk: Some(on_disk) }))
    }

    /// Bytes that are in memory already.
    pub(crate) fn from_bytes(name: impl Into<String>, bytes: SharedBytes) -> Arc<Self> {
        Arc::new(Self { name: name.into(), bytes, on_disk: None })
    }

    /// Fails if the file has another length than when it was mapped, or was written to since.
    pub(crate) fn check_unchanged(&self) -> Result<(), FormatError> {
        let Some(OnDisk { handle, modified: then, .. }) = &self.on_disk else { return Ok(()) };
        let now = handle.metadata().map_err(|e| FormatError::io(&self.name, e))?;
        let len = self.bytes.len() as u64;
        if now.len() != len {
            return Err(changed_length(&self.name, len, now.len()));
        }
        if modified(&now) != *then {
            let expected = "the file as it was when it was opened";
            let found = "that it was written to since";
            return Err(FormatError::malformed(&self.name, "content", expected, found));
        }
        Ok(())
    }

    /// Lets go of the memory that `part`, bytes of this file, takes up; they are read again when they are asked for
    /// again. Without this the pages of a map count as the process's memory for as long as it is mapped.
    pub(crate) fn release(&self, part: &[u8]) {
        let Some(map) = self.on_disk.as_ref().and_then(|on_disk| on_disk.map.as_ref()) else {
            return;
        };
        let start = part.as_ptr().addr().checked_sub(map.as_ptr().addr());
        let inside =
            start.filter(|start| start.checked_add(part.len()).is_some_and(|end| end <= map.len()));
        if let Some(start) = inside {
            release(map, start, part.len());
        }
    }
}

#[cfg(unix)]
fn release(map: &Mmap, start: usize, len: usize) {
    // SAFETY: the range lies inside the map, as the caller found out. The map is read-only and of a file: pages
    // that are dropped come back from the file with the same bytes, as long as nobody writes to it, which is the
    // condition of use of the map itself.
    let outcome =
        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
    // A system that will not keeps the pages: more memory, the same bytes.
    let _ = outcome;
}

/// Windows takes pages of a file back by itself when memory is short.
#[cfg(not(unix))]
fn release(_map: &Mmap, _start: usize, _len: usize) {}

fn modified(metadata: &Metadata) -> Option<SystemTime> {
    metadata.modified().ok()
}

fn changed_length(name: &str, then: u64, now: u64) -> FormatError {
    let expected = format!("{then} bytes, as when it was opened");
    FormatError::malformed(name, "file length", expected, format!("{now} bytes"))
}

/// Reads a small file whole, refusing one of more than `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, FormatError> {
    let io = |source| FormatError::io(path.display(), source);
    let file = DataFile::open(path)?;
    let len = file.bytes.len() as u64;
    if len > limit {
        let expected = format!("at most {limit} bytes");
        return Err(FormatError::malformed(path.display(), "file length", expected, len));
    }
    std::fs::read(path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_map_holds_the_bytes_of_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789").unwrap();
        let data = DataFile::open(file.path()).unwrap();
        assert_eq!(&*data.bytes, b"0123456789");
        data.check_unchanged().unwrap();
        file.as_file().set_len(4).unwrap();
        let message = data.check_unchanged().unwrap_err().to_string();
        assert!(message.contains("expected 10 bytes"), "{message}");
        assert!(message.contains("found 4 bytes"), "{message}");
    }

    #[test]
    fn a_file_that_is_written_to_is_noticed() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789").unwrap();
        let data = DataFile::open(file.path()).unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        file.as_file().set_modified(later).unwrap();
        let message = data.check_unchanged().unwrap_err().to_string();
        assert!(message.contains("found that it was written to since"), "{message}");
    }

    #[test]
    fn released_bytes_come_back() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        file.write_all(&bytes).unwrap();
        let data = DataFile::open(file.path()).unwrap();
        data.release(&data.bytes[10..90_000]);
        data.release(b"bytes of something else");
        assert_eq!(*data.bytes, bytes[..]);
    }

    #[test]
    fn an_empty_file_is_empty_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(DataFile::open(file.path()).unwrap().bytes.len(), 0);
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DataFile::open(folder.path()).is_err());
    }

    #[test]
    fn a_small_file_has_a_limit() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"0123456789").unwrap();
        assert_eq!(read_small(file.path(), 10).unwrap(), b"0123456789");
        assert!(read_small(file.path(), 9).is_err());
    }
}
