//! Training data: texts of several sources to token shards with a manifest, and sequences from them; records of alignment.
//!
//! [`build`] reads what a [`Config`] names and writes a folder; [`Corpus`] opens one.
//!
//! 1. Documents come out of files as text, without the blank lines around them. Bytes that are no UTF-8 end the work, or
//!    become U+FFFD and are counted.
//! 2. A document, or its group, is held out if the hash of it and of the seed says so. What is held out never depends on
//!    other documents.
//! 3. A document that was there before, byte for byte, is left out; held-out documents come first.
//! 4. Filters look at the script of its letters and at listed words.
//! 5. Passages for training that are nearly held-out text are cut out of it (`near.rs`).
//! 6. What is long enough becomes BOS, the ids of its text, EOS, and goes into a shard (`shard.rs`).
//!
//! The result is a function of the configuration, the texts and the tokenizer: not of the number of threads, nor of
//! where files lie. Sequences for training are a function of the corpus, their length, a seed and their index
//! ([`Training`]).
//!
//! [`chat`] reads what alignment learns from: dialogues, prompts, pairs of answers.
#![forbid(unsafe_code)]

mod build;
pub mod chat;
mod choice;
pub mod config;
mod copies;
mod corpus;
mod document;
mod error;
mod filter;
mod groups;
mod manifest;
mod mixture;
mod near;
mod ordered;
mod read;
mod shard;
mod shuffle;
mod source;
mod stream;
mod texts;
mod vocabulary;
mod words;

pub use build::{Job, Progress, build};
pub use config::Config;
pub use corpus::Corpus;
pub use document::Side;
pub use error::DataError;
pub use manifest::{
    Amount, MANIFEST, Manifest, Named, Removed, Sha256, Shard, SourceRecord, Split, Vocabulary,
    is_own_name,
};
pub use near::NearDuplicates;
pub use read::unpacked;
pub use shard::ShardHeader;
pub use stream::{HeldOutWindow, HeldOutWindows, Place, Sequence, Training};
pub use texts::Texts;
