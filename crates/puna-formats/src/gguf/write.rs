//! The writer: metadata and tensor descriptions first, then the data, streamed tensor by tensor.

use std::collections::HashSet;
use std::path::Path;

use puna_core::TensorInfo;

use super::read::{
    MAGIC, MAX_DIMS, MAX_KEY_BYTES, MAX_KEYS, MAX_NAME_BYTES, MAX_TENSORS, alignment,
};
use super::types::number_of;
use super::value::{Value, write_string};
use crate::FormatError;
use crate::atomic::AtomicFile;

const VERSION: u32 = 3;

/// Writes one GGUF file of version 3. The file appears under its name only when [`Writer::finish`] returns;
/// a writer that is dropped before leaves nothing behind. Memory stays at one tensor, the caller's.
pub struct Writer {
    path: String,
    out: AtomicFile,
    alignment: usize,
    /// Names and sizes of the tensors still to come, in reverse.
    pending: Vec<(String, usize)>,
}

impl Writer {
    /// Begins a file with all that is known before the data: metadata, and the tensors in the order in which
    /// they will be written. Shapes are outermost dimension first. An entry `general.alignment` is honoured.
    ///
    /// # Errors
    /// The file cannot be created, or what was given makes no GGUF: a limit of this module exceeded, two
    /// entries or tensors of one name, rows that are no whole blocks.
    pub fn create(
        path: &Path,
        metadata: &[(String, Value)],
        tensors: &[(String, TensorInfo)],
    ) -> Result<Self, FormatError> {
        let file = path.display().to_string();
        let sizes = check(&file, metadata, tensors)?;
        let alignment = alignment(&file, metadata)?;
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            write_string(&mut header, key);
            header.extend((value.kind() as u32).to_le_bytes());
            value.write(&mut header);
        }
        let mut offset = 0u64;
        for ((name, info), &size) in tensors.iter().zip(&sizes) {
            write_string(&mut header, name);
            header.extend((info.shape.len() as u32).to_le_bytes());
            for &dim in info.shape.iter().rev() {
                header.extend((dim as u64).to_le_bytes());
            }
            header.extend(number_of(info.dtype).to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset += size.next_multiple_of(alignment) as u64;
        }
        header.resize(header.len().next_multiple_of(alignment), 0);
        let mut out = AtomicFile::create(path)?;
        out.write(&header)?;
        let names = tensors.iter().map(|(name, _)| name.clone());
        let pending = names.zip(sizes).rev().collect();
        Ok(Self { path: file, out, alignment, pending })
    }

    /// Writes the next tensor.
    ///
    /// # Errors
    /// Another tensor's turn has come, the data are of another size than announced, or the disk is full.
    pub fn write(&mut self, name: &str, data: &[u8]) -> Result<(), FormatError> {
        let Some((expected, size)) = self.pending.pop() else {
            return Err(FormatError::tensor(&self.path, name, "no more tensors", "this one"));
        };
        if expected != name {
            let expected = format!("the turn of {expected}");
            return Err(FormatError::tensor(&self.path, name, expected, "this one"));
        }
        if size != data.len() {
            let (expected, found) = (format!("{size} bytes, as announced"), data.len());
            return Err(FormatError::tensor(&self.path, name, expected, found));
        }
        self.out.write(data)?;
        let padding = size.next_multiple_of(self.alignment) - size;
        self.out.write(&vec![0; padding])
    }

    /// Completes the file and puts it in its place.
    ///
    /// # Errors
    /// Tensors are missing, or the file cannot be completed.
    pub fn finish(self) -> Result<(), FormatError> {
        match self.pending.last() {
            Some((name, _)) => {
                Err(FormatError::tensor(&self.path, name, "its data", "the end of the model"))
            }
            None => self.out.commit(),
        }
    }
}

/// Checks what the reader would refuse, and returns the tensors' sizes in bytes.
fn check(
    file: &str,
    metadata: &[(String, Value)],
    tensors: &[(String, TensorInfo)],
) -> Result<Vec<usize>, FormatError> {
    let mut names = HashSet::new();
    let limits = [
        ("number of metadata entries", metadata.len(), MAX_KEYS),
        ("number of tensors", tensors.len(), MAX_TENSORS),
    ];
    for (what, found, limit) in limits {
        if found > limit {
            return Err(FormatError::malformed(file, what, format!("at most {limit}"), found));
        }
    }
    for (key, _) in metadata {
        if key.len() > MAX_KEY_BYTES || !names.insert(key) {
            let expected = format!("one key of this name, of at most {MAX_KEY_BYTES} bytes");
            return Err(FormatError::malformed(file, key, expected, "another"));
        }
    }
    names.clear();
    let mut sizes = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        if name.len() > MAX_NAME_BYTES || !names.insert(name) {
            let expected = format!("one tensor of this name, of at most {MAX_NAME_BYTES} bytes");
            return Err(FormatError::tensor(file, name, expected, "another"));
        }
        let size = info.n_bytes().filter(|_| info.shape.len() <= MAX_DIMS).ok_or_else(|| {
            let expected = format!("rows of whole blocks of {}", info.dtype.block_len());
            FormatError::tensor(file, name, expected, format!("shape {:?}", info.shape))
        })?;
        sizes.push(size);
    }
    Ok(sizes)
}
