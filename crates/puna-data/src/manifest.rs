//! The manifest of a corpus: what is in it, where it is from, and what was left out.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest;

use crate::DataError;
use crate::config::{MAX_SHARES, MAX_SOURCES};
use crate::near::NearDuplicates;
use crate::vocabulary::HF_CONFIG;

/// Name of the manifest in a corpus.
pub const MANIFEST: &str = "manifest.json";

/// Name of the configuration in a corpus.
pub(crate) const CONFIG: &str = "config.toml";

const VERSION: u32 = 1;

/// What a corpus says of itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form.
    pub version: u32,
    /// The configuration, word for word.
    pub config: Named,
    /// The vocabulary of all ids.
    pub tokenizer: Vocabulary,
    /// Decides what is held out.
    pub seed: u64,
    /// Tokens of a shard; the last one of a source may have fewer.
    pub shard_tokens: u64,
    /// Share of documents or groups that is held out by hash.
    pub held_out_fraction: f64,
    /// Which passages were dropped as nearly held-out text.
    pub near_duplicates: NearDuplicates,
    /// Share of known runs of words above which a document was dropped as nearly an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_copies: Option<f64>,
    /// The parts of the mixture.
    pub sources: Vec<SourceRecord>,
}

/// A file with its content's hash.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its name.
    pub file: String,
    /// Of its bytes.
    pub sha256: Sha256,
}

/// The tokenizer of a corpus.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    /// Its file in the corpus.
    pub file: String,
    /// Of its bytes.
    pub sha256: Sha256,
    /// Ids are smaller.
    pub vocab_size: u32,
    /// Begins each document.
    pub bos_id: u32,
    /// Ends each document.
    pub eos_id: u32,
}

/// A source of the corpus.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRecord {
    /// Its name.
    pub name: String,
    /// Where it is from, in the configuration's words.
    pub origin: String,
    /// On what terms it may be used, in the configuration's words.
    pub licence: String,
    /// Of so many training sequences as all weights together, this many are from here.
    pub weight: u64,
    /// Its files as the configuration names them, with their contents' hashes.
    pub files: Vec<Named>,
    /// Its lists of words and of groups, in the same way.
    pub lists: Vec<Named>,
    /// All documents that are not empty, before anything was left out.
    pub read: Amount,
    /// Stretches of bytes that were no UTF-8, each now U+FFFD.
    pub utf8_replaced: u64,
    /// What was left out, and why.
    pub removed: Removed,
    /// Documents or paragraphs with a listed word that were counted and kept.
    pub counted_words: u64,
    /// What training reads.
    pub train: Split,
    /// What training never sees.
    pub held_out: Split,
    /// The groups that are held out.
    pub held_out_groups: Vec<String>,
}

/// Documents, paragraphs or passages and their text.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// How many.
    pub n: u64,
    /// Of UTF-8 text.
    pub bytes: u64,
}

impl Amount {
    /// One more, of `n_bytes` bytes.
    pub(crate) fn add(&mut self, n_bytes: usize) {
        self.n += 1;
        self.bytes += n_bytes as u64;
    }

    fn is_zero(&self) -> bool {
        self.n == 0
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.n += other.n;
        self.bytes += other.bytes;
    }
}

/// What was left out of a source. A document is counted where it was first refused.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// Copies of an earlier document, byte for byte.
    pub duplicates: Amount,
    /// Written in another script.
    pub script: Amount,
    /// Units with a listed word: documents, or paragraphs with their bytes.
    pub words: Amount,
    /// Passages for training that are nearly held-out text.
    pub near_duplicates: Amount,
    /// Documents for training that are nearly earlier ones.
    #[serde(default, skip_serializing_if = "Amount::is_zero")]
    pub near_copies: Amount,
    /// Documents, or what was left of them, that are too short.
    pub min_chars: Amount,
}

impl Removed {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.duplicates.merge(other.duplicates);
        self.script.merge(other.script);
        self.words.merge(other.words);
        self.near_duplicates.merge(other.near_duplicates);
        self.near_copies.merge(other.near_copies);
        self.min_chars.merge(other.min_chars);
    }
}

/// The documents of one side, as tokens.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// How many; a document that was cut counts once for each part.
    pub documents: u64,
    /// Of UTF-8 text.
    pub bytes: u64,
    /// BOS and EOS of each document included.
    pub tokens: u64,
    /// Documents longer than a shard, which go on in the next.
    pub longer_than_a_shard: u64,
    /// Their files, in order.
    pub shards: Vec<Shard>,
}

/// A file of tokens.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its name in the corpus.
    pub file: String,
    /// Ids in it.
    pub tokens: u64,
    /// Of its bytes.
    pub sha256: Sha256,
}

impl Manifest {
    /// The version that this program writes and reads.
    pub(crate) const VERSION: u32 = VERSION;

    /// Reads a manifest; `file` is its name for messages.
    ///
    /// # Errors
    /// Not JSON, of another version, or numbers that contradict each other.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, DataError> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|e| DataError::corpus(file, "content", "the manifest of a corpus", e))?;
        match manifest.mistake() {
            None => Ok(manifest),
            Some((what, expected, found)) => Err(DataError::corpus(file, what, expected, found)),
        }
    }

    /// The first number that cannot be.
    fn mistake(&self) -> Option<(&'static str, String, String)> {
        let told = |what, expected: &str, found: &dyn fmt::Display| {
            Some((what, expected.to_owned(), found.to_string()))
        };
        if self.version != VERSION {
            return told("version", &VERSION.to_string(), &self.version);
        }
        let vocabulary = &self.tokenizer;
        if vocabulary.bos_id.max(vocabulary.eos_id) >= vocabulary.vocab_size {
            let expected = "bos_id and eos_id below vocab_size";
            return told("tokenizer", expected, &vocabulary.vocab_size);
        }
        if self.shard_tokens == 0 {
            return told("shard_tokens", "at least 1", &0);
        }
        if !(1..=MAX_SOURCES).contains(&self.sources.len()) {
            let expected = format!("1 to {MAX_SOURCES}");
            return told("sources", &expected, &self.sources.len());
        }
        let mut shares = 0u64;
        for source in &self.sources {
            shares = shares.saturating_add(source.weight);
            if source.weight == 0 || shares > MAX_SHARES {
                let expected = format!("1 to {MAX_SHARES} in all");
                return told("weight", &expected, &source.weight);
            }
            if source.train.tokens == 0 {
                return told("tokens", "some to train on", &format!("none of {:?}", source.name));
            }
            for split in [&source.train, &source.held_out] {
                if !split.is_consistent(self.shard_tokens) {
                    let expected = "full shards and a last one, their tokens together those told";
                    return told("shards", expected, &format!("others for {:?}", source.name));
                }
            }
        }
        let files =
            self.sources.iter().flat_map(|s| s.train.shards.iter().chain(&s.held_out.shards));
        let mut names = files.map(|shard| &*shard.file).chain([&*vocabulary.file]);
        match names.find(|name| !is_own_name(name)) {
            Some(name) => told("file", "the name of a file of a corpus", &format!("{name:?}")),
            None => None,
        }
    }
}

impl Split {
    /// All shards but the last are full.
    fn is_consistent(&self, shard_tokens: u64) -> bool {
        let Some((last, full)) = self.shards.split_last() else { return self.tokens == 0 };
        let before = (full.len() as u64).checked_mul(shard_tokens);
        (1..=shard_tokens).contains(&last.tokens)
            && full.iter().all(|shard| shard.tokens == shard_tokens)
            && before.and_then(|n| n.checked_add(last.tokens)) == Some(self.tokens)
    }
}

/// Whether a corpus may have a file of this name: what `puna data build --force` may replace.
pub fn is_own_name(name: &str) -> bool {
    let is_shard = (name.starts_with("train.") || name.starts_with("held_out."))
        && name.ends_with(".bin")
        && !name.contains(['/', '\\', ':', '\0']);
    is_shard || [MANIFEST, CONFIG, "tokenizer.model", "tokenizer.json", HF_CONFIG].contains(&name)
}

/// A hash, written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("expected a SHA-256 in hexadecimal"))
    }
}
