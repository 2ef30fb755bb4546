//! The folder to a checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_core::{LayerWeight, ModelConfig, SamplingHints, WeightId};

use super::join::join;
use super::names;
use super::params::{config, dim};
use crate::hf::MAX_CONFIG_BYTES;
use crate::json::{Fields, brief};
use crate::listed::{Piece, Shard};
use crate::map::read_small;
use crate::weights::{Collection, Weights};
use crate::{Checkpoint, Form, FormatError, torch};

/// The file that makes a folder one of this form.
pub(crate) const PARAMS: &str = "params.json";

/// Whether a file is named `consolidated.NN.pth`.
pub(crate) fn is_shard_name(name: &str) -> bool {
    shard_number(name).is_some()
}

fn shard_number(name: &str) -> Option<usize> {
    let number = name.strip_prefix("consolidated.")?.strip_suffix(".pth")?;
    let plain = number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| plain)
}

/// Whether a folder holds weights of this form.
pub(crate) fn has_weights(folder: &Path) -> bool {
    shards(folder).is_ok_and(|shards| !shards.is_empty())
}

/// The shards of a folder by their numbers.
fn shards(folder: &Path) -> Result<BTreeMap<usize, PathBuf>, FormatError> {
    let io = |e| FormatError::io(folder.display(), e);
    let mut shards = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(shard_number) {
            shards.insert(number, path);
        }
    }
    Ok(shards)
}

pub(crate) fn open(folder: &Path) -> Result<Checkpoint, FormatError> {
    let params = folder.join(PARAMS);
    let params_name = params.display().to_string();
    let json = read_small(&params, MAX_CONFIG_BYTES)?;
    let fields = Fields::parse(&params_name, &json)?;
    let files = complete(folder, shards(folder)?)?;
    let (parts, ignored) = collect(&files)?;
    let width = dim(&fields)?;
    let wq = parts.get(&WeightId::Layer(0, LayerWeight::Wq)).and_then(|parts| parts.first());
    let wq_part = wq.map(|part| part.info.shape.clone()).unwrap_or_default();
    let mut tensors = Collection::default();
    for (id, parts) in parts {
        check_count(id, &parts, files.len())?;
        tensors.add(id, join(parts, names::cut(id), width)?)?;
    }
    let embeddings = tensors.get(WeightId::TokEmbeddings);
    let n_tokens = embeddings.and_then(|t| t.info.shape.first()).copied().unwrap_or(0);
    let config = config(&fields, n_tokens)?;
    check_n_shards(folder, &config, &wq_part, files.len())?;
    Ok(Checkpoint {
        source: Arc::new(Weights::new(&params_name, config, tensors, names::name)?),
        form: Form::Meta,
        files,
        vocab: None,
        chat_template: None,
        metadata: fields.iter().map(|(field, value)| (field.clone(), brief(value))).collect(),
        gguf_metadata: Vec::new(),
        bos_id: Some(1),
        eos_ids: vec![2],
        add_bos: None,
        add_eos: None,
        sampling: SamplingHints::default(),
        ignored,
    })
}

/// Checks that shards are numbered from 0 without a gap.
fn complete(folder: &Path, shards: BTreeMap<usize, PathBuf>) -> Result<Vec<PathBuf>, FormatError> {
    let n_shards = shards.len();
    let missing = (0..n_shards.max(1)).find(|number| !shards.contains_key(number));
    if let Some(number) = missing {
        let name = format!("consolidated.{number:02}.pth");
        let reason = match shards.keys().last() {
            Some(last) => format!("there is a consolidated.{last:02}.pth"),
            None => format!("{PARAMS} is there, but no weights"),
        };
        return Err(FormatError::missing(folder.display(), name, reason));
    }
    Ok(shards.into_values().collect())
}

/// Says that the last files are missing, which leaves no gap in their numbers: the rows of a query projection
/// tell how many parts it was cut into. `part` is the shape of one.
fn check_n_shards(
    folder: &Path,
    config: &ModelConfig,
    part: &[usize],
    n_files: usize,
) -> Result<(), FormatError> {
    let rows = config.n_heads.checked_mul(config.head_dim).unwrap_or(0);
    let n_parts = match *part {
        [part_rows, cols] if cols == config.dim && rows.is_multiple_of(part_rows) => {
            rows.checked_div(part_rows).unwrap_or(0)
        }
        _ => 0,
    };
    if n_parts <= n_files {
        return Ok(());
    }
    let reason = format!("tensors were cut into {n_parts} parts, and there are {n_files} files");
    let name = format!("consolidated.{n_files:02}.pth");
    Err(FormatError::missing(folder.display(), name, reason))
}

type Parts = BTreeMap<WeightId, Vec<Piece>>;

/// The parts of every tensor in the order of the files, and the names of what was left out.
fn collect(files: &[PathBuf]) -> Result<(Parts, Vec<String>), FormatError> {
    let mut parts = Parts::new();
    let mut ignored = Vec::new();
    for (idx, path) in files.iter().enumerate() {
        let shard = Shard::open(path.clone(), torch::parse)?;
        for tensor in shard.tensors {
            match names::id(&tensor.name) {
                Some(id) => {
                    let piece = tensor.into_piece(&shard.file)?;
                    parts.entry(id).or_default().push(piece);
                }
                None if names::is_derived(&tensor.name) => {
                    if idx == 0 {
                        ignored.push(tensor.name);
                    }
                }
                None => {
                    let (file, expected) = (&shard.file.name, "a tensor of a Llama 2 network");
                    return Err(FormatError::tensor(file, tensor.name, expected, "this one"));
                }
            }
        }
    }
    Ok((parts, ignored))
}

/// Every file must have its part of every tensor.
fn check_count(id: WeightId, parts: &[Piece], n_files: usize) -> Result<(), FormatError> {
    if parts.len() == n_files {
        return Ok(());
    }
    let expected = format!("a part in each of {n_files} files");
    Err(FormatError::tensor(&parts[0].file.name, names::name(id), expected, parts.len()))
}
