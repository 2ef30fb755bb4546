//! One writer at a time of what grows while a command runs.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError, remove_file};
use std::path::{Path, PathBuf};

use anyhow::bail;

/// A lock beside a file or a folder, `.NAME.lock`: systems let go of it when its holder ends, however that is. It is removed
/// at the end, so of two that begin in the very moment of a third's end both may pass.
pub(crate) struct Claim {
    path: PathBuf,
    /// Locked as long as it is open.
    _file: File,
}

impl Claim {
    /// `None` where no such file can be made or locked; what is wrong there shows when `out` is written.
    ///
    /// # Errors
    /// Another process holds it.
    pub(crate) fn of(out: &Path) -> anyhow::Result<Option<Self>> {
        let Some(name) = out.file_name() else { return Ok(None) };
        let name = [".".as_ref(), name, ".lock".as_ref()].into_iter().collect::<OsString>();
        let path = out.with_file_name(name);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let Ok(file) = opened else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { path, _file: file })),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{}: another process writes to it; let it end, or name another --out",
                    out.display()
                )
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A file that stays does no harm.
        let _ = remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let first = Claim::of(&out).unwrap();
        assert!(first.is_some());
        let error = Claim::of(&out).err().unwrap().to_string();
        assert!(error.contains("another process writes to it"), "{error}");
        drop(first);
        assert!(Claim::of(&out).unwrap().is_some());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
