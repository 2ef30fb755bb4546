//! The wire format of protocol buffers, as far as `tokenizer.model` needs it.
//!
//! A message is a sequence of fields: a varint key (field number × 8 + wire type), then a varint (0), eight bytes (1),
//! a length and that many bytes (2), or four bytes (5). Group fields (3, 4) are long gone and refused.
//! <https://protobuf.dev/programming-guides/encoding/>

use crate::TokenizerError;

const FORMAT: &str = "tokenizer.model";

/// One field's content.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// One field of a message, with its place in the file for error messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    pub(crate) value: Value<'a>,
    offset: usize,
}

/// Reads the fields of one message, in order; ends at the first error.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    /// Where `bytes` begins in the file.
    offset: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn of_file(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    fn error(&self, reason: impl Into<String>) -> TokenizerError {
        TokenizerError::Malformed { format: FORMAT, offset: self.offset, reason: reason.into() }
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], TokenizerError> {
        let left = self.bytes.len();
        let split = usize::try_from(n).ok().and_then(|n| self.bytes.split_at_checked(n));
        let Some((taken, rest)) = split else {
            return Err(self.error(format!("expected {n} more bytes, found {left}")));
        };
        self.bytes = rest;
        self.offset += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TokenizerError> {
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| self.error("wrong length"))
    }

    fn varint(&mut self) -> Result<u64, TokenizerError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("a varint of more than ten bytes"))
    }

    fn field(&mut self) -> Result<Field<'a>, TokenizerError> {
        let key = self.varint()?;
        let start = self.offset;
        let (value, offset) = match key & 7 {
            0 => (Value::Varint(self.varint()?), start),
            1 => (Value::Fixed64(u64::from_le_bytes(self.array()?)), start),
            2 => {
                let len = self.varint()?;
                let offset = self.offset;
                (Value::Bytes(self.take(len)?), offset)
            }
            5 => (Value::Fixed32(u32::from_le_bytes(self.array()?)), start),
            other => {
                return Err(self.error(format!("expected wire type 0, 1, 2 or 5, found {other}")));
            }
        };
        Ok(Field { number: key >> 3, value, offset })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, TokenizerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.bytes = &[];
        }
        Some(field)
    }
}

impl<'a> Field<'a> {
    fn error(&self, expected: &str) -> TokenizerError {
        let reason = format!("field {}: expected {expected}, found {:?}", self.number, self.value);
        TokenizerError::Malformed {
            format: FORMAT,
            offset: self.offset,
            reason: reason.chars().take(200).collect(),
        }
    }

    pub(crate) fn bytes(&self) -> Result<&'a [u8], TokenizerError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.error("bytes")),
        }
    }

    pub(crate) fn message(&self) -> Result<Fields<'a>, TokenizerError> {
        Ok(Fields { bytes: self.bytes()?, offset: self.offset })
    }

    pub(crate) fn text(&self) -> Result<&'a str, TokenizerError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.error("UTF-8 text"))
    }

    pub(crate) fn varint(&self) -> Result<u64, TokenizerError> {
        match self.value {
            Value::Varint(n) => Ok(n),
            _ => Err(self.error("a number")),
        }
    }

    pub(crate) fn bool(&self) -> Result<bool, TokenizerError> {
        Ok(self.varint()? != 0)
    }

    pub(crate) fn float(&self) -> Result<f32, TokenizerError> {
        match self.value {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.error("a float")),
        }
    }
}

/// Appends a varint.
fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends one field.
pub(crate) fn put_field(out: &mut Vec<u8>, number: u64, value: Value<'_>) {
    let wire_type = match value {
        Value::Varint(_) => 0,
        Value::Fixed64(_) => 1,
        Value::Bytes(_) => 2,
        Value::Fixed32(_) => 5,
    };
    put_varint(out, number << 3 | wire_type);
    match value {
        Value::Varint(n) => put_varint(out, n),
        Value::Fixed64(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Value::Fixed32(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Value::Bytes(bytes) => {
            put_varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let values = [
            Value::Varint(0),
            Value::Varint(u64::MAX),
            Value::Fixed64(7),
            Value::Bytes(b""),
            Value::Bytes(&[9; 200]),
            Value::Fixed32(f32::to_bits(-1e9)),
        ];
        let mut out = Vec::new();
        for (number, &value) in (1..).zip(&values) {
            put_field(&mut out, number * 1000, value);
        }
        let read: Vec<_> =
            Fields::of_file(&out).map(|f| f.map(|f| (f.number, f.value)).unwrap()).collect();
        let expected: Vec<_> = (1..).zip(values).map(|(n, v)| (n * 1000, v)).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn damage_is_an_error_that_says_where() {
        let cases: [(&[u8], &str); 5] = [
            (&[0x0A, 5, 1, 2], "at byte 2: expected 5 more bytes, found 2"),
            (&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1], "bytes, found 0"),
            (&[0x08], "at byte 1: expected 1 more bytes"),
            (&[0x80; 12], "more than ten bytes"),
            (&[0x0B], "wire type 0, 1, 2 or 5, found 3"),
        ];
        for (bytes, expected) in cases {
            let error = Fields::of_file(bytes).find_map(Result::err).expect("damaged").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
