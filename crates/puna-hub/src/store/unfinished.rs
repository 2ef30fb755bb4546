//! What interrupted pulls left.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{Manifest, Removed, Store, StoreError, entries, io_error, with_suffix};

impl Store {
    /// What interrupted pulls left: files on their way that nobody is fetching now, and whole ones of models that are
    /// not whole. (The latter cannot be told while the description of a model cannot be read.)
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn unfinished(&self) -> Result<Removed, StoreError> {
        let keys = self.partial_keys()?.into_iter();
        let is_left = |key: &String| self.partial_path(key).exists() && !self.is_being_fetched(key);
        let mut sizes: Vec<u64> = keys.filter(is_left).map(|k| self.partial_bytes(&k)).collect();
        let (models, unreadable) = self.list_readable()?;
        if unreadable.is_empty() {
            sizes.extend(self.loose_blobs(&models)?.iter().map(|(_, size)| *size));
        }
        Ok(Removed {
            freed: sizes.iter().copied().fold(0, u64::saturating_add),
            n_files: sizes.len(),
        })
    }

    /// Removes it, except files that another process is fetching. (One that misses a whole file fetches it again.)
    ///
    /// # Errors
    /// A file that cannot be removed; a description that cannot be read, since its model may have any whole file.
    pub fn remove_unfinished(&self) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let mut remove = |path: &Path, size: u64| match fs::remove_file(path) {
            Ok(()) => {
                removed.freed = removed.freed.saturating_add(size);
                removed.n_files += 1;
                Ok(())
            }
            // It was finished, or removed, by another process.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io_error(path)(e)),
        };
        for key in self.partial_keys()? {
            let Some(_lock) = self.try_lock_partial(&key)? else { continue };
            let (path, size) = (self.partial_path(&key), self.partial_bytes(&key));
            remove(&path, size)?;
            let _ = fs::remove_file(with_suffix(&path, "ranges"));
        }
        let _lock = self.lock()?;
        for (path, size) in self.loose_blobs(&self.list()?)? {
            remove(&path, size)?;
        }
        Ok(removed)
    }

    /// Whether a process holds the lock on the file that is to have checksum `key`.
    fn is_being_fetched(&self, key: &str) -> bool {
        let lock = File::open(with_suffix(&self.partial_path(key), "lock"));
        lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Whole files that none of all the `models` has, with their sizes.
    fn loose_blobs(&self, models: &[Manifest]) -> Result<Vec<(PathBuf, u64)>, StoreError> {
        let used: HashSet<PathBuf> =
            models.iter().flat_map(|m| &m.files).map(|f| self.blob_path(&f.sha256)).collect();
        let is_blob = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sha256-"))
        };
        let blobs = entries(&self.root.join("blobs"))?.into_iter();
        let loose = blobs.filter(|path| is_blob(path) && !used.contains(path));
        // One that is gone by now is not there to be counted.
        let sized = |path: PathBuf| fs::metadata(&path).ok().map(|meta| (path, meta.len()));
        Ok(loose.filter_map(sized).collect())
    }

    /// The checksums that the files on their way are to have, also of those of which only counts or a lock are left.
    fn partial_keys(&self) -> Result<BTreeSet<String>, StoreError> {
        let names = entries(&self.root.join("blobs"))?.into_iter();
        let names = names.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let key = |name: String| {
            let rest = name.strip_prefix("partial-")?;
            Some(rest.split('.').next().unwrap_or(rest).to_owned())
        };
        Ok(names.filter_map(key).collect())
    }
}
