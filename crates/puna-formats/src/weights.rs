//! The tensors of an opened checkpoint, under the names of the network, checked against its configuration.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use puna_core::{
    ModelConfig, SharedBytes, SourceError, Tensor, TensorInfo, TensorSource, WeightId,
};

use crate::FormatError;
use crate::map::DataFile;

/// Where the bytes of a tensor are.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// In one piece in the file.
    View(SharedBytes),
    /// In several files: rows of every part side by side, each part `row_bytes` wide.
    Columns { parts: Vec<SharedBytes>, files: Vec<Arc<DataFile>>, row_bytes: usize },
    /// In several files: the rows of one part after the rows of another.
    Rows { parts: Vec<SharedBytes>, files: Vec<Arc<DataFile>> },
    /// Groups of `group_len` signed bytes with one f32 factor each, to be multiplied out to f32.
    Groups { quants: SharedBytes, scales: SharedBytes, group_len: usize },
}

impl Bytes {
    fn load(&self) -> SharedBytes {
        match self {
            Self::View(bytes) => bytes.clone(),
            Self::Rows { parts, .. } => {
                SharedBytes::new(parts.iter().map(|part| &**part).collect::<Vec<_>>().concat())
            }
            Self::Columns { parts, row_bytes, .. } => {
                SharedBytes::new(interleave(parts, *row_bytes))
            }
            Self::Groups { quants, scales, group_len } => {
                let mut values = Vec::new();
                multiply_out(quants, scales, *group_len, 0..quants.len(), &mut values);
                SharedBytes::new(values)
            }
        }
    }
}

/// Joins parts of equal height row by row.
fn interleave(parts: &[SharedBytes], row_bytes: usize) -> Vec<u8> {
    let mut joined = Vec::with_capacity(parts.iter().map(|p| p.len()).sum());
    let n_rows = parts.first().map_or(0, |part| part.len() / row_bytes);
    for row in 0..n_rows {
        for part in parts {
            joined.extend_from_slice(&part[row * row_bytes..][..row_bytes]);
        }
    }
    joined
}

/// `value = quant × scale of its group`, in f32, for a range of elements.
fn multiply_out(
    quants: &[u8],
    scales: &[u8],
    group_len: usize,
    elements: Range<usize>,
    values: &mut Vec<u8>,
) {
    let (scales, _) = scales.as_chunks::<4>();
    values.reserve(elements.len() * 4);
    for (idx, &quant) in elements.clone().zip(&quants[elements]) {
        let scale = f32::from_le_bytes(scales[idx / group_len]);
        values.extend_from_slice(&(f32::from(quant.cast_signed()) * scale).to_le_bytes());
    }
}

/// One tensor as it lies in its file (or files; then `file` is the first).
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) file: Arc<DataFile>,
    /// The file's own name for it.
    pub(crate) name: String,
    pub(crate) info: TensorInfo,
    pub(crate) bytes: Bytes,
}

impl Stored {
    fn error(&self, message: impl ToString) -> SourceError {
        let (file, tensor) = (self.file.name.clone(), self.name.clone());
        SourceError { file, tensor, message: message.to_string() }
    }

    /// The files that hold it.
    fn files(&self) -> &[Arc<DataFile>] {
        match &self.bytes {
            Bytes::View(_) | Bytes::Groups { .. } => std::slice::from_ref(&self.file),
            Bytes::Rows { files, .. } | Bytes::Columns { files, .. } => files,
        }
    }

    /// Fails if a file that holds the tensor has changed since it was opened.
    fn check_unchanged(&self) -> Result<(), FormatError> {
        self.files().iter().try_for_each(|file| file.check_unchanged())
    }

    /// Appends the bytes of `rows`, which the tensor has, and lets go of them in the files.
    fn read_rows(&self, rows: Range<usize>, row_bytes: usize, out: &mut Vec<u8>) {
        let mut copy = |file: &DataFile, bytes: &[u8]| {
            out.extend_from_slice(bytes);
            file.release(bytes);
        };
        match &self.bytes {
            Bytes::View(bytes) => {
                copy(&self.file, &bytes[rows.start * row_bytes..rows.end * row_bytes]);
            }
            Bytes::Rows { parts, files } => {
                let mut first = 0;
                for (part, file) in parts.iter().zip(files) {
                    let end = first + part.len() / row_bytes;
                    let (from, to) = (rows.start.clamp(first, end), rows.end.clamp(first, end));
                    copy(file, &part[(from - first) * row_bytes..(to - first) * row_bytes]);
                    first = end;
                }
            }
            Bytes::Columns { parts, files, row_bytes: part_row_bytes } => {
                let range = rows.start * part_row_bytes..rows.end * part_row_bytes;
                let parts: Vec<_> =
                    parts.iter().filter_map(|part| part.slice(range.clone())).collect();
                out.append(&mut interleave(&parts, *part_row_bytes));
                for (part, file) in parts.iter().zip(files) {
                    file.release(part);
                }
            }
            Bytes::Groups { quants, scales, group_len } => {
                let cols = self.info.cols();
                let elements = rows.start * cols..rows.end * cols;
                multiply_out(quants, scales, *group_len, elements.clone(), out);
                self.file.release(&quants[elements]);
            }
        }
    }
}

/// Tensors by [`WeightId`] while a checkpoint is being opened.
#[derive(Debug, Default)]
pub(crate) struct Collection(BTreeMap<WeightId, Stored>);

impl Collection {
    /// Adds a tensor.
    ///
    /// # Errors
    /// There is one of that identity already.
    pub(crate) fn add(&mut self, id: WeightId, stored: Stored) -> Result<(), FormatError> {
        match self.0.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(stored);
                Ok(())
            }
            Entry::Occupied(first) => Err(FormatError::tensor(
                &stored.file.name,
                &stored.name,
                "one tensor of this name",
                format!(
                    "a second one (the first is {} in {})",
                    first.get().name,
                    first.get().file.name
                ),
            )),
        }
    }

    pub(crate) fn get(&self, id: WeightId) -> Option<&Stored> {
        self.0.get(&id)
    }

    pub(crate) fn remove(&mut self, id: WeightId) -> Option<Stored> {
        self.0.remove(&id)
    }
}

/// A checkpoint whose tensors are exactly those of its configuration.
#[derive(Debug)]
pub(crate) struct Weights {
    origin: String,
    config: ModelConfig,
    tensors: BTreeMap<WeightId, Stored>,
    /// Each file that holds tensors, once, with one of its tensors.
    files: Vec<(Arc<DataFile>, WeightId)>,
}

impl Weights {
    /// Checks `config`, and that `tensors` are those it asks for: each present, of its shape, and no other.
    /// `origin` is the file or folder as a whole, `name_of` the form's own name of a tensor.
    pub(crate) fn new(
        origin: &str,
        config: ModelConfig,
        tensors: Collection,
        name_of: impl Fn(WeightId) -> String,
    ) -> Result<Self, FormatError> {
        config
            .validate()
            .map_err(|source| FormatError::Config { file: origin.to_owned(), source })?;
        let tensors = tensors.0;
        let mut n_expected = 0;
        for id in WeightId::all(&config) {
            n_expected += 1;
            let shape = id.shape(&config);
            let Some(stored) = tensors.get(&id) else {
                let expected = format!("a tensor of shape {shape:?}");
                return Err(FormatError::tensor(origin, name_of(id), expected, "none"));
            };
            if stored.info.shape != shape {
                let (expected, found) = (
                    format!("shape {shape:?} by the configuration"),
                    format!("{:?}", stored.info.shape),
                );
                return Err(FormatError::tensor(&stored.file.name, &stored.name, expected, found));
            }
        }
        if n_expected != tensors.len() {
            return Err(unexpected(&config, &tensors));
        }
        let mut files: Vec<(Arc<DataFile>, WeightId)> = Vec::new();
        for (&id, stored) in &tensors {
            for file in stored.files() {
                if !files.iter().any(|(known, _)| Arc::ptr_eq(known, file)) {
                    files.push((Arc::clone(file), id));
                }
            }
        }
        Ok(Self { origin: origin.to_owned(), config, tensors, files })
    }

    fn stored(&self, id: WeightId) -> Result<&Stored, SourceError> {
        self.tensors.get(&id).ok_or_else(|| {
            let message = "the checkpoint has no such tensor".to_owned();
            SourceError { file: self.origin.clone(), tensor: id.to_string(), message }
        })
    }
}

/// The error for the first tensor that the configuration has no place for.
fn unexpected(config: &ModelConfig, tensors: &BTreeMap<WeightId, Stored>) -> FormatError {
    let surplus = tensors.iter().find(|(id, _)| match id {
        WeightId::Layer(idx, _) => *idx >= config.n_layers,
        WeightId::Output => config.tied_output,
        WeightId::TokEmbeddings | WeightId::Norm => false,
    });
    let (id, stored) = surplus.expect("more tensors than the configuration has identities");
    let expected = match id {
        WeightId::Layer(..) => {
            format!("only {} layers, as the configuration says", config.n_layers)
        }
        _ => "no output matrix, as the configuration ties it to the embeddings".to_owned(),
    };
    FormatError::tensor(&stored.file.name, &stored.name, expected, "this one")
}

impl TensorSource for Weights {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self, id: WeightId) -> Option<TensorInfo> {
        self.tensors.get(&id).map(|stored| stored.info.clone())
    }

    fn load(&self, id: WeightId) -> Result<Tensor, SourceError> {
        let stored = self.stored(id)?;
        stored.check_unchanged().map_err(|e| stored.error(e))?;
        Ok(Tensor { info: stored.info.clone(), data: stored.bytes.load() })
    }

    fn copies(&self, id: WeightId) -> bool {
        self.tensors.get(&id).is_some_and(|stored| !matches!(stored.bytes, Bytes::View(_)))
    }

    fn check_unchanged(&self) -> Result<(), SourceError> {
        self.files.iter().try_for_each(|(file, id)| {
            file.check_unchanged().map_err(|e| self.tensors[id].error(e))
        })
    }

    fn read_rows(
        &self,
        id: WeightId,
        rows: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        let stored = self.stored(id)?;
        let row_bytes = stored.info.dtype.row_bytes(stored.info.cols());
        let Some(row_bytes) = row_bytes.filter(|_| stored.info.byte_range(&rows).is_some()) else {
            let shape = &stored.info.shape;
            return Err(stored.error(format!("expected rows within {shape:?}, found {rows:?}")));
        };
        // Shortened files are found before their bytes are touched, files written to meanwhile after.
        stored.check_unchanged().map_err(|e| stored.error(e))?;
        stored.read_rows(rows, row_bytes, out);
        stored.check_unchanged().map_err(|e| stored.error(e))
    }
}
