//! What a path is, by content: the first bytes of a file, the files in a folder.

use std::path::{Path, PathBuf};

use crate::listed::Parse;
use crate::map::DataFile;
use crate::{Checkpoint, FormatError, gguf, hf, llama2c, meta, safetensors, torch};

const HINT: &str = "give a GGUF or llama2.c file, or the folder of a Meta or Hugging Face model";

/// Opens a file: a model in itself, or one of the files of a folder that is one.
pub(crate) fn open_file(path: &Path) -> Result<Checkpoint, FormatError> {
    let file = DataFile::open(path)?;
    let bytes = &file.bytes;
    if bytes.starts_with(&gguf::MAGIC) {
        return gguf::open(path, file);
    }
    let parse: Option<Parse> = if safetensors::is_safetensors(bytes) {
        Some(safetensors::parse)
    } else if torch::is_torch(bytes) {
        Some(torch::parse)
    } else {
        None
    };
    if let Some(parse) = parse {
        drop(file);
        return open_beside(path, parse);
    }
    if llama2c::is_llama2c(bytes) {
        return llama2c::open(Some(path), file);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if [hf::CONFIG, meta::PARAMS].contains(&name) || name.ends_with(".index.json") {
        let folder = folder_of(path);
        let hint = format!("did you mean the folder, {}?", folder.display());
        return Err(FormatError::not_a_model(path.display(), "a part of a model", hint));
    }
    Err(not_a_model(&file))
}

/// The error for bytes in no known form.
pub(crate) fn not_a_model(file: &DataFile) -> FormatError {
    let found = match file.bytes.len() {
        0 => "an empty file",
        _ => "not a model in any form known here",
    };
    FormatError::not_a_model(&file.name, found, HINT)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Opens a file of weights by the configuration that stands beside it.
fn open_beside(path: &Path, parse: Parse) -> Result<Checkpoint, FormatError> {
    let folder = folder_of(path);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if meta::is_shard_name(name) && folder.join(meta::PARAMS).exists() {
        return meta::open(folder);
    }
    if folder.join(hf::CONFIG).exists() {
        return hf::open(folder, Some((path, parse)));
    }
    let hint = format!("a {} or {} has to stand beside it", hf::CONFIG, meta::PARAMS);
    Err(FormatError::not_a_model(path.display(), "weights without a configuration", hint))
}

/// Opens a folder. One that is a Hugging Face model and one of Meta's at once is taken as the former; a GGUF
/// file counts where there are no other weights. What is half there is opened too, to say what is missing.
pub(crate) fn open_folder(folder: &Path) -> Result<Checkpoint, FormatError> {
    let has = |name| folder.join(name).exists();
    let (hf_weights, meta_weights) = (hf::has_weights(folder), meta::has_weights(folder));
    if has(hf::CONFIG) && hf_weights {
        return hf::open(folder, None);
    }
    if has(meta::PARAMS) && meta_weights {
        return meta::open(folder);
    }
    let models = gguf_models(folder)?;
    if let [model] = &models[..] {
        return open_file(model);
    }
    let missing = |name, reason| Err(FormatError::missing(folder.display(), name, reason));
    if !models.is_empty() {
        let names: Vec<_> = models.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        let found = format!("a folder with {} models in it", models.len());
        let hint = format!("give one of {}", names.join(", "));
        Err(FormatError::not_a_model(folder.display(), found, hint))
    } else if hf_weights {
        missing(hf::CONFIG, "the weights of a Hugging Face model are there")
    } else if meta_weights {
        missing(meta::PARAMS, "the weights of one of Meta's models are there")
    } else if has(hf::CONFIG) {
        hf::open(folder, None)
    } else if has(meta::PARAMS) {
        meta::open(folder)
    } else {
        Err(FormatError::not_a_model(folder.display(), "a folder without a model in it", HINT))
    }
}

/// The GGUF models of a folder, split ones by their first part, in alphabetical order.
fn gguf_models(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let io = |e| FormatError::io(folder.display(), e);
    let mut models = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.ends_with(".gguf") && !gguf::is_later_part(name) {
            models.push(path);
        }
    }
    models.sort();
    Ok(models)
}
