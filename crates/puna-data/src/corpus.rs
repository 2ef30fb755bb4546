//! A corpus that was built: its manifest, its tokenizer, and its ids by place.

use std::path::{Path, PathBuf};

use puna_tokenizer::{PieceKind, Tokenizer};

use crate::DataError;
use crate::manifest::{MANIFEST, Manifest, Sha256, Split};
use crate::shard::{ShardHeader, read_ids};
use crate::vocabulary::TokenizerFile;

/// A corpus on disk. Nothing of its tokens is kept in memory.
#[derive(Debug)]
pub struct Corpus {
    folder: PathBuf,
    manifest: Manifest,
    tokenizer: Tokenizer,
    /// Bytes of text that each id stands for.
    piece_bytes: Vec<u16>,
}

impl Corpus {
    /// Opens the corpus in `folder`: its manifest, its tokenizer, and the header of each shard.
    ///
    /// # Errors
    /// Not a corpus, files that are missing or of another length, a tokenizer that is not the one it was built with.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(MANIFEST);
        let bytes = std::fs::read(&path).map_err(DataError::io(&path))?;
        let manifest = Manifest::parse(&path.display().to_string(), &bytes)?;
        let path = folder.join(&manifest.tokenizer.file);
        let TokenizerFile { tokenizer, record, .. } = TokenizerFile::open(&path)?;
        if record != manifest.tokenizer {
            let (expected, found) = (manifest.tokenizer.sha256, record.sha256);
            return Err(DataError::corpus(path.display(), "SHA-256", expected, found));
        }
        let piece_bytes = (0..record.vocab_size).map(|id| piece_bytes(&tokenizer, id)).collect();
        let corpus = Self { folder: folder.to_path_buf(), manifest, tokenizer, piece_bytes };
        for source in &corpus.manifest.sources {
            corpus.check_headers(&source.train)?;
            corpus.check_headers(&source.held_out)?;
        }
        Ok(corpus)
    }

    fn check_headers(&self, split: &Split) -> Result<(), DataError> {
        let (mut first, mut n_documents) = (0, 0);
        for shard in &split.shards {
            let path = self.folder.join(&shard.file);
            let header = ShardHeader::open(&path)?;
            let expected = ShardHeader {
                vocab_size: self.manifest.tokenizer.vocab_size,
                first,
                n_tokens: shard.tokens,
                n_documents: header.n_documents,
                tokenizer: self.manifest.tokenizer.sha256,
            };
            if header != expected {
                let (expected, found) = (format!("{expected:?}"), format!("{header:?}"));
                return Err(DataError::corpus(path.display(), "header", expected, found));
            }
            first += shard.tokens;
            n_documents += header.n_documents;
        }
        if n_documents != split.documents {
            let folder = self.folder.display();
            return Err(DataError::corpus(folder, "documents", split.documents, n_documents));
        }
        Ok(())
    }

    /// Compares every shard with its hash; `on` is told bytes compared and bytes to compare, and stops with `false`.
    ///
    /// # Errors
    /// The first file that differs; [`DataError::Stopped`].
    pub fn check(&self, on: &mut dyn FnMut(u64, u64) -> bool) -> Result<(), DataError> {
        let splits = self.manifest.sources.iter().flat_map(|s| [&s.train, &s.held_out]);
        let shards: Vec<_> = splits.flat_map(|split| &split.shards).collect();
        let total = shards.iter().map(|shard| shard.tokens).sum();
        let mut done = 0;
        for shard in shards {
            if !on(done, total) {
                return Err(DataError::Stopped);
            }
            let path = self.folder.join(&shard.file);
            let found = Sha256::of(&std::fs::read(&path).map_err(DataError::io(&path))?);
            if found != shard.sha256 {
                return Err(DataError::corpus(path.display(), "SHA-256", shard.sha256, found));
            }
            done += shard.tokens;
        }
        Ok(())
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tokenizer it was built with.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Appends `n` ids of a split from the `at`-th on. All of them are there.
    pub(crate) fn read(
        &self,
        split: &Split,
        mut at: u64,
        n: usize,
        ids: &mut Vec<u32>,
    ) -> Result<(), DataError> {
        let end = at + n as u64;
        while at < end {
            let idx = at / self.manifest.shard_tokens;
            let shard = &split.shards[idx as usize];
            let inside = at % self.manifest.shard_tokens;
            let n = (end - at).min(shard.tokens - inside);
            let path = self.folder.join(&shard.file);
            read_ids(&path, self.manifest.tokenizer.vocab_size, inside, n as usize, ids)?;
            at += n;
        }
        Ok(())
    }

    /// For each token, where in `tokens` its document begins; zero for one that began before.
    pub(crate) fn document_starts(&self, tokens: &[u32]) -> Vec<u32> {
        let mut start = 0;
        let starts = tokens.iter().enumerate().map(|(i, &id)| {
            if id == self.manifest.tokenizer.bos_id {
                start = i as u32;
            }
            start
        });
        starts.collect()
    }

    /// Bytes of text that `tokens[1..]` stand for: the space that the tokenizer puts before a text is none of it.
    pub(crate) fn text_bytes(&self, tokens: &[u32]) -> u64 {
        let bos_id = self.manifest.tokenizer.bos_id;
        let eos_id = self.manifest.tokenizer.eos_id;
        let prefix = u64::from(self.tokenizer.settings().add_dummy_prefix);
        let pairs = tokens.windows(2).map(|pair| {
            let n = u64::from(self.piece_bytes[pair[1] as usize]);
            let is_first = pair[0] == bos_id && pair[1] != eos_id;
            if is_first { n.saturating_sub(prefix) } else { n }
        });
        pairs.sum()
    }
}

/// Bytes of text that a token stands for; `▁` stands for a space.
fn piece_bytes(tokenizer: &Tokenizer, id: u32) -> u16 {
    let Some(piece) = tokenizer.piece(id) else { return 0 };
    match piece.kind {
        PieceKind::Byte => 1,
        PieceKind::Control | PieceKind::Unused => 0,
        _ => u16::try_from(piece.text.replace('\u{2581}', " ").len()).unwrap_or(u16::MAX),
    }
}
