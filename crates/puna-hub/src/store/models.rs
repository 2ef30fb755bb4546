//! Entering models into the store, and removing them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::{
    MAX_MANIFEST_BYTES, Manifest, ManifestFile, ModelName, Removed, Store, StoreError,
    create_parent, io_error, join, read_manifest, remove_folder, write_atomic,
};

/// Folders beside those of a repository's models: one being filled, and one that was replaced. No model's folder is
/// called so, since `%` is followed by a hexadecimal digit there.
const NEW: &str = "%new";
const OLD: &str = "%old";

impl Store {
    /// Enters a model whose files are all in `blobs`: its folder, then its description. Files that another process
    /// removed meanwhile are given back, to be fetched again; then nothing was entered.
    pub(crate) fn commit(&self, manifest: &Manifest) -> Result<Vec<ManifestFile>, StoreError> {
        let path = self.manifest_path(&manifest.model);
        let description = checked_bytes(manifest)
            .map_err(|message| StoreError::Manifest { path: path.clone(), message })?;
        let _lock = self.lock()?;
        let missing = manifest.files.iter().filter(|f| !self.has_blob(&f.sha256, f.size));
        let missing: Vec<ManifestFile> = missing.cloned().collect();
        if !missing.is_empty() {
            return Ok(missing);
        }
        let folder = self.folder_of(&manifest.model);
        let new = folder.with_file_name(NEW);
        remove_folder(&new)?;
        let entered = self.fill(&new, &manifest.files).and_then(|()| replace_folder(&folder, &new));
        if entered.is_err() {
            let _ = remove_folder(&new);
        }
        entered?;
        write_atomic(&path, &description)?;
        Ok(Vec::new())
    }

    /// Whether files can have several names here, so that a model's folder takes no room of its own.
    pub(crate) fn has_links(&self) -> Result<bool, StoreError> {
        let _lock = self.lock()?;
        let link = self.root.join("store.link");
        let linked = fs::hard_link(self.root.join("store.lock"), &link);
        match fs::remove_file(&link) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(&link)(e)),
            _ => Ok(linked.is_ok()),
        }
    }

    /// Makes a folder with these files, which are in `blobs`, under their own names.
    fn fill(&self, folder: &Path, files: &[ManifestFile]) -> Result<(), StoreError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        files.iter().try_for_each(|file| {
            let link = join(folder, &file.path);
            create_parent(&link)?;
            link_blob(&self.blob_path(&file.sha256), &link)
        })
    }

    /// Removes a model, and the files that no other model has.
    ///
    /// # Errors
    /// A file that cannot be removed; nothing was if the description of another model, which may have the same files,
    /// cannot be read.
    pub fn remove(&self, model: &ModelName) -> Result<Removed, StoreError> {
        let _lock = self.lock()?;
        let path = self.manifest_path(model);
        let Some(manifest) = read_manifest(&path)? else { return Ok(Removed::default()) };
        let models = self.list()?;
        let others = models.iter().filter(|other| other.model != *model);
        let kept: HashSet<&str> =
            others.flat_map(|m| &m.files).map(|f| f.sha256.as_str()).collect();
        fs::remove_file(&path).map_err(io_error(&path))?;
        let folder = self.folder_of(model);
        remove_folder(&folder)?;
        for path in [path.as_path(), &folder] {
            // Their owners' folders go too, once empty.
            let _ = path.ancestors().skip(1).take(2).try_for_each(fs::remove_dir);
        }
        let mut removed = Removed::default();
        for file in manifest.files.iter().filter(|f| !kept.contains(f.sha256.as_str())) {
            let blob = self.blob_path(&file.sha256);
            match fs::remove_file(&blob) {
                Ok(()) => {
                    removed.freed += file.size;
                    removed.n_files += 1;
                }
                // The same bytes under two names of the model.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io_error(&blob)(e)),
            }
        }
        Ok(removed)
    }
}

/// A description's bytes, if they can be read again.
fn checked_bytes(manifest: &Manifest) -> Result<Vec<u8>, String> {
    let bytes = manifest.to_bytes();
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(format!("at most {MAX_MANIFEST_BYTES} bytes, found {}", bytes.len()));
    }
    Manifest::parse(&bytes)?;
    Ok(bytes)
}

/// A second name for a blob; a copy where the file system has no hard links. What is there already is left alone: it
/// may be a name of another blob, which writing would change.
fn link_blob(blob: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::hard_link(blob, to) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {}
        linked => return linked.map_err(io_error(to)),
    }
    let copy = || io::copy(&mut File::open(blob)?, &mut File::create_new(to)?);
    copy().map(drop).map_err(io_error(to))
}

/// Puts `new` in the place of `folder`, which is back if that fails.
fn replace_folder(folder: &Path, new: &Path) -> Result<(), StoreError> {
    let old = folder.with_file_name(OLD);
    remove_folder(&old)?;
    let had_one = match fs::rename(folder, &old) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        moved => moved.map(|()| true).map_err(io_error(folder))?,
    };
    if let Err(e) = fs::rename(new, folder) {
        if had_one {
            let _ = fs::rename(&old, folder);
        }
        return Err(io_error(folder)(e));
    }
    // What cannot be removed now is removed when the next model is entered.
    let _ = remove_folder(&old);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;
    use crate::licence::Acceptance;
    use sha2::{Digest, Sha256};

    /// A model with these files, which are in the store; they all have bytes of their own.
    fn model(store: &Store, tag: &str, paths: &[&str]) -> Manifest {
        let file = |path: &&str| {
            let sha256 = hex(&Sha256::digest(path));
            let blob = store.blob_path(&sha256);
            create_parent(&blob).unwrap();
            if !blob.exists() {
                fs::write(&blob, path).unwrap();
            }
            ManifestFile { path: (*path).to_owned(), size: path.len() as u64, sha256 }
        };
        let name = ModelName {
            org: "o".to_owned(),
            name: "n".to_owned(),
            revision: "main".to_owned(),
            tag: Some(tag.to_owned()),
        };
        let licence =
            Acceptance { id: None, sha256: "0".repeat(64), accepted: super::super::now() };
        let files = paths.iter().map(file).collect();
        Manifest::new(name, "0".repeat(40), "GGUF".to_owned(), licence, String::new(), files)
    }

    fn blob(store: &Store, path: &str) -> String {
        fs::read_to_string(store.blob_path(&hex(&Sha256::digest(path)))).unwrap()
    }

    #[test]
    fn files_of_one_name_are_refused_and_no_blob_changes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let mut twice = model(&store, "a", &["x", "y"]);
        for second in ["x", "X"] {
            twice.files[1].path = second.to_owned();
            let message = store.commit(&twice).unwrap_err().to_string();
            assert!(message.contains("expected files of different names"), "{message}");
            assert_eq!((blob(&store, "x"), blob(&store, "y")), ("x".into(), "y".into()));
        }
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let [x, y, to] = ["x", "y", "to"].map(|name| folder.path().join(name));
        fs::write(&x, "x").unwrap();
        fs::write(&y, "y").unwrap();
        link_blob(&x, &to).unwrap();
        link_blob(&y, &to).unwrap_err();
        // Not even by the copy that stands in for a link, here of a blob that is none.
        link_blob(&folder.path().join("none"), &to).unwrap_err();
        assert_eq!(fs::read_to_string(&x).unwrap(), "x");
    }

    #[test]
    fn links_are_tried_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::write(&one, "").unwrap();
        assert_eq!(store.has_links().unwrap(), fs::hard_link(&one, &two).is_ok());
        assert!(!folder.path().join("store.link").exists());
    }

    #[test]
    fn what_could_not_be_read_again_is_not_entered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let mut many = model(&store, "a", &["x"]);
        many.files = vec![many.files[0].clone(); super::super::MAX_FILES + 1];
        let message = store.commit(&many).unwrap_err().to_string();
        assert!(message.contains("expected at most 10000 files"), "{message}");
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn no_model_stands_in_another_ones_way() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let one = model(&store, "a", &["x", "sub/y"]);
        let others = ["a.new", "%new", "a.old"].map(|tag| model(&store, tag, &["x", tag]));
        for manifest in others.iter().chain([&one, &one]) {
            assert_eq!(store.commit(manifest).unwrap(), []);
        }
        assert!(others.iter().chain([&one]).all(|manifest| store.is_whole(manifest)));
        let left = fs::read_dir(folder.path().join("models/o/n")).unwrap().count();
        assert_eq!(left, 4, "folders of models alone");
    }

    #[test]
    fn a_damaged_description_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let (good, bad) = (model(&store, "good", &["x"]), model(&store, "bad", &["x", "y"]));
        for manifest in [&good, &bad] {
            store.commit(manifest).unwrap();
        }
        fs::write(store.manifest_path(&bad.model), "{").unwrap();
        for typed in ["o/n:good", "n:GOOD", "n"] {
            assert_eq!(store.find(typed).unwrap(), good, "{typed}");
        }
        let long = store.find(&format!("o/n:{}", "x".repeat(300)));
        assert!(matches!(long, Err(StoreError::Unknown { .. })), "{long:?}");
        assert!(store.find("o/n:bad").unwrap_err().to_string().contains("bad.json"));
        let (models, unreadable) = store.list_readable().unwrap();
        assert_eq!((models, unreadable.len()), (vec![good.clone()], 1));
        // Which files the damaged one has is not known, so none is removed.
        assert!(store.remove(&good.model).unwrap_err().to_string().contains("bad.json"));
        store.remove_unfinished().unwrap_err();
        assert_eq!(store.unfinished().unwrap(), Removed::default());
        assert!(store.is_whole(&good) && store.is_whole(&bad));
        assert_eq!(store.find("o/n:good").unwrap(), good);
    }
}
