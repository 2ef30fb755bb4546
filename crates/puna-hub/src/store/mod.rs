//! The store: where pulled models lie.
//!
//! ```text
//! blobs/sha256-…            each file once, under the SHA-256 of its bytes
//! blobs/partial-…           files on their way, each with what is there of it (`.ranges`) and a lock (`.lock`)
//! manifests/ORG/NAME/….json one description a model
//! models/ORG/NAME/…/        its files under their own names, as hard links to the blobs where there are such
//! licences/ORG/NAME/….json  the licences that were accepted
//! store.lock                held while descriptions and blobs change
//! ```
//!
//! Blobs, and with them the links to them, are read-only (except on Windows): one may be part of several models.
//!
//! Several processes may use a store at once. A file appears under its final name only when it is whole and has the
//! right checksum; a description only when all its files are there.

mod error;
mod manifest;
mod models;
mod name;
mod partial;
mod unfinished;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};

use crate::near_matches;

pub use error::StoreError;
pub use manifest::{Manifest, ManifestFile};
pub use name::{DEFAULT_REVISION, ModelName};

pub(crate) use manifest::{MAX_FILES, check_distinct, check_path, is_hex};
pub(crate) use name::Typed;
pub(crate) use partial::{Partial, PartialLock, hex};

/// Largest description that is read: enough for as many files as a model may have, each with the longest path.
const MAX_MANIFEST_BYTES: u64 = 1 << 23;

/// A folder of pulled models. It need not exist until something is put into it.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What [`Store::remove`] and [`Store::remove_unfinished`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Bytes that the disk has back.
    pub freed: u64,
    /// Files.
    pub n_files: usize,
}

impl Store {
    /// The store at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All pulled models, by name.
    ///
    /// # Errors
    /// A folder or description that cannot be read.
    pub fn list(&self) -> Result<Vec<Manifest>, StoreError> {
        let (models, unreadable) = self.list_readable()?;
        unreadable.into_iter().next().map_or(Ok(models), Err)
    }

    /// The pulled models whose descriptions can be read, by name, and what is wrong with the other descriptions.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn list_readable(&self) -> Result<(Vec<Manifest>, Vec<StoreError>), StoreError> {
        let (mut models, mut unreadable) = (Vec::new(), Vec::new());
        for org in entries(&self.root.join("manifests"))? {
            for name in entries(&org)? {
                let files = entries(&name)?.into_iter();
                for file in files.filter(|f| f.extension().is_some_and(|e| e == "json")) {
                    match read_manifest(&file) {
                        Ok(found) => models.extend(found),
                        Err(e) => unreadable.push(e),
                    }
                }
            }
        }
        models.sort_by(|a, b| a.model.cmp(&b.model));
        Ok((models, unreadable))
    }

    /// The model that `typed` names: whole, or as far as it is unambiguous.
    ///
    /// # Errors
    /// No such model, or several; its description cannot be read. (Other models' descriptions do not matter.)
    pub fn find(&self, typed: &str) -> Result<Manifest, StoreError> {
        let parts = Typed::parse(typed);
        if let Some(model) = parts.as_ref().and_then(ModelName::from_typed)
            && let Some(found) = read_manifest(&self.manifest_path(&model))?
            && found.model == model
        {
            return Ok(found);
        }
        let (all, _) = self.list_readable()?;
        let is_meant = |m: &&Manifest| parts.as_ref().is_some_and(|p| m.model.answers_to(p));
        let mut matching: Vec<Manifest> = all.iter().filter(is_meant).cloned().collect();
        match matching.len() {
            1 => Ok(matching.remove(0)),
            0 => Err(StoreError::Unknown { name: typed.to_owned(), near: near_names(&all, typed) }),
            _ => {
                let names = matching.iter().map(|m| m.model.to_string()).collect();
                Err(StoreError::Ambiguous { name: typed.to_owned(), names })
            }
        }
    }

    /// The file or folder to open for a model.
    pub fn place_of(&self, manifest: &Manifest) -> PathBuf {
        let folder = self.folder_of(&manifest.model);
        if manifest.open.is_empty() { folder } else { join(&folder, &manifest.open) }
    }

    /// Whether all files of a model are where they should be.
    pub fn is_whole(&self, manifest: &Manifest) -> bool {
        let folder = self.folder_of(&manifest.model);
        let is_there =
            |path: PathBuf, size| fs::metadata(path).is_ok_and(|meta| meta.len() == size);
        manifest.files.iter().all(|file| {
            self.has_blob(&file.sha256, file.size) && is_there(join(&folder, &file.path), file.size)
        })
    }

    /// The path of the file with these bytes.
    pub(crate) fn blob_path(&self, sha256: &str) -> PathBuf {
        self.root.join("blobs").join(format!("sha256-{sha256}"))
    }

    /// Whether a file of this checksum is there, whole.
    pub(crate) fn has_blob(&self, sha256: &str, size: u64) -> bool {
        fs::metadata(self.blob_path(sha256)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Where it is recorded that the licence with checksum `sha256` was accepted for a repository.
    pub(crate) fn licence_path(&self, org: &str, name: &str, sha256: &str) -> PathBuf {
        self.root.join("licences").join(org).join(name).join(format!("{sha256}.json"))
    }

    /// Writes a small file of the store, whole or not at all.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        write_atomic(path, bytes)
    }

    fn folder_of(&self, model: &ModelName) -> PathBuf {
        self.root.join("models").join(&model.org).join(&model.name).join(model.file_stem())
    }

    fn manifest_path(&self, model: &ModelName) -> PathBuf {
        let folder = self.root.join("manifests").join(&model.org).join(&model.name);
        folder.join(format!("{}.json", model.file_stem()))
    }

    /// The lock of the whole store, for work that takes moments.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.root.join("store.lock");
        create_parent(&path)?;
        let file = open_lock(&path)?;
        file.lock().map_err(io_error(&path))?;
        Ok(file)
    }
}

/// The present time as `2026-11-24T06:40:00Z`.
pub(crate) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `path`, a path of a repository, below `folder`.
fn join(folder: &Path, path: &str) -> PathBuf {
    path.split('/').fold(folder.to_path_buf(), |folder, part| folder.join(part))
}

fn near_names(all: &[Manifest], typed: &str) -> Vec<String> {
    let names: Vec<String> = all.iter().map(|m| m.model.to_string()).collect();
    let near = near_matches(typed, names.iter().map(String::as_str));
    near.into_iter().take(3).map(str::to_owned).collect()
}

fn read_manifest(path: &Path) -> Result<Option<Manifest>, StoreError> {
    let problem = |message| StoreError::Manifest { path: path.to_path_buf(), message };
    let bytes = match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_MANIFEST_BYTES => {
            return Err(problem(format!(
                "at most {MAX_MANIFEST_BYTES} bytes, found {}",
                meta.len()
            )));
        }
        Ok(_) => fs::read(path),
        Err(e) => Err(e),
    };
    match bytes {
        Ok(bytes) => Manifest::parse(&bytes).map(Some).map_err(problem),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(io_error(path)(e)),
    }
}

/// Whether a file is not there: another process has just removed it, or its name, made of what was typed, is none that
/// the file system has.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
}

/// What is in a folder, in order; nothing if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>(),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => Err(e),
    };
    let mut listed = listed.map_err(io_error(folder))?;
    listed.sort();
    Ok(listed)
}

/// Writes a small file so that it is there whole or not at all. Its temporary name is no other's, since the store is
/// locked.
fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    create_parent(path)?;
    let new = with_suffix(path, "tmp");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, path)).map_err(|source| {
        let _ = fs::remove_file(&new);
        io_error(path)(source)
    })
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(folder)(e)),
        _ => Ok(()),
    }
}

fn create_parent(path: &Path) -> Result<(), StoreError> {
    path.parent().map_or(Ok(()), |parent| fs::create_dir_all(parent).map_err(io_error(parent)))
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    File::options().create(true).truncate(false).write(true).open(path).map_err(io_error(path))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_path_buf();
    move |source| StoreError::Io { path, source }
}
