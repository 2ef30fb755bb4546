//! The writer: the files of a Hugging Face folder, streamed tensor by tensor, whole or in shards with an index.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use puna_core::{DType, TensorInfo};
use serde_json::{Map, Value, json};

use super::MAX_HEADER_BYTES;
use crate::FormatError;
use crate::gguf::part_lens;

/// Headers end at a multiple of this, padded with spaces, so that data are aligned.
const ALIGNMENT: usize = 8;

/// Writes `model.safetensors`, or `model-00001-of-00003.safetensors` and so on with their index, into a folder that
/// nobody reads yet. Memory stays at what the caller hands over at a time.
pub struct Writer {
    folder: PathBuf,
    shards: Vec<Shard>,
    /// The shard being written.
    current: Option<(usize, BufWriter<File>)>,
    /// Tensors still to come, in reverse.
    pending: Vec<Pending>,
}

struct Shard {
    name: String,
    header: Vec<u8>,
    tensors: Vec<String>,
}

struct Pending {
    name: String,
    shard: usize,
    size: usize,
    written: usize,
}

impl Writer {
    /// Begins the files of `folder` with the tensors in the order in which they will be written. Shards hold at most
    /// `max_file_bytes` of data, or one larger tensor.
    ///
    /// # Errors
    /// Two tensors of one name, a type other than F32, F16 and BF16, or a header beyond the reader's limit.
    pub fn create(
        folder: &Path,
        tensors: &[(String, TensorInfo)],
        max_file_bytes: u64,
    ) -> Result<Self, FormatError> {
        let sizes = check(folder, tensors)?;
        let lens = part_lens(sizes.iter().map(|&size| size as u64), max_file_bytes);
        let (mut shards, mut pending) = (Vec::new(), Vec::new());
        let mut rest = tensors.iter().zip(&sizes);
        for (idx, &len) in lens.iter().enumerate() {
            let mine: Vec<_> = rest.by_ref().take(len).collect();
            let name = match lens.len() {
                1 => "model.safetensors".to_owned(),
                n => format!("model-{:05}-of-{n:05}.safetensors", idx + 1),
            };
            let header = header(folder, &mine)?;
            let tensors = mine.iter().map(|((name, _), _)| name.clone()).collect();
            shards.push(Shard { name, header, tensors });
            let mine = mine.into_iter().map(|((name, _), &size)| (name.clone(), size));
            pending.extend(mine.map(|(name, size)| Pending { name, shard: idx, size, written: 0 }));
        }
        pending.reverse();
        Ok(Self { folder: folder.to_owned(), shards, current: None, pending })
    }

    /// Writes the next bytes of the tensor whose turn it is.
    ///
    /// # Errors
    /// Another tensor's turn has come, there are more bytes than announced, or the disk is full.
    pub fn write_part(&mut self, name: &str, data: &[u8]) -> Result<(), FormatError> {
        let at_fault =
            |expected: String| FormatError::tensor(self.folder.display(), name, expected, "this");
        let Some(next) = self.pending.last_mut() else {
            return Err(at_fault("no more tensors".to_owned()));
        };
        if next.name != name {
            return Err(at_fault(format!("the turn of {}", next.name)));
        }
        next.written += data.len();
        if next.written > next.size {
            return Err(at_fault(format!("{} bytes, as announced", next.size)));
        }
        let (shard, complete) = (next.shard, next.written == next.size);
        if complete {
            self.pending.pop();
        }
        let path = self.folder.join(&self.shards[shard].name);
        self.shard(shard)?.write_all(data).map_err(|e| FormatError::io(path.display(), e))
    }

    /// The file of a shard, begun if it is not the one being written.
    fn shard(&mut self, idx: usize) -> Result<&mut BufWriter<File>, FormatError> {
        if self.current.as_ref().is_none_or(|(current, _)| *current != idx) {
            self.close()?;
            let path = self.folder.join(&self.shards[idx].name);
            let io = |e| FormatError::io(path.display(), e);
            let mut file = BufWriter::new(File::create_new(&path).map_err(io)?);
            file.write_all(&self.shards[idx].header).map_err(io)?;
            self.current = Some((idx, file));
        }
        Ok(&mut self.current.as_mut().expect("it was just begun").1)
    }

    /// Completes the file being written.
    fn close(&mut self) -> Result<(), FormatError> {
        let Some((idx, mut file)) = self.current.take() else { return Ok(()) };
        let closed = file.flush().and_then(|()| file.get_ref().sync_all());
        let path = self.folder.join(&self.shards[idx].name);
        closed.map_err(|e| FormatError::io(path.display(), e))
    }

    /// Completes the files; more than one get an index, whose text is returned for the caller to write as
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// Tensors are missing, or the last file cannot be completed.
    pub fn finish(mut self) -> Result<Option<String>, FormatError> {
        if let Some(next) = self.pending.last() {
            let expected = format!("its data of {} bytes", next.size);
            let found = format!("{} and the end of the model", next.written);
            return Err(FormatError::tensor(self.folder.display(), &next.name, expected, found));
        }
        self.close()?;
        Ok((self.shards.len() > 1).then(|| self.index()))
    }

    fn index(&self) -> String {
        let mut total_size = 0;
        let mut weight_map = Map::new();
        for shard in &self.shards {
            let path = self.folder.join(&shard.name);
            let n_bytes = path.metadata().map_or(0, |file| file.len());
            total_size += n_bytes.saturating_sub(shard.header.len() as u64);
            let entries = shard.tensors.iter();
            weight_map.extend(entries.map(|name| (name.clone(), json!(shard.name))));
        }
        let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
        format!("{index:#}\n")
    }
}

/// Checks what the readers would refuse, and returns the tensors' sizes in bytes.
fn check(folder: &Path, tensors: &[(String, TensorInfo)]) -> Result<Vec<usize>, FormatError> {
    let mut names = HashSet::new();
    let sizes = tensors.iter().map(|(name, info)| {
        let at_fault = |expected: &str, found: &dyn std::fmt::Display| {
            FormatError::tensor(folder.display(), name, expected, found)
        };
        if !names.insert(name) {
            return Err(at_fault("one tensor of this name", &"another"));
        }
        if !info.dtype.is_float() {
            return Err(at_fault("F32, F16 or BF16", &info.dtype));
        }
        info.n_bytes().ok_or_else(|| at_fault("a sane shape", &format!("{:?}", info.shape)))
    });
    sizes.collect()
}

/// The length and the JSON of one file's header.
fn header(
    folder: &Path,
    tensors: &[(&(String, TensorInfo), &usize)],
) -> Result<Vec<u8>, FormatError> {
    // Transformers refuses files that do not say what they are for.
    let mut entries = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut begin = 0;
    for ((name, info), size) in tensors {
        let end = begin + **size;
        let entry = json!({
            "dtype": type_name(info.dtype), "shape": info.shape, "data_offsets": [begin, end],
        });
        entries.insert(name.clone(), entry);
        begin = end;
    }
    let mut json = Value::Object(entries).to_string();
    let padded = json.len().next_multiple_of(ALIGNMENT);
    if padded > MAX_HEADER_BYTES {
        let expected = format!("at most {MAX_HEADER_BYTES} bytes");
        return Err(FormatError::malformed(folder.display(), "header", expected, padded));
    }
    json.extend(std::iter::repeat_n(' ', padded - json.len()));
    let mut header = (padded as u64).to_le_bytes().to_vec();
    header.extend_from_slice(json.as_bytes());
    Ok(header)
}

/// The format's name of a type.
fn type_name(dtype: DType) -> String {
    dtype.name().to_uppercase()
}
