//! Importance matrices: for every matrix of a network, how large its inputs were on some text. In the two forms of
//! llama.cpp's `imatrix` tool:
//!
//! - GGUF with `general.type` = `imatrix`: for a matrix `NAME`, `NAME.in_sum2` `[cols]` holds the sum of squares of each
//!   input, `NAME.counts` `[1]` over how many inputs; `imatrix.datasets`, `.chunk_count` and `.chunk_size` say of what;
//! - `.dat`, the older one: a count of entries as i32; each a name (i32 length, bytes), an i32 number of calls `n`, an
//!   i32 count and as many f32, which are `n` times the mean of squares; then, or not, the i32 number of
//!   chunks and the text's name. Little-endian throughout.

use std::collections::BTreeMap;
use std::path::Path;

use puna_core::{DType, ModelConfig, SharedBytes, TensorInfo, WeightId};

use crate::atomic::Existing;
use crate::cursor::Cursor;
use crate::gguf::{self, Gguf, MAX_NAME_BYTES, MAX_TENSORS, Value, WriteOptions, Writer};
use crate::map::DataFile;
use crate::{FormatError, error};

const TYPE: (&str, &str) = ("general.type", "imatrix");
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Columns of one matrix; far above the family.
const MAX_COLS: usize = 1 << 24;

/// How important the columns of a network's matrices are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imatrix {
    /// The mean square of each matrix's inputs, `[cols]`; finite, not negative.
    pub entries: BTreeMap<WeightId, Vec<f32>>,
    /// Over how many inputs (tokens).
    pub n_inputs: u64,
    /// Windows of text that were read.
    pub n_chunks: u32,
    /// Tokens of a window; 0 where the file does not say.
    pub chunk_len: u32,
    /// Names of the texts.
    pub datasets: Vec<String>,
}

impl Imatrix {
    /// Reads a file of either form.
    ///
    /// # Errors
    /// It is no importance matrix, or one of another kind of network.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let file = DataFile::open(path)?;
        Self::parse(&file.name, &file.bytes)
    }

    /// Reads the bytes of a file of either form; `file` is its name for messages.
    ///
    /// # Errors
    /// As [`Imatrix::open`].
    pub fn parse(file: &str, bytes: &SharedBytes) -> Result<Self, FormatError> {
        if bytes.starts_with(&gguf::MAGIC) {
            parse_gguf(file, bytes)
        } else {
            parse_dat(file, bytes)
        }
    }

    /// Writes the GGUF form, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written, or there is one and `existing` keeps it.
    pub fn write(&self, path: &Path, existing: Existing) -> Result<(), FormatError> {
        let metadata = [
            (TYPE.0.to_owned(), Value::String(TYPE.1.to_owned())),
            (DATASETS.to_owned(), Value::strings(&self.datasets)),
            (CHUNK_COUNT.to_owned(), Value::U32(self.n_chunks)),
            (CHUNK_SIZE.to_owned(), Value::U32(self.chunk_len)),
        ];
        let f32s = |len| TensorInfo { dtype: DType::F32, shape: vec![len] };
        let mut tensors = Vec::with_capacity(2 * self.entries.len());
        for (&id, means) in &self.entries {
            let name = gguf::name(id);
            tensors.push((format!("{name}{SUMS}"), f32s(means.len())));
            tensors.push((format!("{name}{COUNTS}"), f32s(1)));
        }
        let options = WriteOptions { existing, ..WriteOptions::default() };
        let mut writer = Writer::with_options(path, &metadata, &tensors, &options)?;
        let n_inputs = self.n_inputs as f32;
        for (means, names) in self.entries.values().zip(tensors.chunks_exact(2)) {
            let sums = means.iter().flat_map(|mean| (mean * n_inputs).to_le_bytes());
            writer.write(&names[0].0, &sums.collect::<Vec<u8>>())?;
            writer.write(&names[1].0, &n_inputs.to_le_bytes())?;
        }
        writer.finish()
    }

    /// Checks that this is about a network of this configuration: an entry for every matrix of its blocks, of the
    /// matrix's width, and none for a block that it does not have. `file` is the name for messages.
    ///
    /// # Errors
    /// The first matrix at fault.
    pub fn check(&self, file: &str, config: &ModelConfig) -> Result<(), FormatError> {
        let matrices = WeightId::all(config).filter(|id| id.shape(config).len() == 2);
        for id in matrices {
            let cols = id.shape(config)[1];
            let expected = format!("{cols} columns, as this model's matrix has");
            match self.entries.get(&id) {
                Some(means) if means.len() == cols => {}
                Some(means) => {
                    let found = format!("{}: it belongs to another model", means.len());
                    return Err(FormatError::tensor(file, gguf::name(id), expected, found));
                }
                // What is outside the blocks, many files leave out.
                None if !matches!(id, WeightId::Layer(..)) => {}
                None => {
                    let found = "no entry: it belongs to another model";
                    return Err(FormatError::tensor(file, gguf::name(id), expected, found));
                }
            }
        }
        let beyond =
            |id: &&WeightId| matches!(id, WeightId::Layer(idx, _) if *idx >= config.n_layers);
        match self.entries.keys().find(beyond) {
            None => Ok(()),
            Some(&id) => {
                let expected = format!("a model of {} layers", config.n_layers);
                let found = "an entry of another: it belongs to another model";
                Err(FormatError::tensor(file, gguf::name(id), expected, found))
            }
        }
    }

    fn insert(&mut self, file: &str, name: &str, means: Vec<f32>) -> Result<(), FormatError> {
        let Some(id) = gguf::id(name) else {
            let expected = "a matrix of a Llama 2 network";
            return Err(FormatError::tensor(file, error::brief(name), expected, "this one"));
        };
        if let Some(bad) = means.iter().find(|mean| !mean.is_finite() || **mean < 0.0) {
            return Err(FormatError::tensor(file, name, "means of squares", bad));
        }
        match self.entries.insert(id, means) {
            None => Ok(()),
            Some(_) => {
                Err(FormatError::tensor(file, name, "one entry of this name", "a second one"))
            }
        }
    }
}

fn parse_gguf(file: &str, bytes: &SharedBytes) -> Result<Imatrix, FormatError> {
    let parsed = Gguf::parse(file, bytes)?;
    let kind = parsed.get(TYPE.0).and_then(Value::as_str);
    if kind != Some(TYPE.1) {
        let found = kind.map_or("a GGUF file of another kind".to_owned(), error::brief);
        return Err(FormatError::malformed(file, TYPE.0, TYPE.1, found));
    }
    let number = |key| parsed.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let datasets = parsed.get(DATASETS).and_then(|value| value.as_array()?.strings());
    let mut imatrix = Imatrix {
        n_chunks: number(CHUNK_COUNT).unwrap_or(0),
        chunk_len: number(CHUNK_SIZE).unwrap_or(0),
        datasets: datasets
            .map(|names| names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
            .unwrap_or_default(),
        ..Imatrix::default()
    };
    let counts: BTreeMap<&str, &SharedBytes> = parsed
        .tensors
        .iter()
        .filter_map(|tensor| Some((tensor.name.strip_suffix(COUNTS)?, &tensor.data)))
        .collect();
    for tensor in &parsed.tensors {
        let Some(name) = tensor.name.strip_suffix(SUMS) else { continue };
        if tensor.info.dtype != DType::F32 {
            return Err(FormatError::tensor(file, &tensor.name, "type f32", tensor.info.dtype));
        }
        let count = match counts.get(name).map(|data| floats(data)).as_deref() {
            Some(&[count]) => count,
            Some(more) => {
                let (expected, found) = ("one count: a dense network", more.len());
                return Err(FormatError::tensor(file, &tensor.name, expected, found));
            }
            None => return Err(FormatError::tensor(file, &tensor.name, "a count", "none")),
        };
        let count = count.max(1.0);
        imatrix.n_inputs = imatrix.n_inputs.max(count as u64);
        let means = floats(&tensor.data).into_iter().map(|sum| sum / count).collect();
        imatrix.insert(file, name, means)?;
    }
    non_empty(file, imatrix)
}

fn parse_dat(file: &str, bytes: &SharedBytes) -> Result<Imatrix, FormatError> {
    let mut cursor = Cursor::new(file, bytes);
    let mut imatrix = Imatrix::default();
    let n_entries = count(file, &mut cursor, "number of entries", MAX_TENSORS)?;
    for idx in 0..n_entries {
        let what = format!("entry {idx}");
        let len = count(file, &mut cursor, &format!("{what}: length of its name"), MAX_NAME_BYTES)?;
        let name = cursor.take(len, &what)?;
        let name = std::str::from_utf8(name)
            .map_err(|_| FormatError::malformed(file, &what, "UTF-8", name.escape_ascii()))?;
        let n_calls = cursor.i32(name)?.max(1);
        let cols = count(file, &mut cursor, name, MAX_COLS)?;
        let values = floats(cursor.take(cols * 4, name)?);
        imatrix.n_inputs = imatrix.n_inputs.max(u64::from(n_calls.unsigned_abs()));
        let means = values.into_iter().map(|value| value / n_calls as f32).collect();
        imatrix.insert(file, name, means)?;
    }
    // Later versions add of what it was made.
    if cursor.remaining() > 0 {
        imatrix.n_chunks = cursor.u32("number of chunks")?;
        let len = count(file, &mut cursor, "length of the text's name", 1 << 16)?;
        let name = cursor.take(len, "the text's name")?;
        imatrix.datasets.push(String::from_utf8_lossy(name).into_owned());
    }
    non_empty(file, imatrix)
}

/// A count that the older form stores as i32.
fn count(
    file: &str,
    cursor: &mut Cursor<'_>,
    what: &str,
    limit: usize,
) -> Result<usize, FormatError> {
    let found = cursor.i32(what)?;
    usize::try_from(found).ok().filter(|n| (1..=limit).contains(n)).ok_or_else(|| {
        let found = format!("{found}: no importance matrix");
        FormatError::malformed(file, what, format!("1 to {limit}"), found)
    })
}

fn non_empty(file: &str, imatrix: Imatrix) -> Result<Imatrix, FormatError> {
    if imatrix.entries.is_empty() {
        return Err(FormatError::malformed(file, "entries", "at least one", "none"));
    }
    Ok(imatrix)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}
