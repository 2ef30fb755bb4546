//! A Hugging Face folder: weights, configuration, tokenizer, notices.

use std::fs;
use std::path::{Path, PathBuf};

use puna_core::{DType, RopeLayout};
use puna_formats::gguf::WriteOptions;
use puna_formats::hf::{self, ConfigExtras};
use puna_formats::{AtomicFolder, Form, safetensors};

use super::{Conversion, ConvertError, Written, notices};
use crate::licence::is_paper;
use crate::{HubError, Opened, disk};

/// Files of a Hugging Face tokenizer, as they are named.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Other files of a Hugging Face folder, as they are named.
const MODEL_FILES: [&str; 4] = [CONFIG, GENERATION_CONFIG, INDEX, notices::CARD];

const CONFIG: &str = "config.json";

const INDEX: &str = "model.safetensors.index.json";

/// How generation is meant to go, in a folder's own words.
const GENERATION_CONFIG: &str = "generation_config.json";

/// Writes the folder `path`.
pub(super) fn write(
    job: &Conversion<'_>,
    path: &Path,
    options: &WriteOptions,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Written, HubError> {
    check_apart(job.source, path)?;
    let folder = AtomicFolder::create(path, options.existing, belongs)?;
    disk::check_free(path, job.n_bytes())?;
    let mut notes = job.notes.clone();
    // Small files first: what is wrong with them shows before the long work.
    for (name, bytes) in small_files(job, &mut notes)? {
        folder.write(&name, &bytes)?;
    }
    let tensors = job.named(hf::name);
    let mut writer = safetensors::Writer::create(folder.path(), &tensors, options.max_file_bytes)?;
    job.recoder(RopeLayout::Halves).run(
        &job.tensors,
        &mut |id, bytes| writer.write_part(&hf::name(id), bytes),
        progress,
    )?;
    if let Some(index) = writer.finish()? {
        folder.write(INDEX, index.as_bytes())?;
    }
    folder.commit()?;
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut written = Written::of(entries.map(|entry| entry.path()).collect(), notes);
    written.files.retain(|file| file.extension() == Some("safetensors".as_ref()));
    written.files.sort();
    Ok(written)
}

/// Whether this module writes files of this name: what has another is not replaced.
fn belongs(name: &str) -> bool {
    let is_weights = name.starts_with("model") && name.ends_with(".safetensors");
    is_weights || MODEL_FILES.contains(&name) || TOKENIZER_FILES.contains(&name) || is_paper(name)
}

/// Fails if the folder that is to be written holds a file of the source.
fn check_apart(source: &Opened, path: &Path) -> Result<(), ConvertError> {
    let Ok(folder) = path.canonicalize() else { return Ok(()) };
    let is_inside = |file: &&PathBuf| file.canonicalize().is_ok_and(|f| f.starts_with(&folder));
    match source.checkpoint.files.iter().find(is_inside) {
        None => Ok(()),
        Some(file) => {
            let (folder, source_file) = (path.to_owned(), file.clone());
            Err(ConvertError::SourceInside { folder, source_file })
        }
    }
}

type SmallFile = (String, Vec<u8>);

/// Everything but the weights.
fn small_files(job: &Conversion<'_>, notes: &mut Vec<String>) -> Result<Vec<SmallFile>, HubError> {
    let source = job.source;
    let mut files = Vec::new();
    let extras = ConfigExtras {
        bos_id: source.tokenizer.bos_id().or(source.checkpoint.bos_id),
        eos_ids: source.checkpoint.eos_ids.clone(),
        pad_id: source.tokenizer.settings().pad_id,
        sampling: source.checkpoint.sampling,
        dtype: common_dtype(job),
    };
    let config = hf::config_json(source.checkpoint.source.config(), &extras);
    files.push((CONFIG.to_owned(), config.into_bytes()));
    let own = own_folder(source);
    let generation = own.as_ref().map(|folder| folder.join(GENERATION_CONFIG));
    let generation = match generation.filter(|path| path.is_file()) {
        Some(path) => read(path)?,
        None => hf::generation_config_json(&extras).into_bytes(),
    };
    files.push((GENERATION_CONFIG.to_owned(), generation));
    let copied = match own.filter(|_| source.own_tokenizer) {
        Some(folder) => tokenizer_files(&folder)?,
        None => Vec::new(),
    };
    if copied.iter().any(|(name, _)| name == "tokenizer.json" || name == "tokenizer.model") {
        files.extend(copied);
    } else {
        files.extend(made_tokenizer(source, notes)?);
    }
    files.extend(card(source)?);
    let papers = notices::files(source)?;
    notes.extend(papers.notes);
    files.extend(papers.files);
    Ok(files)
}

/// The type that holds the values of all tensors.
fn common_dtype(job: &Conversion<'_>) -> DType {
    let mut types = job.tensors.iter().map(|(_, info)| info.dtype);
    let first = types.next().unwrap_or(DType::F32);
    if types.all(|dtype| dtype == first) { first } else { DType::F32 }
}

/// The folder of a model that came in this form.
fn own_folder(source: &Opened) -> Option<PathBuf> {
    let file = source.checkpoint.files.first()?;
    (source.checkpoint.form == Form::HuggingFace)
        .then(|| file.parent().unwrap_or(Path::new("")).to_owned())
}

/// The model card: of a Hugging Face folder its own, of other forms a head that states the licence, if it is known.
fn card(source: &Opened) -> Result<Option<SmallFile>, HubError> {
    let own = own_folder(source).map(|folder| folder.join(notices::CARD));
    let bytes = match own.filter(|path| path.is_file()) {
        Some(path) => Some(read(path)?),
        None => notices::licence_name(source).map(|name| notices::card_head(&name).into_bytes()),
    };
    Ok(bytes.map(|bytes| (notices::CARD.to_owned(), bytes)))
}

/// The tokenizer's files of a folder, as they are.
fn tokenizer_files(folder: &Path) -> Result<Vec<SmallFile>, HubError> {
    let present = TOKENIZER_FILES.into_iter().filter(|name| folder.join(name).is_file());
    present.map(|name| Ok((name.to_owned(), read(folder.join(name))?))).collect()
}

fn read(path: PathBuf) -> Result<Vec<u8>, HubError> {
    fs::read(&path).map_err(|source| HubError::Io { path, source })
}

/// A tokenizer of another form as the files that `transformers` reads.
fn made_tokenizer(
    source: &Opened,
    notes: &mut Vec<String>,
) -> Result<Vec<SmallFile>, ConvertError> {
    let tokenizer = &source.tokenizer;
    let (add_bos, add_eos) = (source.bos_id.is_some(), source.add_eos());
    let template = source.checkpoint.chat_template.as_deref();
    let mut files = vec![
        ("tokenizer.json", tokenizer.to_hf_json(add_bos, add_eos)?),
        ("tokenizer_config.json", tokenizer.to_hf_config(add_bos, add_eos, template)),
        ("special_tokens_map.json", tokenizer.to_hf_special_tokens()),
    ];
    match tokenizer.to_sentencepiece() {
        Ok(model) => files.push(("tokenizer.model", model)),
        Err(e) => notes.push(format!("no tokenizer.model beside tokenizer.json: {e}")),
    }
    Ok(files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect())
}
