//! Files and folders that appear whole or not at all: written under a temporary name beside the target, flushed to
//! the disk, then renamed. A reader never sees half a model, and a failure leaves what was there untouched.

mod file;
mod folder;

use std::ffi::OsString;
#[cfg(unix)]
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use file::{AtomicFile, commit_together};
pub use folder::AtomicFolder;

use crate::FormatError;

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
    /// Fails if a file cannot be called `target`: something there must be kept, or is a folder, which no file
    /// replaces.
    ///
    /// # Errors
    /// The target, and what it is.
    pub fn check(self, target: &Path) -> Result<(), FormatError> {
        check_name(target)?;
        match target.symlink_metadata() {
            Err(_) => Ok(()),
            Ok(_) if self == Existing::Keep => Err(exists(target)),
            Ok(found) if found.is_dir() => {
                Err(FormatError::IsFolder { folder: target.display().to_string() })
            }
            Ok(_) => Ok(()),
        }
    }

    /// As [`Existing::check`], and tries whether a file can be made there at all: for the time before long work.
    ///
    /// # Errors
    /// As [`Existing::check`]; its folder is missing or may not be written to.
    pub fn check_writable(self, target: &Path) -> Result<(), FormatError> {
        AtomicFile::create(target, self).map(drop)
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// As [`Existing::check_writable`]; the disk is full.
    pub fn write(self, target: &Path, bytes: &[u8]) -> Result<(), FormatError> {
        let mut file = AtomicFile::create(target, self)?;
        file.write(bytes)?;
        file.commit()
    }
}

/// Fails for `..`, `/` and the like, which name a place but nothing that can be put there.
fn check_name(target: &Path) -> Result<(), FormatError> {
    match target.file_name() {
        Some(_) => Ok(()),
        None => Err(FormatError::NoName { path: target.display().to_string() }),
    }
}

fn exists(target: &Path) -> FormatError {
    FormatError::Exists { file: target.display().to_string() }
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

/// A name beside `target` that nothing has.
fn unused_name(target: &Path, ending: &str) -> PathBuf {
    let names = (0..MAX_TEMPORARIES).map(|attempt| temporary_name(target, ending, attempt));
    let mut free = names.filter(|name| name.symlink_metadata().is_err());
    free.next().unwrap_or_else(|| temporary_name(target, ending, MAX_TEMPORARIES))
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
