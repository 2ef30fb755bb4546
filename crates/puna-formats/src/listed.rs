//! Tensors as files list them, before it is known which tensor of the network each is; and lists that are
//! spread over several files by an index.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_core::{DType, SharedBytes, TensorInfo};
use serde::Deserialize;

use crate::FormatError;
use crate::map::{DataFile, read_small};
use crate::weights::{Bytes, Stored};

/// Bytes of an index file; that of the largest Llama 2 has 70,000.
pub const MAX_INDEX_BYTES: u64 = 1 << 22;

/// A tensor of a safetensors file or a PyTorch archive.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// The type, or the name of one that is not read: an error only if the network needs the tensor.
    pub(crate) dtype: Result<DType, String>,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: SharedBytes,
}

/// A tensor of a type that weights have, in one piece.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) file: Arc<DataFile>,
    pub(crate) name: String,
    pub(crate) info: TensorInfo,
    pub(crate) data: SharedBytes,
}

impl Listed {
    /// The tensor as the network may have it.
    pub(crate) fn into_piece(self, file: &Arc<DataFile>) -> Result<Piece, FormatError> {
        let Self { name, dtype, shape, data } = self;
        let dtype = dtype.map_err(|found| {
            let what = format!("type of tensor {name}");
            FormatError::unsupported(&file.name, what, "F32, F16, BF16", found)
        })?;
        let info = TensorInfo { dtype, shape };
        if info.n_bytes() != Some(data.len()) {
            let expected = format!("bytes for type {dtype}, shape {:?}", info.shape);
            return Err(FormatError::tensor(&file.name, name, expected, data.len()));
        }
        Ok(Piece { file: Arc::clone(file), name, info, data })
    }
}

impl Piece {
    pub(crate) fn into_stored(self) -> Stored {
        let Self { file, name, info, data } = self;
        Stored { file, name, info, bytes: Bytes::View(data) }
    }
}

/// A file and the tensors in it.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<DataFile>,
    pub(crate) tensors: Vec<Listed>,
}

/// How one kind of file lists its tensors.
pub(crate) type Parse = fn(&str, &SharedBytes) -> Result<Vec<Listed>, FormatError>;

impl Shard {
    pub(crate) fn open(path: PathBuf, parse: Parse) -> Result<Self, FormatError> {
        let file = DataFile::open(&path)?;
        let tensors = parse(&file.name, &file.bytes)?;
        Ok(Self { path, file, tensors })
    }
}

/// Which file each tensor of a sharded checkpoint is in.
#[derive(Debug, Deserialize)]
pub struct Index {
    /// Tensor names to file names.
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Parses `*.index.json`. `file` is its name for messages.
    ///
    /// # Errors
    /// It is no such document, lists nothing, or names a file outside its own folder.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        let index: Self = serde_json::from_slice(bytes).map_err(|e| {
            FormatError::malformed(file, "index", "a JSON object with weight_map", e)
        })?;
        if index.weight_map.is_empty() {
            return Err(FormatError::malformed(file, "weight_map", "tensors", "none"));
        }
        for (tensor, shard) in &index.weight_map {
            if !is_plain_name(shard) {
                let expected = "the name of a file in the same folder";
                return Err(FormatError::malformed(file, tensor, expected, format!("{shard:?}")));
            }
        }
        Ok(index)
    }

    pub(crate) fn open(path: &Path) -> Result<Self, FormatError> {
        Self::parse(&path.display().to_string(), &read_small(path, MAX_INDEX_BYTES)?)
    }

    /// Whether a tensor is in the file of this name.
    pub(crate) fn lists(&self, file: &str) -> bool {
        self.weight_map.values().any(|listed| listed == file)
    }
}

/// Whether a name from a file stays in its folder, on every system.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}

/// Opens every file that an index names, and checks that each tensor is where it says.
pub(crate) fn open_index(path: &Path, parse: Parse) -> Result<Vec<Shard>, FormatError> {
    let index = Index::open(path)?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    let folder = path.parent().unwrap_or(Path::new(""));
    for name in &names {
        if !folder.join(name).exists() {
            let by = path.file_name().unwrap_or_default().display();
            let reason = format!("{by} lists it as one of {} files", names.len());
            return Err(FormatError::missing(folder.display(), name, reason));
        }
    }
    let mut shards = Vec::with_capacity(names.len());
    for name in names {
        let shard = Shard::open(folder.join(name), parse)?;
        let present: HashSet<&str> = shard.tensors.iter().map(|t| t.name.as_str()).collect();
        let listed = index.weight_map.iter().filter(|(_, file)| *file == name);
        for (tensor, _) in listed {
            if !present.contains(tensor.as_str()) {
                let expected = "to be in this file, as the index says";
                return Err(FormatError::tensor(&shard.file.name, tensor, expected, "none"));
            }
        }
        shards.push(shard);
    }
    Ok(shards)
}
