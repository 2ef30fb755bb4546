//! The part of a GGUF file before its data, as it is written.

use std::collections::HashSet;

use puna_core::TensorInfo;

use super::read::{
    MAGIC, MAX_DIMS, MAX_KEY_BYTES, MAX_KEYS, MAX_NAME_BYTES, MAX_TENSORS, alignment,
};
use super::types::number_of;
use super::value::{Value, write_string};
use crate::FormatError;

const VERSION: u32 = 3;

/// Metadata and tensor descriptions of one file.
#[derive(Clone)]
pub(super) struct Header {
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) tensors: Vec<(String, TensorInfo)>,
    pub(super) alignment: usize,
}

impl Header {
    /// A header of parts that [`check`] found sound.
    pub(super) fn new(
        file: &str,
        metadata: Vec<(String, Value)>,
        tensors: Vec<(String, TensorInfo)>,
    ) -> Result<Self, FormatError> {
        let alignment = alignment(file, &metadata)?;
        Ok(Self { metadata, tensors, alignment })
    }

    /// The bytes, with the padding before the data.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_string(&mut out, key);
            out.extend((value.kind() as u32).to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0u64;
        for (name, info) in &self.tensors {
            write_string(&mut out, name);
            out.extend((info.shape.len() as u32).to_le_bytes());
            for &dim in info.shape.iter().rev() {
                out.extend((dim as u64).to_le_bytes());
            }
            out.extend(number_of(info.dtype).to_le_bytes());
            out.extend(offset.to_le_bytes());
            let size = info.n_bytes().expect("tensors are checked before");
            offset += size.next_multiple_of(self.alignment) as u64;
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out
    }
}

/// Checks what the reader would refuse, and returns the tensors' sizes in bytes.
pub(super) fn check(
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
