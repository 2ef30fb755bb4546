//! Reading little-endian fields from bytes that may end anywhere.

use std::fmt::Display;

use crate::FormatError;

/// A position in a file's bytes. Every read names the field it is for, so that a truncated file is
/// reported by what is missing from it.
pub(crate) struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(file: &'a str, bytes: &'a [u8]) -> Self {
        Self { file, bytes, pos: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes left to read.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    /// All bytes left, without reading them.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.pos..]
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize, what: impl Display) -> Result<&'a [u8], FormatError> {
        let rest = &self.bytes[self.pos..];
        let Some(taken) = rest.get(..n) else {
            let expected = format!("{n} bytes at offset {}", self.pos);
            let found = format!("{} before the end of the file", rest.len());
            return Err(FormatError::malformed(self.file, what, expected, found));
        };
        self.pos += n;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(
        &mut self,
        what: impl Display,
    ) -> Result<[u8; N], FormatError> {
        let bytes = self.take(N, what)?;
        Ok(bytes.try_into().expect("take returns as many bytes as were asked for"))
    }

    pub(crate) fn u8(&mut self, what: impl Display) -> Result<u8, FormatError> {
        self.array(what).map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self, what: impl Display) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self, what: impl Display) -> Result<i32, FormatError> {
        self.array(what).map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: impl Display) -> Result<u64, FormatError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A u64 that counts things of at least `min_bytes` bytes each, so that it is bounded by the file,
    /// and by `limit`.
    pub(crate) fn count(
        &mut self,
        what: impl Display,
        min_bytes: usize,
        limit: usize,
    ) -> Result<usize, FormatError> {
        let count = self.u64(&what)?;
        let most = limit.min(self.remaining() / min_bytes);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => {
                let expected =
                    format!("at most {most} (limit {limit}, and what the file can hold)");
                Err(FormatError::malformed(self.file, what, expected, count))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_in_order() {
        let mut cursor = Cursor::new("f", &[7, 1, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(cursor.u8("a").unwrap(), 7);
        assert_eq!(cursor.u32("b").unwrap(), 1);
        assert_eq!(cursor.i32("c").unwrap(), -1);
        assert_eq!((cursor.pos(), cursor.remaining()), (9, 0));
        let message = cursor.u64("size").unwrap_err().to_string();
        assert_eq!(
            message,
            "f: size: expected 8 bytes at offset 9, found 0 before the end of the file"
        );
    }

    #[test]
    fn counts_are_bounded_by_the_file_and_the_limit() {
        let mut bytes = 3u64.to_le_bytes().to_vec();
        bytes.extend([0; 6]);
        assert_eq!(Cursor::new("f", &bytes).count("n", 2, 10).unwrap(), 3);
        assert!(Cursor::new("f", &bytes).count("n", 3, 10).is_err());
        assert!(Cursor::new("f", &bytes).count("n", 2, 2).is_err());
        assert!(Cursor::new("f", &u64::MAX.to_le_bytes()).count("n", 1, 10).is_err());
    }
}
