//! Token shards: the ids of a source's documents, one after the other.
//!
//! The ids of a source make one long row: BOS, the text, EOS of each document in turn. A shard is a stretch of it, so a
//! document may begin in one shard and end in another. All numbers are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `PUNADATA` |
//! | 8..12 | version, 1 |
//! | 12..16 | bytes of an id: 2 for a vocabulary of at most 65,536, else 4 |
//! | 16..20 | size of the vocabulary |
//! | 20..24 | zero |
//! | 24..32 | where in the row the shard begins |
//! | 32..40 | its ids |
//! | 40..48 | documents that begin in it |
//! | 48..80 | SHA-256 of the tokenizer's file |
//! | 80.. | the ids |

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::manifest::{Sha256, Shard, Split, Vocabulary};

const MAGIC: &[u8; 8] = b"PUNADATA";
const VERSION: u32 = 1;
/// Bytes before the ids.
pub(crate) const HEADER_BYTES: usize = 80;

/// What stands at the beginning of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHeader {
    /// Ids are smaller.
    pub vocab_size: u32,
    /// Where in its source's row of ids the shard begins.
    pub first: u64,
    /// Its ids.
    pub n_tokens: u64,
    /// Documents that begin in it.
    pub n_documents: u64,
    /// SHA-256 of the tokenizer's file.
    pub tokenizer: Sha256,
}

/// Bytes of an id.
fn id_bytes(vocab_size: u32) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

impl ShardHeader {
    /// Reads the header of a shard of `n_bytes` bytes from its first bytes; `file` is its name for messages.
    ///
    /// # Errors
    /// Not a shard, of another version, or of another length than its header says.
    pub fn parse(file: &str, bytes: &[u8], n_bytes: u64) -> Result<Self, DataError> {
        let fail = |what, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            Err(DataError::corpus(file, what, expected, found))
        };
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return fail("length", &format!("at least {HEADER_BYTES} bytes"), &bytes.len());
        };
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight"));
        if &header[..8] != MAGIC {
            return fail("beginning", &"PUNADATA, a token shard", &"something else");
        }
        if u32_at(8) != VERSION {
            return fail("version", &VERSION, &u32_at(8));
        }
        let vocab_size = u32_at(16);
        if vocab_size == 0 {
            return fail("size of the vocabulary", &"at least 1", &0);
        }
        let width = id_bytes(vocab_size);
        if u32_at(12) as usize != width {
            return fail("bytes of an id", &width, &u32_at(12));
        }
        if u32_at(20) != 0 {
            return fail("bytes 20 to 24", &0, &u32_at(20));
        }
        let (first, n_tokens, n_documents) = (u64_at(24), u64_at(32), u64_at(40));
        let expected = n_tokens
            .checked_mul(width as u64)
            .and_then(|ids| ids.checked_add(HEADER_BYTES as u64))
            .filter(|_| first.checked_add(n_tokens).is_some());
        if expected != Some(n_bytes) {
            let expected = format!("{n_tokens} ids of {width} bytes after the header");
            return fail("length", &expected, &format!("{n_bytes} bytes in all"));
        }
        if n_documents > n_tokens {
            return fail("documents", &format!("at most {n_tokens}, the ids"), &n_documents);
        }
        let tokenizer = Sha256(header[48..].try_into().expect("32 of 80 bytes are left"));
        Ok(Self { vocab_size, first, n_tokens, n_documents, tokenizer })
    }

    /// Reads the header of a file.
    ///
    /// # Errors
    /// As [`ShardHeader::parse`]; the file cannot be read.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let mut file = File::open(path).map_err(DataError::io(path))?;
        let n_bytes = file.metadata().map_err(DataError::io(path))?.len();
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let mut start = (&mut file).take(HEADER_BYTES as u64);
        start.read_to_end(&mut bytes).map_err(DataError::io(path))?;
        Self::parse(&path.display().to_string(), &bytes, n_bytes)
    }

    /// The header as it is stored.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(id_bytes(self.vocab_size) as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.vocab_size.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.n_tokens.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.n_documents.to_le_bytes());
        bytes[48..].copy_from_slice(&self.tokenizer.0);
        bytes
    }
}

/// Appends `n` ids from the `at`-th on of the shard at `path` to `ids`.
pub(crate) fn read_ids(
    path: &Path,
    vocab_size: u32,
    at: u64,
    n: usize,
    ids: &mut Vec<u32>,
) -> Result<(), DataError> {
    let width = id_bytes(vocab_size);
    let mut bytes = vec![0; n * width];
    let start = HEADER_BYTES as u64 + at * width as u64;
    // Opened anew for each sequence: some microseconds, and no limit on the number of shards.
    let mut file = File::open(path).map_err(DataError::io(path))?;
    file.seek(SeekFrom::Start(start)).map_err(DataError::io(path))?;
    file.read_exact(&mut bytes).map_err(DataError::io(path))?;
    for id in bytes.chunks_exact(width) {
        let id = match *id {
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("ids have two bytes or four"),
        };
        if id >= vocab_size {
            let expected = format!("below {vocab_size}");
            return Err(DataError::corpus(path.display(), "an id", expected, id));
        }
        ids.push(id);
    }
    Ok(())
}

/// Writes the shards of one source and split. A shard is put together in memory and written when it is full.
pub(crate) struct ShardWriter {
    folder: PathBuf,
    /// Names of files begin with this.
    stem: String,
    header: ShardHeader,
    shard_tokens: u64,
    bytes: Vec<u8>,
    split: Split,
}

impl ShardWriter {
    pub(crate) fn new(
        folder: &Path,
        stem: String,
        vocabulary: &Vocabulary,
        shard_tokens: u64,
    ) -> Self {
        let header = ShardHeader {
            vocab_size: vocabulary.vocab_size,
            first: 0,
            n_tokens: 0,
            n_documents: 0,
            tokenizer: vocabulary.sha256,
        };
        let bytes = vec![0; HEADER_BYTES];
        let folder = folder.to_path_buf();
        Self { folder, stem, header, shard_tokens, bytes, split: Split::default() }
    }

    /// Appends the ids of a document of `n_bytes` bytes of text.
    pub(crate) fn push(&mut self, ids: &[u32], n_bytes: u64) -> Result<(), DataError> {
        self.header.n_documents += 1;
        self.split.documents += 1;
        self.split.bytes += n_bytes;
        self.split.tokens += ids.len() as u64;
        self.split.longer_than_a_shard += u64::from(ids.len() as u64 > self.shard_tokens);
        let mut ids = ids;
        while !ids.is_empty() {
            let room = (self.shard_tokens - self.header.n_tokens) as usize;
            let (now, later) = ids.split_at(room.min(ids.len()));
            match id_bytes(self.header.vocab_size) {
                2 => now.iter().for_each(|&id| self.bytes.extend((id as u16).to_le_bytes())),
                _ => now.iter().for_each(|id| self.bytes.extend(id.to_le_bytes())),
            }
            self.header.n_tokens += now.len() as u64;
            if self.header.n_tokens == self.shard_tokens {
                self.write()?;
            }
            ids = later;
        }
        Ok(())
    }

    /// Writes the last shard.
    pub(crate) fn finish(mut self) -> Result<Split, DataError> {
        if self.header.n_tokens > 0 {
            self.write()?;
        }
        Ok(self.split)
    }

    fn write(&mut self) -> Result<(), DataError> {
        let file = format!("{}.{:05}.bin", self.stem, self.split.shards.len());
        self.bytes[..HEADER_BYTES].copy_from_slice(&self.header.to_bytes());
        write_file(&self.folder.join(&file), &self.bytes)?;
        let n_tokens = self.header.n_tokens;
        self.split.shards.push(Shard { file, tokens: n_tokens, sha256: Sha256::of(&self.bytes) });
        self.bytes.truncate(HEADER_BYTES);
        self.header.first += n_tokens;
        self.header.n_tokens = 0;
        self.header.n_documents = 0;
        Ok(())
    }
}

/// Writes a new file, down to the disk.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let mut file = File::create_new(path).map_err(DataError::io(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(DataError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_both_widths_come_back() {
        for vocab_size in [512, 1 << 16, 100_000] {
            let folder = tempfile::tempdir().unwrap();
            let sha256 = Sha256::of(b"tokenizer");
            let file = "tokenizer.model".to_owned();
            let vocabulary = Vocabulary { file, sha256, vocab_size, bos_id: 1, eos_id: 2 };
            let mut writer = ShardWriter::new(folder.path(), "train.a".to_owned(), &vocabulary, 5);
            let last = vocab_size - 1;
            let documents: [&[u32]; 3] = [&[1, last, 2], &[1, 3, 4, 5, 6, 7, 8, 2], &[1, 2]];
            for ids in documents {
                writer.push(ids, 7).unwrap();
            }
            let split = writer.finish().unwrap();
            assert_eq!((split.documents, split.bytes, split.tokens), (3, 21, 13));
            assert_eq!(split.longer_than_a_shard, 1);
            let shards = split.shards;
            assert_eq!(shards.iter().map(|shard| shard.tokens).collect::<Vec<_>>(), [5, 5, 3]);
            let (mut ids, mut n_documents) = (Vec::new(), Vec::new());
            for (i, shard) in shards.iter().enumerate() {
                let path = folder.path().join(&shard.file);
                let header = ShardHeader::open(&path).unwrap();
                assert_eq!((header.first, header.n_tokens), (5 * i as u64, shard.tokens));
                n_documents.push(header.n_documents);
                read_ids(&path, vocab_size, 0, shard.tokens as usize, &mut ids).unwrap();
            }
            assert_eq!(ids, documents.concat());
            assert_eq!(n_documents, [2, 0, 1]);
            let path = folder.path().join("train.a.00000.bin");
            let mut some = Vec::new();
            read_ids(&path, vocab_size, 1, 2, &mut some).unwrap();
            assert_eq!(some, [last, 2]);
            let message = read_ids(&path, last, 1, 1, &mut some).unwrap_err().to_string();
            // 65,536 ids are the most of two bytes.
            assert!(
                message.ends_with(&format!("expected below {last}, found {last}")),
                "{message}"
            );
        }
    }
}
