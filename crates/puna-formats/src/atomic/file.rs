//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Existing, create_beside, exists, sync_folder, unused_name};
use crate::FormatError;

const BUFFER_BYTES: usize = 1 << 20;

/// A file being written. Dropped before [`AtomicFile::commit`], it leaves nothing behind.
pub(crate) struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    existing: Existing,
    /// `None` once all bytes are on the disk.
    out: Option<BufWriter<File>>,
    placed: bool,
}

impl AtomicFile {
    pub(crate) fn create(target: &Path, existing: Existing) -> Result<Self, FormatError> {
        existing.check(target)?;
        let (temporary, file) = create_beside(target, |temporary| {
            OpenOptions::new().write(true).create_new(true).open(temporary)
        })?;
        let out = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
        Ok(Self { target: target.to_owned(), temporary, existing, out, placed: false })
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
        self.seal()?;
        self.place()
    }

    /// Completes the file on the disk and closes it, which Windows asks for before a rename.
    fn seal(&mut self) -> Result<(), FormatError> {
        self.with_out(|out| out.flush().and_then(|()| out.get_ref().sync_all()))?;
        drop(self.out.take());
        Ok(())
    }

    fn place(&mut self) -> Result<(), FormatError> {
        self.rename()?;
        self.placed = true;
        sync_folder(&self.target);
        Ok(())
    }

    fn rename(&self) -> Result<(), FormatError> {
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

    /// Moves what is to be replaced out of the way, and says where to.
    fn move_old_aside(&self) -> Result<Option<PathBuf>, FormatError> {
        if self.target.symlink_metadata().is_err() {
            return Ok(None);
        }
        let old = unused_name(&self.target, "old");
        match fs::rename(&self.target, &old) {
            Ok(()) => Ok(Some(old)),
            Err(e) => Err(FormatError::io(self.target.display(), e)),
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        drop(self.out.take());
        if !self.placed {
            remove(&self.temporary);
        }
    }
}

/// Puts files in their places that are of use only together and are entered by the first. At no moment does the first
/// lie beside others that are not its own: an old one goes first, the new one comes last. A failure brings back what
/// was there.
pub(crate) fn commit_together(mut files: Vec<AtomicFile>) -> Result<(), FormatError> {
    if files.len() == 1 {
        return files.remove(0).commit();
    }
    for file in &mut files {
        file.seal()?;
    }
    for file in &files {
        file.existing.check(&file.target)?;
    }
    let mut old = Vec::with_capacity(files.len());
    if let Err(e) = exchange(&mut files, &mut old) {
        for file in files.iter().filter(|file| file.placed) {
            remove(&file.target);
        }
        for (place, target) in old.iter().rev() {
            let _ = fs::rename(place, target);
        }
        return Err(e);
    }
    for (place, _) in old {
        remove(&place);
    }
    Ok(())
}

/// Moves old files aside, noting each in `old` with the name it had, and places the new ones.
fn exchange(
    files: &mut [AtomicFile],
    old: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<(), FormatError> {
    for file in files.iter().filter(|file| file.existing == Existing::Replace) {
        let place = file.move_old_aside()?;
        old.extend(place.map(|place| (place, file.target.clone())));
    }
    files.iter_mut().rev().try_for_each(AtomicFile::place)
}

/// Removes a temporary file. That this can fail too is no news to someone who is being told of a failure.
fn remove(temporary: &Path) {
    let _ = fs::remove_file(temporary);
}

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
        let message = |outcome: Result<(), FormatError>| outcome.unwrap_err().to_string();
        let early = message(Existing::Replace.check_writable(&target));
        assert!(early.contains("model is a folder"), "{early}");
        let late = AtomicFile::create(&folder.path().join("late"), Existing::Replace).unwrap();
        fs::create_dir(folder.path().join("late")).unwrap();
        assert!(late.commit().is_err());
        assert_eq!(n_entries(folder.path()), 2);
        for (path, part) in [("..", "name"), ("no/such/folder", "no/such/folder")] {
            let message = message(Existing::Replace.check_writable(Path::new(path)));
            assert!(message.contains(part), "{message}");
        }
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
}
