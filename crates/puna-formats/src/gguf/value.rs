//! Metadata values of a GGUF file.

use std::fmt;

use puna_core::SharedBytes;

/// Nesting of arrays inside arrays that is followed; real files have none.
pub const MAX_NESTING: usize = 4;

/// The type of a metadata value, by its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == number)
    }

    /// Bytes of one value of a fixed size; `None` for strings and arrays.
    pub(super) const fn size(self) -> Option<usize> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::String | Kind::Array => None,
        }
    }

    /// Bytes that one value of this type takes at least.
    pub(super) const fn min_size(self) -> usize {
        match self.size() {
            Some(size) => size,
            None => 8,
        }
    }
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The value's type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Value::U8(_) => Kind::U8,
            Value::I8(_) => Kind::I8,
            Value::U16(_) => Kind::U16,
            Value::I16(_) => Kind::I16,
            Value::U32(_) => Kind::U32,
            Value::I32(_) => Kind::I32,
            Value::F32(_) => Kind::F32,
            Value::Bool(_) => Kind::Bool,
            Value::String(_) => Kind::String,
            Value::Array(_) => Kind::Array,
            Value::U64(_) => Kind::U64,
            Value::I64(_) => Kind::I64,
            Value::F64(_) => Kind::F64,
        }
    }

    /// An array of strings.
    pub fn strings<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Self {
        let mut bytes = Vec::new();
        let mut len = 0;
        for item in items {
            write_string(&mut bytes, item.as_ref());
            len += 1;
        }
        Self::Array(Array { kind: Kind::String, len, bytes: SharedBytes::new(bytes) })
    }

    /// An array of f32.
    #[must_use]
    pub fn f32s(items: &[f32]) -> Self {
        let bytes: Vec<u8> = items.iter().flat_map(|item| item.to_le_bytes()).collect();
        Self::Array(Array { kind: Kind::F32, len: items.len(), bytes: SharedBytes::new(bytes) })
    }

    /// An array of i32.
    #[must_use]
    pub fn i32s(items: &[i32]) -> Self {
        let bytes: Vec<u8> = items.iter().flat_map(|item| item.to_le_bytes()).collect();
        Self::Array(Array { kind: Kind::I32, len: items.len(), bytes: SharedBytes::new(bytes) })
    }

    /// Any integer that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// A float; an f64 is rounded.
    #[must_use]
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// Any number, as far as an f64 holds it.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F64(v) => Some(v),
            Value::F32(v) => Some(v.into()),
            Value::I64(v) => Some(v as f64),
            Value::I32(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            _ => self.as_u64().map(|v| v as f64),
        }
    }

    /// A string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(v) => Some(v),
            _ => None,
        }
    }

    /// A truth value.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// An array.
    #[must_use]
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }

    /// Bytes of the value in a file, without its type.
    pub(super) fn n_bytes(&self) -> usize {
        let mut out = Vec::new();
        self.write(&mut out);
        out.len()
    }

    /// Appends the value as a file holds it, without its type.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(v) => out.push(*v),
            Value::I8(v) => out.extend(v.to_le_bytes()),
            Value::U16(v) => out.extend(v.to_le_bytes()),
            Value::I16(v) => out.extend(v.to_le_bytes()),
            Value::U32(v) => out.extend(v.to_le_bytes()),
            Value::I32(v) => out.extend(v.to_le_bytes()),
            Value::F32(v) => out.extend(v.to_le_bytes()),
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::String(v) => write_string(out, v),
            Value::U64(v) => out.extend(v.to_le_bytes()),
            Value::I64(v) => out.extend(v.to_le_bytes()),
            Value::F64(v) => out.extend(v.to_le_bytes()),
            Value::Array(array) => {
                out.extend((array.kind as u32).to_le_bytes());
                out.extend((array.len as u64).to_le_bytes());
                out.extend_from_slice(&array.bytes);
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::U8(v) => v.fmt(f),
            Value::I8(v) => v.fmt(f),
            Value::U16(v) => v.fmt(f),
            Value::I16(v) => v.fmt(f),
            Value::U32(v) => v.fmt(f),
            Value::I32(v) => v.fmt(f),
            Value::F32(v) => v.fmt(f),
            Value::Bool(v) => v.fmt(f),
            Value::String(v) => v.fmt(f),
            Value::U64(v) => v.fmt(f),
            Value::I64(v) => v.fmt(f),
            Value::F64(v) => v.fmt(f),
            Value::Array(array) => write!(f, "[{} × {:?}]", array.len, array.kind),
        }
    }
}

/// An array as it lies in the file, checked once when the file was opened and decoded when asked: a
/// vocabulary of 32,000 pieces costs nothing until somebody wants it.
#[derive(Clone, Debug)]
pub struct Array {
    pub(super) kind: Kind,
    pub(super) len: usize,
    pub(super) bytes: SharedBytes,
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, self.len) == (other.kind, other.len) && *self.bytes == *other.bytes
    }
}

impl Array {
    /// The type of the elements.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The strings of an array of strings, as bytes.
    #[must_use]
    pub fn strings(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let mut rest = &*self.bytes;
        (self.kind == Kind::String).then_some(std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk::<8>()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
            let (string, after) = after.split_at_checked(len)?;
            rest = after;
            Some(string)
        }))
    }

    /// The elements of an array of f32.
    #[must_use]
    pub fn f32s(&self) -> Option<impl Iterator<Item = f32>> {
        (self.kind == Kind::F32).then(|| self.words().map(f32::from_le_bytes))
    }

    /// The elements of an array of i32 or u32 as i32.
    #[must_use]
    pub fn i32s(&self) -> Option<impl Iterator<Item = i32>> {
        matches!(self.kind, Kind::I32 | Kind::U32).then(|| self.words().map(i32::from_le_bytes))
    }

    fn words(&self) -> impl Iterator<Item = [u8; 4]> {
        self.bytes.as_chunks::<4>().0.iter().copied()
    }
}

pub(super) fn write_string(out: &mut Vec<u8>, string: &str) {
    out.extend((string.len() as u64).to_le_bytes());
    out.extend_from_slice(string.as_bytes());
}
