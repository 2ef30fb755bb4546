//! One GGUF file, or all the parts of a split one, to a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_core::{SamplingHints, WeightId};

use super::config::{self, Keys};
use super::names;
use super::read::Gguf;
use super::split::{self, MAX_PARTS, split_name};
use super::value::Value;
use super::vocab::GgufVocab;
use crate::map::DataFile;
use crate::weights::{Bytes, Collection, Stored, Weights};
use crate::{Checkpoint, Form, FormatError};

/// How metadata call what tokens should be drawn by, in the order of [`SamplingHints`]. Files that llama.cpp writes have them.
pub const SAMPLING: [&str; 5] = [
    "general.sampling.temp",
    "general.sampling.top_k",
    "general.sampling.top_p",
    "general.sampling.min_p",
    "general.sampling.penalty_repeat",
];

/// A parsed file with its bytes.
struct Part {
    file: Arc<DataFile>,
    gguf: Gguf,
}

impl Part {
    fn new(file: Arc<DataFile>) -> Result<Self, FormatError> {
        let gguf = Gguf::parse(&file.name, &file.bytes)?;
        Ok(Self { file, gguf })
    }

    fn keys(&self) -> Keys<'_> {
        Keys { file: &self.file.name, gguf: &self.gguf }
    }

    /// `split.count`; 1 for a file that is whole.
    fn n_parts(&self) -> Result<usize, FormatError> {
        match self.keys().count("split.count")? {
            None | Some(0 | 1) => Ok(1),
            Some(n) if n <= MAX_PARTS => Ok(n),
            Some(n) => {
                let expected = format!("at most {MAX_PARTS}");
                Err(FormatError::malformed(&self.file.name, "split.count", expected, n))
            }
        }
    }

    /// Compares what it says of its place with where it was found.
    fn check_place(&self, idx: usize, n_parts: usize) -> Result<(), FormatError> {
        for (key, expected) in [("split.no", idx), ("split.count", n_parts)] {
            let found = self.keys().count(key)?;
            if found != Some(expected) {
                let found = found.map_or("none".to_owned(), |n| n.to_string());
                return Err(FormatError::malformed(&self.file.name, key, expected, found));
            }
        }
        Ok(())
    }
}

/// Opens the file at `path` and, if it is a part of a split model, all others.
pub(crate) fn open(path: &Path, file: Arc<DataFile>) -> Result<Checkpoint, FormatError> {
    let given = Part::new(file)?;
    let n_parts = given.n_parts()?;
    if n_parts == 1 {
        return checkpoint(vec![given], vec![path.to_owned()]);
    }
    let paths = part_paths(path, n_parts)?;
    let mut parts = Vec::with_capacity(n_parts);
    for (idx, path) in paths.iter().enumerate() {
        parts.push(open_part(path, idx, n_parts)?);
    }
    check_total(&parts)?;
    checkpoint(parts, paths)
}

/// Opens the parts of a model that was just written, by the names they have until it is in its place.
pub(super) fn open_draft(temporaries: &[(&Path, &Path)]) -> Result<Checkpoint, FormatError> {
    let parts = temporaries.iter().map(|(temporary, target)| {
        Part::new(DataFile::open_as(temporary, target.display().to_string())?)
    });
    let parts = parts.collect::<Result<_, _>>()?;
    checkpoint(parts, temporaries.iter().map(|(temporary, _)| (*temporary).to_owned()).collect())
}

/// Opens bytes that are one whole file.
pub(crate) fn open_file(file: Arc<DataFile>) -> Result<Checkpoint, FormatError> {
    let part = Part::new(file)?;
    let n_parts = part.n_parts()?;
    if n_parts > 1 {
        let expected = "1, as there is no folder to find other parts in";
        return Err(FormatError::malformed(&part.file.name, "split.count", expected, n_parts));
    }
    checkpoint(vec![part], Vec::new())
}

/// Opens the bytes of all parts of a split model, in order.
pub(crate) fn open_parts(files: Vec<Arc<DataFile>>) -> Result<Checkpoint, FormatError> {
    let n_parts = files.len();
    let mut parts = Vec::with_capacity(n_parts);
    for (idx, file) in files.into_iter().enumerate() {
        let part = Part::new(file)?;
        part.check_place(idx, n_parts)?;
        parts.push(part);
    }
    check_total(&parts)?;
    checkpoint(parts, Vec::new())
}

/// Whether a file is named as a part of a split model other than the first.
pub(crate) fn is_later_part(name: &str) -> bool {
    split_name(name).is_some_and(|(_, no, _)| no > 1)
}

/// The paths of all parts of the model that the file at `path` is one of.
fn part_paths(path: &Path, n_parts: usize) -> Result<Vec<PathBuf>, FormatError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((stem, ..)) = split_name(name).filter(|(_, _, count)| *count == n_parts) else {
        let expected =
            format!("NAME-00001-of-{n_parts:05}.gguf, as the file is one of {n_parts} parts");
        return Err(FormatError::malformed(path.display(), "file name", expected, name));
    };
    Ok(split::part_paths(path, stem, n_parts))
}

fn open_part(path: &Path, idx: usize, n_parts: usize) -> Result<Part, FormatError> {
    if !path.exists() {
        let folder = path.parent().unwrap_or(Path::new("")).display();
        let name = path.file_name().unwrap_or_default().display();
        let reason = format!("it is part {} of {n_parts} of a split model", idx + 1);
        return Err(FormatError::missing(folder, name, reason));
    }
    let part = Part::new(DataFile::open(path)?)?;
    part.check_place(idx, n_parts)?;
    Ok(part)
}

/// Compares the number of tensors with what the first part says of the whole.
fn check_total(parts: &[Part]) -> Result<(), FormatError> {
    let key = "split.tensors.count";
    let Some(expected) = parts[0].keys().count(key)? else { return Ok(()) };
    let found: usize = parts.iter().map(|part| part.gguf.tensors.len()).sum();
    if found == expected {
        return Ok(());
    }
    let expected = format!("{expected} tensors in all parts");
    Err(FormatError::malformed(&parts[0].file.name, key, expected, found))
}

fn checkpoint(parts: Vec<Part>, files: Vec<PathBuf>) -> Result<Checkpoint, FormatError> {
    let origin = parts[0].file.name.clone();
    let keys = parts[0].keys();
    let vocab = GgufVocab::read(&keys)?;
    let tensors = collect(&parts)?;
    let embedding = tensors.get(WeightId::TokEmbeddings);
    let n_rows = embedding.and_then(|t| t.info.shape.first()).copied().unwrap_or(0);
    let tied = tensors.get(WeightId::Output).is_none();
    let n_tokens = vocab.as_ref().map(|vocab| vocab.tokens.len());
    let config = config::config(&keys, n_tokens, n_rows, tied)?;
    let chat_template = keys.string("tokenizer.chat_template")?.map(str::to_owned);
    let gguf_metadata = parts[0].gguf.metadata.clone();
    let metadata = gguf_metadata.iter();
    let metadata = metadata.map(|(key, value)| (key.clone(), value.to_string())).collect();
    let sampling = SamplingHints::read(
        SAMPLING,
        |key| keys.optional(key, "a number", Value::as_f64),
        |key, expected, found| FormatError::malformed(&origin, key, expected, found),
    )?;
    let weights = Weights::new(&origin, config, tensors, names::name)?;
    Ok(Checkpoint {
        source: Arc::new(weights),
        form: Form::Gguf,
        files,
        bos_id: vocab.as_ref().and_then(|vocab| vocab.bos_id),
        eos_ids: vocab.iter().filter_map(|vocab| vocab.eos_id).collect(),
        add_bos: vocab.as_ref().and_then(|vocab| vocab.add_bos),
        add_eos: vocab.as_ref().and_then(|vocab| vocab.add_eos),
        vocab,
        chat_template,
        metadata,
        gguf_metadata,
        sampling,
        ignored: Vec::new(),
    })
}

fn collect(parts: &[Part]) -> Result<Collection, FormatError> {
    let mut tensors = Collection::default();
    for Part { file, gguf } in parts {
        for tensor in &gguf.tensors {
            let Some(id) = names::id(&tensor.name) else {
                let expected = "a tensor of a Llama 2 network";
                return Err(FormatError::tensor(&file.name, &tensor.name, expected, "this one"));
            };
            let stored = Stored {
                file: Arc::clone(file),
                name: tensor.name.clone(),
                info: tensor.info.clone(),
                bytes: Bytes::View(tensor.data.clone()),
            };
            tensors.add(id, stored)?;
        }
    }
    Ok(tensors)
}
