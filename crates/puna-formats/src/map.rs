//! Files as shared bytes: mapped read-only, so that opening a model copies nothing.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use puna_core::SharedBytes;

use crate::FormatError;

/// A file's bytes, and the name by which messages call it.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub(crate) name: String,
    pub(crate) bytes: SharedBytes,
    /// Kept to notice that the file changed its length; `None` for bytes that never were a file.
    handle: Option<File>,
}

impl DataFile {
    /// Maps a file.
    ///
    /// The file must not be shortened or written to while it is in use, as with every program that maps
    /// its models. [`DataFile::check_unchanged`] notices a change of length before bytes are handed out.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, FormatError> {
        let name = path.display().to_string();
        let io = |source| FormatError::io(&name, source);
        // Asked before opening: to open a pipe would wait for someone to write into it.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(FormatError::not_a_model(&name, "not a regular file", "give a file"));
        }
        let handle = File::open(path).map_err(io)?;
        let metadata = handle.metadata().map_err(io)?;
        let bytes = if metadata.len() == 0 {
            SharedBytes::new(Vec::new())
        } else {
            // SAFETY: the map is read-only and its bytes are only ever read as `u8`, for which every
            // pattern is valid. That nobody else writes to the file meanwhile cannot be enforced by any
            // program; it is the documented condition of use above. Shortening the file ends the
            // process with a signal instead of reading other memory.
            let map = unsafe { Mmap::map(&handle) }.map_err(io)?;
            SharedBytes::new(map)
        };
        if bytes.len() as u64 != metadata.len() {
            return Err(changed(&name, metadata.len(), bytes.len() as u64));
        }
        Ok(Arc::new(Self { name, bytes, handle: Some(handle) }))
    }

    /// Bytes that are in memory already.
    pub(crate) fn from_bytes(name: impl Into<String>, bytes: SharedBytes) -> Arc<Self> {
        Arc::new(Self { name: name.into(), bytes, handle: None })
    }

    /// Fails if the file's length is no longer what it was when it was mapped.
    pub(crate) fn check_unchanged(&self) -> Result<(), FormatError> {
        let Some(handle) = &self.handle else { return Ok(()) };
        let now = handle.metadata().map_err(|e| FormatError::io(&self.name, e))?.len();
        let then = self.bytes.len() as u64;
        if now == then { Ok(()) } else { Err(changed(&self.name, then, now)) }
    }
}

fn changed(name: &str, then: u64, now: u64) -> FormatError {
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
