//! Files and folders that appear whole or not at all: written under a temporary name beside the target, flushed to
//! the disk, then renamed. A reader never sees half a model, and a failure leaves what was there untouched.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::FormatError;

const BUFFER_BYTES: usize = 1 << 20;

/// Names to try before giving up: a program that was killed may have left some behind.
const MAX_TEMPORARIES: u32 = 100;

/// What to do with a file or folder that has the target's name already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Refuse: at the start and, should it have appeared meanwhile, at the end.
    #[default]
    Keep,
    /// Put the new one in its place when that is complete.
    Replace,
}

impl Existing {
    /// Fails if there is something at `target` that must be kept.
    ///
    /// # Errors
    /// The target, and that it exists.
    pub fn check(self, target: &Path) -> Result<(), FormatError> {
        match self {
            Existing::Keep if target.symlink_metadata().is_ok() => Err(exists(target)),
            _ => Ok(()),
        }
    }
}

fn exists(target: &Path) -> FormatError {
    FormatError::Exists { file: target.display().to_string() }
}

/// A file being written. Dropped before [`AtomicFile::commit`], it leaves nothing behind.
pub(crate) struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    existing: Existing,
    /// `None` once committed.
    out: Option<BufWriter<File>>,
}

impl AtomicFile {
    pub(crate) fn create(target: &Path, existing: Existing) -> Result<Self, FormatError> {
        existing.check(target)?;
        let (temporary, file) = create_beside(target, |temporary| {
            OpenOptions::new().write(true).create_new(true).open(temporary)
        })?;
        let out = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
        Ok(Self { target: target.to_owned(), temporary, existing, out })
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Where the bytes are until they are committed.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.with_out(|out| out.write_all(bytes))
    }

    /// Writes `bytes` over those at the file's beginning.
    pub(crate) fn rewrite_start(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.with_out(|out| {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(bytes)?;
            out.seek(SeekFrom::End(0)).map(drop)
        })
    }

    /// Hands everything over to the system, so that other handles of the file see it.
    pub(crate) fn flush(&mut self) -> Result<(), FormatError> {
        self.with_out(BufWriter::flush)
    }

    fn with_out(
        &mut self,
        work: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), FormatError> {
        let out = self.out.as_mut().expect("a committed file is gone");
        work(out).map_err(|e| FormatError::io(self.target.display(), e))
    }

    /// Puts the file in its place.
    pub(crate) fn commit(mut self) -> Result<(), FormatError> {
        self.with_out(|out| out.flush().and_then(|()| out.get_ref().sync_all()))?;
        // Closed before the rename, which Windows asks for.
        drop(self.out.take());
        if let Err(e) = self.place() {
            remove(&self.temporary);
            return Err(e);
        }
        sync_folder(&self.target);
        Ok(())
    }

    fn place(&self) -> Result<(), FormatError> {
        let io = |e| FormatError::io(self.target.display(), e);
        if self.existing == Existing::Replace {
            return fs::rename(&self.temporary, &self.target).map_err(io);
        }
        // A second name for the file, unlike a rename, never takes the place of another file.
        match fs::hard_link(&self.temporary, &self.target) {
            Ok(()) => {
                remove(&self.temporary);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(exists(&self.target)),
            // File systems without second names.
            Err(_) => {
                self.existing.check(&self.target)?;
                fs::rename(&self.temporary, &self.target).map_err(io)
            }
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            remove(&self.temporary);
        }
    }
}

/// A folder being filled. Dropped before [`AtomicFolder::commit`], it leaves nothing behind.
pub struct AtomicFolder {
    target: PathBuf,
    temporary: PathBuf,
    existing: Existing,
    committed: bool,
}

impl AtomicFolder {
    /// Begins a folder that will be called `target`; an empty one of that name may be there. One that is to be
    /// replaced must be what `may_go` accepts, so that no folder of other things is lost by a slip of the pen.
    ///
    /// # Errors
    /// Something else is there, or no folder can be made beside it.
    pub fn create(
        target: &Path,
        existing: Existing,
        may_go: fn(&Path) -> bool,
    ) -> Result<Self, FormatError> {
        if target.symlink_metadata().is_ok() && !is_empty_folder(target) {
            existing.check(target)?;
            if !may_go(target) {
                return Err(FormatError::NotReplaced { folder: target.display().to_string() });
            }
        }
        let (temporary, ()) = create_beside(target, |temporary| fs::create_dir(temporary))?;
        Ok(Self { target: target.to_owned(), temporary, existing, committed: false })
    }

    /// Where to put the files until they are committed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// The folder's name to be.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Writes a file into the folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        let io = |e| FormatError::io(self.target.join(name).display(), e);
        let mut file = File::create_new(self.temporary.join(name)).map_err(io)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)
    }

    /// Puts the folder in its place.
    ///
    /// # Errors
    /// Something has appeared there meanwhile, or the system refuses.
    pub fn commit(mut self) -> Result<(), FormatError> {
        let io = |e| FormatError::io(self.target.display(), e);
        // An empty folder goes, any other stays: the rename refuses it.
        let _ = fs::remove_dir(&self.target);
        let old = match self.target.symlink_metadata() {
            Err(_) => None,
            Ok(_) => {
                self.existing.check(&self.target)?;
                let old = temporary_name(&self.target, "old", 0);
                fs::rename(&self.target, &old).map_err(io)?;
                Some(old)
            }
        };
        if let Err(e) = fs::rename(&self.temporary, &self.target) {
            if let Some(old) = old {
                let _ = fs::rename(old, &self.target);
            }
            return Err(io(e));
        }
        self.committed = true;
        sync_folder(&self.target);
        old.map_or(Ok(()), |old| fs::remove_dir_all(old).map_err(io))
    }
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Makes something under a name of its own beside `target`.
fn create_beside<T>(
    target: &Path,
    create: impl Fn(&Path) -> io::Result<T>,
) -> Result<(PathBuf, T), FormatError> {
    let mut attempt = 0;
    loop {
        let temporary = temporary_name(target, "tmp", attempt);
        match create(&temporary) {
            Ok(made) => return Ok((temporary, made)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < MAX_TEMPORARIES => {
                attempt += 1;
            }
            Err(e) => return Err(FormatError::io(target.display(), e)),
        }
    }
}

fn temporary_name(target: &Path, ending: &str, attempt: u32) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}-{attempt}.{ending}", std::process::id()));
    target.with_file_name(name)
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

    fn n_entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn the_target_changes_only_when_committed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::write(&target, "old").unwrap();
        let mut file = AtomicFile::create(&target, Existing::Replace).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(n_entries(folder.path()), 1);
        let mut file = AtomicFile::create(&target, Existing::Replace).unwrap();
        file.write(b"new").unwrap();
        file.rewrite_start(b"N").unwrap();
        file.write(b"er").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"Newer");
        assert_eq!(n_entries(folder.path()), 1);
    }

    #[test]
    fn a_target_that_cannot_be_replaced_leaves_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::create_dir(&target).unwrap();
        let file = AtomicFile::create(&target, Existing::Replace).unwrap();
        assert!(file.commit().is_err());
        assert_eq!(n_entries(folder.path()), 1);
    }

    #[test]
    fn what_is_to_be_kept_is_kept_even_if_it_comes_late() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let file = AtomicFile::create(&target, Existing::Keep).unwrap();
        fs::write(&target, "somebody else's").unwrap();
        let message = file.commit().unwrap_err().to_string();
        assert!(message.contains("exists already"), "{message}");
        assert!(AtomicFile::create(&target, Existing::Keep).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"somebody else's");
        assert_eq!(n_entries(folder.path()), 1);
    }

    #[test]
    fn folders_appear_whole() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("model");
        let begin = |existing, may_go| AtomicFolder::create(&target, existing, may_go);
        let fill = |existing, text: &str| {
            let folder = begin(existing, |path| path.join("a").exists()).unwrap();
            folder.write("a", text.as_bytes()).unwrap();
            folder
        };
        drop(fill(Existing::Keep, "dropped"));
        assert_eq!(n_entries(root.path()), 0);
        fs::create_dir(&target).unwrap();
        fill(Existing::Keep, "first").commit().unwrap();
        assert!(begin(Existing::Keep, |_| true).is_err());
        assert!(begin(Existing::Replace, |_| false).is_err());
        fill(Existing::Replace, "second").commit().unwrap();
        assert_eq!(fs::read(target.join("a")).unwrap(), b"second");
        assert_eq!(n_entries(root.path()), 1);
        fs::remove_dir_all(&target).unwrap();
        let late = fill(Existing::Keep, "third");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("b"), "somebody else's").unwrap();
        assert!(late.commit().is_err());
        assert_eq!(n_entries(root.path()), 1);
        assert_eq!(n_entries(&target), 1);
    }
}
