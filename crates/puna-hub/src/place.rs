//! Where a model is: from a word to files, bytes in the program, or adapters and what they are added to.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_formats::Checkpoint;

use crate::built_in::{self, BuiltIn};
use crate::lora::{Adapted, Task, base_of, is_adapters};
use crate::pull::Reference;
use crate::result::result_of;
use crate::store::{Manifest, StoreError};
use crate::{HubError, OpenOptions, near_matches};

/// Most names that an unknown one is met with.
const MAX_NEAR: usize = 3;

/// Most folders of adapters that are added to one model.
const MAX_ADAPTERS: usize = 16;

/// Where a model is.
pub(crate) enum Place {
    Path(PathBuf),
    /// In the store; `path` is what to open there.
    Pulled {
        path: PathBuf,
        manifest: Box<Manifest>,
    },
    BuiltIn(&'static BuiltIn),
    /// A folder of adapters, and the model that they name.
    Adapters {
        folder: PathBuf,
        base: Box<Place>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Path(path) => path.display().fmt(f),
            Place::Pulled { manifest, .. } => manifest.model.fmt(f),
            Place::BuiltIn(model) => f.write_str(model.name),
            Place::Adapters { folder, .. } => folder.display().fmt(f),
        }
    }
}

impl Place {
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint, HubError> {
        Ok(match self {
            Place::Path(path) | Place::Pulled { path, .. } => puna_formats::open(path)?,
            Place::BuiltIn(model) => model.checkpoint()?,
            Place::Adapters { folder, base } => with_adapters(base.checkpoint()?, folder)?,
        })
    }

    /// The model below all adapters.
    pub(crate) fn base(&self) -> &Self {
        match self {
            Self::Adapters { base, .. } => base.base(),
            model => model,
        }
    }
}

/// Where `model` is: a path that exists, else a built-in name, else a name in the store.
pub(crate) fn locate(model: &str, options: &OpenOptions) -> Result<Place, HubError> {
    locate_below(model, options, 0)
}

/// The same below `depth` folders of adapters.
pub(crate) fn locate_below(
    model: &str,
    options: &OpenOptions,
    depth: usize,
) -> Result<Place, HubError> {
    if depth > MAX_ADAPTERS {
        return Err(HubError::TooDeep { most: MAX_ADAPTERS });
    }
    let path = &*result_of(Path::new(model));
    if is_adapters(path) {
        let base = Box::new(base_of(path, |base| locate_below(base, options, depth + 1))?);
        return Ok(Place::Adapters { folder: path.to_path_buf(), base });
    }
    if path.exists() {
        return Ok(Place::Path(path.to_path_buf()));
    }
    if let Some(model) = built_in::find(model) {
        return Ok(Place::BuiltIn(model));
    }
    let mut near = near_paths(path);
    if let Some(store) = &options.store {
        match store.find(model) {
            Ok(manifest) => {
                let path = store.place_of(&manifest);
                return Ok(Place::Pulled { path, manifest: Box::new(manifest) });
            }
            Err(StoreError::Unknown { near: pulled, .. }) => near = [pulled, near].concat(),
            Err(e) => return Err(e.into()),
        }
    }
    near.truncate(MAX_NEAR);
    // What looks like a repository's name can be fetched, unless it looks still more like something that is here.
    let pull = near.is_empty() && options.store.is_some() && Reference::parse(model).is_ok();
    Err(HubError::NotFound { model: path.display().to_string(), near, pull })
}

/// Built-in names, and files beside where `missing` should be, that are spelt almost like it.
fn near_paths(missing: &Path) -> Vec<String> {
    let file_name =
        missing.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = missing.parent().unwrap_or(Path::new(""));
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let beside: Vec<String> = std::fs::read_dir(listed)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let near_files = near_matches(&file_name, beside.iter().map(String::as_str));
    let near_files = near_files.into_iter().map(|name| folder.join(name).display().to_string());
    let typed = missing.to_string_lossy();
    let near_names = near_matches(&typed, built_in::built_in_names().iter().copied());
    near_names.into_iter().map(str::to_owned).chain(near_files).collect()
}

/// With the adapters in `folder`, and the chat template beside them, which is of what they were made for.
pub(crate) fn with_adapters(
    mut checkpoint: Checkpoint,
    folder: &Path,
) -> Result<Checkpoint, HubError> {
    checkpoint.source = Arc::new(Adapted::open(checkpoint.source, folder, Task::Language)?);
    let path = folder.join("chat_template.jinja");
    if path.is_file() {
        let text = std::fs::read_to_string(&path);
        checkpoint.chat_template = Some(text.map_err(|source| HubError::Io { path, source })?);
    }
    Ok(checkpoint)
}
