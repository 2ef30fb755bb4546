//! Folders that appear whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Existing, check_name, create_beside, exists, sync_folder, unused_name};
use crate::FormatError;

/// A folder being filled. Dropped before [`AtomicFolder::commit`], it leaves nothing behind.
pub struct AtomicFolder {
    target: PathBuf,
    temporary: PathBuf,
    existing: Existing,
    belongs: fn(&str) -> bool,
    committed: bool,
}

impl AtomicFolder {
    /// Begins a folder that will be called `target`; an empty one of that name may be there. One that is to be
    /// replaced must hold plain files only, each of a name for which `belongs` is true, so that nothing is lost but
    /// what is written anew.
    ///
    /// # Errors
    /// Something else is there, or no folder can be made beside it.
    pub fn create(
        target: &Path,
        existing: Existing,
        belongs: fn(&str) -> bool,
    ) -> Result<Self, FormatError> {
        check_name(target)?;
        // Without a `.` at the end, which a rename does not take.
        let target: PathBuf = target.components().collect();
        check_replaceable(&target, existing, belongs)?;
        let (temporary, ()) = create_beside(&target, |temporary| fs::create_dir(temporary))?;
        Ok(Self { target, temporary, existing, belongs, committed: false })
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
                // Something may have been put there meanwhile.
                check_replaceable(&self.target, self.existing, self.belongs)?;
                let old = unused_name(&self.target, "old");
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

/// Fails if a folder cannot take the place of what is at `target`.
fn check_replaceable(
    target: &Path,
    existing: Existing,
    belongs: fn(&str) -> bool,
) -> Result<(), FormatError> {
    let Ok(found) = target.symlink_metadata() else { return Ok(()) };
    let foreign = if found.is_dir() { first_foreign(target, belongs)? } else { None };
    let is_empty = found.is_dir() && fs::read_dir(target).is_ok_and(|mut all| all.next().is_none());
    let found = match foreign {
        _ if is_empty => return Ok(()),
        _ if existing == Existing::Keep => return Err(exists(target)),
        None if found.is_dir() => return Ok(()),
        None => "no folder".to_owned(),
        Some(name) => format!("{} in it", name.display()),
    };
    Err(FormatError::NotReplaced { folder: target.display().to_string(), found })
}

/// The first entry, in alphabetical order, that is no plain file or of a name that `belongs` does not know.
fn first_foreign(
    folder: &Path,
    belongs: fn(&str) -> bool,
) -> Result<Option<OsString>, FormatError> {
    let io = |e| FormatError::io(folder.display(), e);
    let mut foreign = None;
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let (name, is_file) = (entry.file_name(), entry.file_type().map_err(io)?.is_file());
        let is_own = is_file && name.to_str().is_some_and(belongs);
        if !is_own && foreign.as_ref().is_none_or(|first| name < *first) {
            foreign = Some(name);
        }
    }
    Ok(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn folders_appear_whole() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("model");
        let begin = |existing| AtomicFolder::create(&target, existing, |name| name == "a");
        let fill = |existing, text: &str| {
            let folder = begin(existing).unwrap();
            folder.write("a", text.as_bytes()).unwrap();
            folder
        };
        drop(fill(Existing::Keep, "dropped"));
        assert_eq!(n_entries(root.path()), 0);
        fs::create_dir(&target).unwrap();
        fill(Existing::Keep, "first").commit().unwrap();
        assert!(begin(Existing::Keep).is_err());
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

    #[test]
    fn folders_with_other_things_are_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("model");
        fs::create_dir(&target).unwrap();
        let begin =
            |path: &Path| AtomicFolder::create(path, Existing::Replace, |name| name != "notes");
        let refused = |outcome: Result<AtomicFolder, FormatError>, part: &str| {
            let message = outcome.err().expect("it is refused").to_string();
            assert!(message.contains(part) && message.contains("left as it is"), "{message}");
        };
        fs::write(target.join("a"), "old").unwrap();
        let late = begin(&target).unwrap();
        fs::write(target.join("notes"), "precious").unwrap();
        assert!(late.commit().is_err());
        refused(begin(&target), "found notes in it");
        fs::create_dir(target.join("b")).unwrap();
        refused(begin(&target), "found b in it");
        refused(begin(&target.join("notes")), "found no folder");
        assert_eq!(fs::read(target.join("notes")).unwrap(), b"precious");
        assert_eq!((n_entries(root.path()), n_entries(&target)), (1, 3));
        assert!(begin(Path::new("..")).is_err());
        fs::remove_file(target.join("notes")).unwrap();
        fs::remove_dir(target.join("b")).unwrap();
        let new = begin(&target.join(".")).unwrap();
        new.write("c", b"new").unwrap();
        new.commit().unwrap();
        assert_eq!((n_entries(root.path()), n_entries(&target)), (1, 1));
    }
}
