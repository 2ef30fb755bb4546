//! safetensors, the file form of Hugging Face: a little-endian u64, the length of a JSON header; the header,
//! which gives each tensor's type, shape and byte range; the tensors, without gaps. The header is parsed
//! and checked by the reference implementation, the `safetensors` crate.

mod write;

use puna_core::{DType, SharedBytes};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde_json::Value;

use crate::FormatError;
use crate::cursor::Cursor;
use crate::listed::Listed;
pub use write::Writer;

/// Bytes of a header; that of the largest Llama 2 in one file has 100,000. The reference implementation's
/// limit is higher, but a parsed header takes many times the memory of its text.
pub const MAX_HEADER_BYTES: usize = 1 << 22;

/// The header's length stands in front of it in as many bytes.
const LENGTH_BYTES: usize = 8;

/// Whether the bytes begin like a safetensors file: a length, then a JSON object.
pub(crate) fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, header)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return false };
    u64::from_le_bytes(*length) <= MAX_HEADER_BYTES as u64 && header.first() == Some(&b'{')
}

/// Lists the tensors of a file, whose name for messages is `file`.
pub(crate) fn parse(file: &str, bytes: &SharedBytes) -> Result<Vec<Listed>, FormatError> {
    let mut cursor = Cursor::new(file, bytes);
    let length = cursor.count("header length", 1, MAX_HEADER_BYTES)?;
    let header = cursor.take(length, "header")?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|e| match first_fault(header) {
            Some((tensor, expected, found)) => {
                FormatError::malformed(file, tensor, expected, found)
            }
            None => FormatError::malformed(file, "header", "a sound description of tensors", e),
        })?;
    let start = cursor.pos();
    if metadata.data_len() != cursor.remaining() {
        let expected = format!("{} bytes, as the header says", metadata.data_len());
        let found = format!("{}: the file is truncated or damaged", cursor.remaining());
        return Err(FormatError::malformed(file, "tensor data", expected, found));
    }
    let names = metadata.offset_keys().into_iter();
    let listed = names.map(|name| {
        let info = metadata.info(&name).expect("the name is one of this header's");
        let (begin, end) = info.data_offsets;
        let data = bytes.slice(start + begin..start + end);
        let data = data.expect("offsets were checked against the data's length");
        Listed { dtype: dtype(info.dtype), shape: info.shape.clone(), data, name }
    });
    Ok(listed.collect())
}

/// The first tensor that a refused header describes wrongly, with what was expected and found: the reference
/// implementation does not say.
fn first_fault(header: &[u8]) -> Option<(String, String, String)> {
    let entries: serde_json::Map<String, Value> = serde_json::from_slice(header).ok()?;
    let mut tensors = Vec::new();
    for (name, entry) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
        match TensorInfo::deserialize(&entry) {
            Ok(info) => tensors.push((name, info)),
            Err(e) => return Some((name, "dtype, shape and data_offsets".into(), e.to_string())),
        }
    }
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut end_before = 0;
    for (name, TensorInfo { dtype, shape, data_offsets: (begin, end) }) in tensors {
        if begin != end_before {
            let expected = format!("data from byte {end_before}, where the tensor before it ends");
            return Some((name, expected, format!("byte {begin}")));
        }
        let n_elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let n_bytes = n_elements.and_then(|n| n.checked_mul(dtype.bitsize())).map(|bits| bits / 8);
        if n_bytes.and_then(|n| begin.checked_add(n)) != Some(end) {
            let expected = n_bytes.map_or("a size that can be".into(), |n| format!("{n} bytes"));
            let found = format!("bytes {begin} to {end}");
            return Some((name, format!("{expected} of {dtype} for shape {shape:?}"), found));
        }
        end_before = end;
    }
    None
}

fn dtype(dtype: Dtype) -> Result<DType, String> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        other => Err(other.to_string()),
    }
}

/// Checks a file without keeping anything of it.
///
/// # Errors
/// It is no sound safetensors file.
pub fn check(file: &str, bytes: &SharedBytes) -> Result<(), FormatError> {
    parse(file, bytes).map(drop)
}
