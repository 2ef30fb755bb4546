//! The tokenizer of a corpus, as a file that goes into it.

use std::path::{Path, PathBuf};

use puna_tokenizer::Tokenizer;

use crate::DataError;
use crate::manifest::{Sha256, Vocabulary};
use crate::shard::write_file;

/// Most bytes of a tokenizer's file.
const MAX_BYTES: u64 = 1 << 28;

/// A tokenizer and the bytes it was read from.
pub(crate) struct TokenizerFile {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) record: Vocabulary,
    bytes: Vec<u8>,
    /// Hugging Face's `tokenizer_config.json` beside a `tokenizer.json`.
    config: Option<Vec<u8>>,
}

/// Name of what says which tokens of a `tokenizer.json` begin and end a text.
pub(crate) const HF_CONFIG: &str = "tokenizer_config.json";

impl TokenizerFile {
    /// Reads SentencePiece's or Hugging Face's form.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let file = path.display().to_string();
        let bytes = read(path)?;
        let is_json = bytes.trim_ascii_start().starts_with(b"{");
        let config = Some(path.with_file_name(HF_CONFIG)).filter(|path| is_json && path.exists());
        let config = config.map(|path: PathBuf| read(&path)).transpose()?;
        let tokenizer = if is_json {
            Tokenizer::from_hf_json(&bytes, config.as_deref())
        } else {
            Tokenizer::from_sentencepiece(&bytes)
        };
        let tokenizer =
            tokenizer.map_err(|source| DataError::Tokenizer { file: file.clone(), source })?;
        let (Some(bos_id), Some(eos_id)) = (tokenizer.bos_id(), tokenizer.eos_id()) else {
            let expected = "a tokenizer with tokens that begin and end a text";
            return Err(DataError::input(file, expected, "one without"));
        };
        let record = Vocabulary {
            file: if is_json { "tokenizer.json" } else { "tokenizer.model" }.to_owned(),
            sha256: Sha256::of(&bytes),
            vocab_size: tokenizer.vocab_size() as u32,
            bos_id,
            eos_id,
        };
        Ok(Self { tokenizer, record, bytes, config })
    }

    /// Writes the files it was read from into a corpus.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), DataError> {
        write_file(&folder.join(&self.record.file), &self.bytes)?;
        self.config.as_ref().map_or(Ok(()), |config| write_file(&folder.join(HF_CONFIG), config))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let n_bytes = crate::read::check_file(path)?;
    if n_bytes > MAX_BYTES {
        let expected = format!("a tokenizer of at most {MAX_BYTES} bytes");
        return Err(DataError::input(path.display(), expected, n_bytes));
    }
    std::fs::read(path).map_err(DataError::io(path))
}
