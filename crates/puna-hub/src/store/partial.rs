//! A file on its way: its bytes so far, and which of them are there.
//!
//! The file is cut into ranges of one length, which may be filled in any order, each from its start. How much of each
//! is there stands in a second file, `….ranges`: little-endian u64, namely the file's size, the ranges' length, then a
//! count of bytes for each range. A count is written after the bytes it counts have reached the disk, so that whatever
//! ends the process, what is counted is there.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{Store, StoreError, create_parent, io_error, open_lock, with_suffix};

/// The right to fetch one file, held by one process at a time.
pub(crate) struct PartialLock {
    file: Option<File>,
    path: PathBuf,
    store: Store,
}

impl Drop for PartialLock {
    fn drop(&mut self) {
        // The file goes while the store is locked, so that nobody can have opened it and be about to lock it.
        if let Ok(_store) = self.store.lock() {
            let _ = fs::remove_file(&self.path);
            drop(self.file.take());
        }
    }
}

/// A file on its way.
pub(crate) struct Partial {
    path: PathBuf,
    size: u64,
    range_bytes: u64,
    ranges: Mutex<Ranges>,
}

struct Ranges {
    file: File,
    /// Bytes that are there of each range.
    done: Vec<u64>,
}

/// Checksums of a whole file, in lower-case hexadecimal digits.
pub(crate) struct Checksums {
    pub(crate) sha256: String,
    /// The name git gives a file: SHA-1 of `blob `, its size in decimal, a zero byte and its bytes.
    pub(crate) git: String,
}

impl Store {
    /// The lock on the file that is to have checksum `key`; `None` while another process has it.
    pub(crate) fn try_lock_partial(&self, key: &str) -> Result<Option<PartialLock>, StoreError> {
        let path = with_suffix(&self.partial_path(key), "lock");
        let _store = self.lock()?;
        create_parent(&path)?;
        let file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(PartialLock { file: Some(file), path, store: self.clone() })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(io_error(&path)(e)),
        }
    }

    /// What is there of the file that is to have checksum `key`; begins it if nothing is.
    pub(crate) fn partial(
        &self,
        _lock: &PartialLock,
        key: &str,
        size: u64,
        range_bytes: u64,
    ) -> Result<Partial, StoreError> {
        let path = self.partial_path(key);
        let ranges_path = with_suffix(&path, "ranges");
        let n_ranges = size.div_ceil(range_bytes) as usize;
        let is_whole = fs::metadata(&path).is_ok_and(|meta| meta.len() == size);
        let found = fs::read(&ranges_path).ok().filter(|_| is_whole);
        let done = found.and_then(|bytes| parse_ranges(&bytes, size, range_bytes));
        let fresh = done.is_none();
        if fresh {
            // The old counts go first: they must not outlive the bytes that they count.
            let _ = fs::remove_file(&ranges_path);
            let file = File::create(&path).map_err(io_error(&path))?;
            file.set_len(size).map_err(io_error(&path))?;
        }
        let file = File::options().create(true).truncate(fresh).write(true).open(&ranges_path);
        let file = file.map_err(io_error(&ranges_path))?;
        let done = done.unwrap_or_else(|| vec![0; n_ranges]);
        let partial =
            Partial { path, size, range_bytes, ranges: Mutex::new(Ranges { file, done }) };
        if fresh {
            partial.reset()?;
        }
        Ok(partial)
    }

    /// Bytes of the disk that the file on its way already has.
    pub(crate) fn partial_bytes(&self, key: &str) -> u64 {
        let path = self.partial_path(key);
        if cfg!(windows) {
            // The room for all of it was taken when it was begun.
            return fs::metadata(path).map_or(0, |meta| meta.len());
        }
        counts(&fs::read(with_suffix(&path, "ranges")).unwrap_or_default())
    }

    /// Moves a whole file to its final name.
    pub(crate) fn keep(&self, partial: Partial, sha256: &str) -> Result<(), StoreError> {
        let blob = self.blob_path(sha256);
        File::options()
            .write(true)
            .open(&partial.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&partial.path, &blob))
            .and_then(|()| protect(&blob))
            .map_err(io_error(&blob))?;
        let ranges = with_suffix(&partial.path, "ranges");
        drop(partial);
        let _ = fs::remove_file(ranges);
        Ok(())
    }

    pub(super) fn partial_path(&self, key: &str) -> PathBuf {
        self.root.join("blobs").join(format!("partial-{key}"))
    }
}

/// Makes a blob read-only, and with it each model's file that is a link to it: whoever writes to one changes them all.
/// Not on Windows, where read-only files resist removal.
fn protect(blob: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    let mut permissions = fs::metadata(blob)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(blob, permissions)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
}

/// All that a `….ranges` file counts.
fn counts(bytes: &[u8]) -> u64 {
    words(bytes).skip(2).fold(0, u64::saturating_add)
}

/// The counts of a `….ranges` file, if they are those of such a file.
fn parse_ranges(bytes: &[u8], size: u64, range_bytes: u64) -> Option<Vec<u64>> {
    let n_ranges = size.div_ceil(range_bytes);
    let mut words = words(bytes);
    let is_ours = words.next() == Some(size) && words.next() == Some(range_bytes);
    let done: Vec<u64> = words.collect();
    let fits = |(idx, &n): (usize, &u64)| n <= range_len(size, range_bytes, idx);
    (is_ours && done.len() as u64 == n_ranges && done.iter().enumerate().all(fits)).then_some(done)
}

/// Bytes of the range `idx`.
fn range_len(size: u64, range_bytes: u64, idx: usize) -> u64 {
    range_bytes.min(size - idx as u64 * range_bytes)
}

impl Partial {
    /// Forgets what is there.
    pub(crate) fn reset(&self) -> Result<(), StoreError> {
        self.set_prefix(0)
    }

    /// Records that `file`, a handle of this file's, has been filled from its start up to byte `end`.
    pub(crate) fn record_prefix(&self, file: &File, end: u64) -> Result<(), StoreError> {
        file.sync_data().map_err(io_error(&self.path))?;
        self.set_prefix(end)
    }

    fn set_prefix(&self, end: u64) -> Result<(), StoreError> {
        let mut ranges = self.ranges();
        let mut bytes = [self.size.to_le_bytes(), self.range_bytes.to_le_bytes()].concat();
        for (idx, done) in ranges.done.iter_mut().enumerate() {
            let first = idx as u64 * self.range_bytes;
            *done = end.saturating_sub(first).min(range_len(self.size, self.range_bytes, idx));
            bytes.extend(done.to_le_bytes());
        }
        let written =
            ranges.file.seek(SeekFrom::Start(0)).and_then(|_| ranges.file.write_all(&bytes));
        written.map_err(io_error(&self.path))
    }

    /// Bytes that are there.
    pub(crate) fn n_done(&self) -> u64 {
        self.ranges().done.iter().sum()
    }

    /// How many ranges there are.
    pub(crate) fn n_ranges(&self) -> usize {
        self.ranges().done.len()
    }

    /// What is missing of a range: its first byte and the one after its last.
    pub(crate) fn missing(&self, idx: usize) -> (u64, u64) {
        let first = idx as u64 * self.range_bytes;
        (first + self.ranges().done[idx], first + range_len(self.size, self.range_bytes, idx))
    }

    /// A handle to write with from byte `offset` on.
    pub(crate) fn writer_at(&self, offset: u64) -> Result<File, StoreError> {
        let file = File::options().write(true).open(&self.path);
        let opened = file.and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
        opened.map_err(io_error(&self.path))
    }

    /// Records that `file`, a handle of this file's, has been filled up to byte `end`, once the disk has the bytes.
    pub(crate) fn record(&self, file: &File, idx: usize, end: u64) -> Result<(), StoreError> {
        file.sync_data().map_err(io_error(&self.path))?;
        let done = end - idx as u64 * self.range_bytes;
        let mut ranges = self.ranges();
        ranges.done[idx] = done;
        let at = SeekFrom::Start((2 + idx as u64) * 8);
        let written = ranges.file.seek(at).and_then(|_| ranges.file.write_all(&done.to_le_bytes()));
        written.map_err(io_error(&self.path))
    }

    /// Reads the whole file; `watch` gets the bytes of each step and says whether to go on. `None` if it does not.
    pub(crate) fn checksums(
        &self,
        watch: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Checksums>, StoreError> {
        let mut file = File::open(&self.path).map_err(io_error(&self.path))?;
        let mut buffer = vec![0; 1 << 20];
        let (mut sha256, mut git) = (Sha256::new(), Sha1::new());
        git.update(format!("blob {}\0", self.size));
        loop {
            let n = file.read(&mut buffer).map_err(io_error(&self.path))?;
            if n == 0 {
                break;
            }
            sha256.update(&buffer[..n]);
            git.update(&buffer[..n]);
            if !watch(n as u64) {
                return Ok(None);
            }
        }
        Ok(Some(Checksums { sha256: hex(&sha256.finalize()), git: hex(&git.finalize()) }))
    }

    /// Removes the file.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(with_suffix(&self.path, "ranges"));
        let _ = fs::remove_file(&self.path);
    }

    /// Where the bytes are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().expect("no holder panics")
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Removed, entries};
    use super::*;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn only_sound_counts_are_believed() {
        // 25 bytes in ranges of 10: the last has 5.
        let check = |bytes: &[u8], expected: Option<&[u64]>| {
            assert_eq!(parse_ranges(bytes, 25, 10).as_deref(), expected, "{bytes:?}");
        };
        check(&bytes(&[25, 10, 10, 3, 5]), Some(&[10, 3, 5]));
        check(&bytes(&[25, 10, 10, 3, 6]), None);
        check(&bytes(&[25, 10, 11, 3, 5]), None);
        check(&bytes(&[25, 10, 10, 3]), None);
        check(&bytes(&[26, 10, 10, 3, 5]), None);
        check(&bytes(&[25, 10, 10, 3, 5])[..39], None);
        check(&[], None);
    }

    #[test]
    fn what_was_recorded_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let key = "git-00";
        let lock = store.try_lock_partial(key).unwrap().unwrap();
        assert!(store.try_lock_partial(key).unwrap().is_none());
        let partial = store.partial(&lock, key, 25, 10).unwrap();
        let mut file = partial.writer_at(10).unwrap();
        file.write_all(b"abc").unwrap();
        partial.record(&file, 1, 13).unwrap();
        drop(partial);
        let partial = store.partial(&lock, key, 25, 10).unwrap();
        assert_eq!((partial.n_ranges(), partial.n_done(), partial.missing(1)), (3, 3, (13, 20)));
        drop(lock);
        assert_eq!(store.unfinished().unwrap(), Removed { freed: 3, n_files: 1 });
        // Of another size, it is another file; nor is one left that is being fetched.
        let lock = store.try_lock_partial(key).unwrap().unwrap();
        assert_eq!(store.unfinished().unwrap(), Removed::default());
        assert_eq!(store.partial(&lock, key, 26, 10).unwrap().n_done(), 0);
        drop(lock);
        let stray = folder.path().join("blobs").join("partial-git-01");
        fs::write(with_suffix(&stray, "ranges"), "").unwrap();
        fs::write(with_suffix(&stray, "lock"), "").unwrap();
        assert_eq!(store.unfinished().unwrap().n_files, 1);
        assert_eq!(store.remove_unfinished().unwrap().n_files, 1);
        assert!(entries(&folder.path().join("blobs")).unwrap().is_empty());
    }

    #[test]
    fn checksums_are_gits_and_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let lock = store.try_lock_partial("k").unwrap().unwrap();
        let partial = store.partial(&lock, "k", 6, 10).unwrap();
        partial.writer_at(0).unwrap().write_all(b"hello\n").unwrap();
        let sums = partial.checksums(&mut |_| true).unwrap().unwrap();
        // `printf 'hello\n' | git hash-object --stdin`, `printf 'hello\n' | sha256sum`.
        assert_eq!(sums.git, "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(sums.sha256, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        store.keep(partial, &sums.sha256).unwrap();
        let blob = fs::metadata(store.blob_path(&sums.sha256)).unwrap();
        assert_eq!(blob.permissions().readonly(), !cfg!(windows));
    }
}
