//! The parser: bytes to metadata and tensor descriptions. Nothing is copied but strings and names.

use std::collections::HashSet;

use puna_core::{DType, SharedBytes, TensorInfo};

use super::types::{SUPPORTED_TYPES, dtype_of, type_name};
use super::value::{Array, Kind, MAX_NESTING, Value};
use crate::FormatError;
use crate::cursor::Cursor;

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Metadata entries in one file; real files have some dozens.
pub const MAX_KEYS: usize = 1 << 16;
/// Bytes of one key, by the specification.
pub const MAX_KEY_BYTES: usize = (1 << 16) - 1;
/// Bytes of one string value; a chat template is some thousands.
pub const MAX_STRING_BYTES: usize = 1 << 26;
/// Elements of one array; vocabularies have some hundred thousand.
pub const MAX_ARRAY_LEN: usize = 1 << 26;
/// Tensors in one file; the largest Llama 2 has 723.
pub const MAX_TENSORS: usize = 1 << 16;
/// Bytes of a tensor's name, by the specification.
pub const MAX_NAME_BYTES: usize = 64;
/// Dimensions of a tensor, by the specification.
pub const MAX_DIMS: usize = 4;
/// Alignment of tensor data where `general.alignment` does not say.
pub const DEFAULT_ALIGNMENT: usize = 32;
/// Largest alignment accepted.
pub const MAX_ALIGNMENT: usize = 1 << 20;

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// Metadata in the file's order.
    pub metadata: Vec<(String, Value)>,
    /// Tensors in the file's order.
    pub tensors: Vec<GgufTensor>,
}

/// A tensor of a parsed file.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Type and shape, outermost dimension first (the file has it the other way round).
    pub info: TensorInfo,
    /// Its bytes, exactly as many as `info` asks for.
    pub data: SharedBytes,
}

impl Gguf {
    /// Parses a whole file. `file` is its name for messages.
    ///
    /// # Errors
    /// Anything that the specification does not allow, a limit of this module exceeded, a tensor of a type
    /// that is not supported, or tensors that overlap or reach beyond the file.
    pub fn parse(file: &str, bytes: &SharedBytes) -> Result<Self, FormatError> {
        let mut parser = Parser { file, bytes, cursor: Cursor::new(file, bytes) };
        let version = parser.version()?;
        let n_tensors = parser.cursor.count("number of tensors", 24, MAX_TENSORS)?;
        let n_keys = parser.cursor.count("number of metadata entries", 13, MAX_KEYS)?;
        let metadata = parser.metadata(n_keys)?;
        let alignment = alignment(file, &metadata)?;
        let headers = parser.tensor_headers(n_tensors)?;
        let data_start = parser.cursor.pos().next_multiple_of(alignment);
        let tensors = parser.tensors(headers, data_start, alignment)?;
        Ok(Self { version, metadata, tensors })
    }

    /// The value of a metadata key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }
}

/// `general.alignment`, or its default.
pub(super) fn alignment(file: &str, metadata: &[(String, Value)]) -> Result<usize, FormatError> {
    let key = "general.alignment";
    let Some((_, value)) = metadata.iter().find(|(k, _)| k == key) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let alignment = value.as_u64().and_then(|v| usize::try_from(v).ok());
    alignment.filter(|a| a.is_power_of_two() && *a <= MAX_ALIGNMENT).ok_or_else(|| {
        let expected = format!("a power of two up to {MAX_ALIGNMENT}");
        FormatError::malformed(file, key, expected, value)
    })
}

/// A tensor's description before its offset has been checked against the file.
struct Header {
    name: String,
    info: TensorInfo,
    offset: u64,
}

struct Parser<'a> {
    file: &'a str,
    bytes: &'a SharedBytes,
    cursor: Cursor<'a>,
}

impl Parser<'_> {
    fn malformed(
        &self,
        what: impl std::fmt::Display,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> FormatError {
        FormatError::malformed(self.file, what, expected, found)
    }

    fn version(&mut self) -> Result<u32, FormatError> {
        let magic: [u8; 4] = self.cursor.array("magic")?;
        if magic != MAGIC {
            return Err(self.malformed("magic", "GGUF", magic.escape_ascii()));
        }
        let version = self.cursor.u32("version")?;
        match version {
            2 | 3 => Ok(version),
            _ if matches!(version.swap_bytes(), 1..=3) => {
                let expected = "little-endian files";
                Err(FormatError::unsupported(self.file, "byte order", expected, "big-endian"))
            }
            _ => Err(FormatError::unsupported(
                self.file,
                "GGUF version",
                "2 and 3",
                format!("version {version}"),
            )),
        }
    }

    fn metadata(&mut self, n_keys: usize) -> Result<Vec<(String, Value)>, FormatError> {
        let mut metadata = Vec::with_capacity(n_keys);
        let mut seen = HashSet::with_capacity(n_keys);
        for idx in 0..n_keys {
            let key = self.string(&format_args!("metadata key {idx}"), MAX_KEY_BYTES)?;
            if !seen.insert(key.clone()) {
                return Err(self.malformed(&key, "one entry of this name", "a second one"));
            }
            let kind = self.kind(&key)?;
            let value = self.value(&key, kind)?;
            metadata.push((key, value));
        }
        Ok(metadata)
    }

    fn kind(&mut self, what: &str) -> Result<Kind, FormatError> {
        let number = self.cursor.u32(what)?;
        Kind::from_number(number)
            .ok_or_else(|| self.malformed(what, "a value type from 0 to 12", number))
    }

    fn string(
        &mut self,
        what: &dyn std::fmt::Display,
        limit: usize,
    ) -> Result<String, FormatError> {
        let len = self.cursor.count(format_args!("{what}: length"), 1, limit)?;
        let bytes = self.cursor.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok(string) => Ok(string.to_owned()),
            Err(_) => Err(self.malformed(what, "UTF-8", bytes[..len.min(40)].escape_ascii())),
        }
    }

    fn value(&mut self, key: &str, kind: Kind) -> Result<Value, FormatError> {
        let cursor = &mut self.cursor;
        Ok(match kind {
            Kind::U8 => Value::U8(cursor.u8(key)?),
            Kind::I8 => Value::I8(i8::from_le_bytes(cursor.array(key)?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(cursor.array(key)?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(cursor.array(key)?)),
            Kind::U32 => Value::U32(cursor.u32(key)?),
            Kind::I32 => Value::I32(cursor.i32(key)?),
            Kind::F32 => Value::F32(f32::from_le_bytes(cursor.array(key)?)),
            Kind::U64 => Value::U64(cursor.u64(key)?),
            Kind::I64 => Value::I64(i64::from_le_bytes(cursor.array(key)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(cursor.array(key)?)),
            Kind::Bool => match cursor.u8(key)? {
                byte @ 0..=1 => Value::Bool(byte == 1),
                byte => return Err(self.malformed(key, "0 or 1", byte)),
            },
            Kind::String => Value::String(self.string(&key, MAX_STRING_BYTES)?),
            Kind::Array => {
                let kind = self.kind(key)?;
                let len = self.cursor.count(key, kind.min_size(), MAX_ARRAY_LEN)?;
                let start = self.cursor.pos();
                self.skip(key, kind, len, MAX_NESTING)?;
                let bytes = self.bytes.slice(start..self.cursor.pos());
                Value::Array(Array { kind, len, bytes: bytes.expect("the cursor stays inside") })
            }
        })
    }

    /// Passes over the elements of an array, checking only that they are there.
    fn skip(
        &mut self,
        key: &str,
        kind: Kind,
        len: usize,
        nesting: usize,
    ) -> Result<(), FormatError> {
        if let Some(size) = kind.size() {
            // `count` made sure that this many elements fit into the file.
            return self.cursor.take(len * size, key).map(drop);
        }
        for _ in 0..len {
            if kind == Kind::String {
                let len = self.cursor.count(key, 1, MAX_STRING_BYTES)?;
                self.cursor.take(len, key)?;
            } else if nesting == 0 {
                let expected = format!("arrays nested at most {MAX_NESTING} deep");
                return Err(self.malformed(key, expected, "more"));
            } else {
                let kind = self.kind(key)?;
                let len = self.cursor.count(key, kind.min_size(), MAX_ARRAY_LEN)?;
                self.skip(key, kind, len, nesting - 1)?;
            }
        }
        Ok(())
    }

    fn tensor_headers(&mut self, n_tensors: usize) -> Result<Vec<Header>, FormatError> {
        let mut headers = Vec::with_capacity(n_tensors);
        let mut seen = HashSet::with_capacity(n_tensors);
        for idx in 0..n_tensors {
            let name = self.string(&format_args!("name of tensor {idx}"), MAX_NAME_BYTES)?;
            if !seen.insert(name.clone()) {
                let expected = "one tensor of this name";
                return Err(FormatError::tensor(self.file, &name, expected, "a second one"));
            }
            headers.push(self.tensor_header(name)?);
        }
        Ok(headers)
    }

    fn tensor_header(&mut self, name: String) -> Result<Header, FormatError> {
        let n_dims = self.cursor.u32(&name)? as usize;
        if !(1..=MAX_DIMS).contains(&n_dims) {
            let expected = format!("1 to {MAX_DIMS} dimensions");
            return Err(FormatError::tensor(self.file, &name, expected, n_dims));
        }
        let mut shape = Vec::with_capacity(n_dims);
        for _ in 0..n_dims {
            let dim = self.cursor.u64(&name)?;
            let dim = usize::try_from(dim).map_err(|_| {
                FormatError::tensor(self.file, &name, "a dimension in the address space", dim)
            })?;
            shape.push(dim);
        }
        shape.reverse();
        let dtype = self.dtype(&name)?;
        let offset = self.cursor.u64(&name)?;
        Ok(Header { name, info: TensorInfo { dtype, shape }, offset })
    }

    fn dtype(&mut self, name: &str) -> Result<DType, FormatError> {
        let number = self.cursor.u32(name)?;
        dtype_of(number).ok_or_else(|| {
            let what = format!("type of tensor {name}");
            let found = type_name(number)
                .map_or_else(|| format!("type number {number}"), |n| format!("type {n}"));
            FormatError::unsupported(self.file, what, SUPPORTED_TYPES, found)
        })
    }

    fn tensors(
        &self,
        headers: Vec<Header>,
        data_start: usize,
        alignment: usize,
    ) -> Result<Vec<GgufTensor>, FormatError> {
        let mut ranges = Vec::with_capacity(headers.len());
        let mut tensors = Vec::with_capacity(headers.len());
        for Header { name, info, offset } in headers {
            let at_fault = |expected: String, found: String| {
                FormatError::tensor(self.file, &name, expected, found)
            };
            let n_bytes = info.n_bytes().ok_or_else(|| {
                let expected =
                    format!("rows of whole blocks of {} elements", info.dtype.block_len());
                at_fault(expected, format!("shape {:?}", info.shape))
            })?;
            let start = usize::try_from(offset)
                .ok()
                .filter(|offset| offset.is_multiple_of(alignment))
                .and_then(|offset| offset.checked_add(data_start))
                .ok_or_else(|| {
                    at_fault(
                        format!("an offset that is a multiple of {alignment}"),
                        offset.to_string(),
                    )
                })?;
            let end = start.checked_add(n_bytes);
            let data = end.and_then(|end| self.bytes.slice(start..end)).ok_or_else(|| {
                let len = self.bytes.len();
                at_fault(
                    format!(
                        "{n_bytes} bytes at {start} (type {}, shape {:?})",
                        info.dtype, info.shape
                    ),
                    format!("a file of {len} bytes: it is truncated, or the header is wrong"),
                )
            })?;
            ranges.push((start, start + n_bytes, tensors.len()));
            tensors.push(GgufTensor { name, info, data });
        }
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            let [(_, end, first), (start, _, second)] = *pair else { continue };
            if start < end {
                let expected =
                    format!("to begin after the end of {} at {end}", tensors[first].name);
                let name = &tensors[second].name;
                return Err(FormatError::tensor(
                    self.file,
                    name,
                    expected,
                    format!("begin {start}"),
                ));
            }
        }
        Ok(tensors)
    }
}
