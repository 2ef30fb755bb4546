//! Files that appear whole or not at all: written under a temporary name in the same folder, flushed to the
//! disk, then renamed. A reader never sees half a model, and a failure leaves the old file untouched.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::FormatError;

const BUFFER_BYTES: usize = 1 << 20;

/// A file being written. Dropped before [`AtomicFile::commit`], it leaves nothing behind.
pub(crate) struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    /// `None` once committed.
    out: Option<BufWriter<File>>,
}

impl AtomicFile {
    pub(crate) fn create(target: &Path) -> Result<Self, FormatError> {
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = target.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
        let file = file.map_err(|e| FormatError::io(target.display(), e))?;
        let out = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
        Ok(Self { target: target.to_owned(), temporary, out })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let out = self.out.as_mut().expect("a committed file is gone");
        out.write_all(bytes).map_err(|e| FormatError::io(self.target.display(), e))
    }

    /// Puts the file in its place, replacing what was there.
    pub(crate) fn commit(mut self) -> Result<(), FormatError> {
        let out = self.out.as_mut().expect("a committed file is gone");
        let written = out.flush().and_then(|()| out.get_ref().sync_all());
        written.map_err(|e| FormatError::io(self.target.display(), e))?;
        // Closed before the rename, which Windows asks for.
        let closed = self.out.take();
        drop(closed);
        if let Err(e) = fs::rename(&self.temporary, &self.target) {
            remove(&self.temporary);
            return Err(FormatError::io(self.target.display(), e));
        }
        sync_folder(&self.target);
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            remove(&self.temporary);
        }
    }
}

/// Removes a temporary file. That this can fail too is no news to someone who is being told of a failure.
fn remove(temporary: &Path) {
    let _ = fs::remove_file(temporary);
}

/// Makes the rename itself durable. Best effort: not every file system can, and the data are safe already.
#[cfg(unix)]
fn sync_folder(target: &Path) {
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// Windows flushes folder entries with the file.
#[cfg(not(unix))]
fn sync_folder(_target: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_changes_only_when_committed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::write(&target, "old").unwrap();
        let mut file = AtomicFile::create(&target).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut file = AtomicFile::create(&target).unwrap();
        file.write(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_target_that_cannot_be_replaced_leaves_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::create_dir(&target).unwrap();
        let file = AtomicFile::create(&target).unwrap();
        assert!(file.commit().is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
