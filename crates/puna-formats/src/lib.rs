//! Bytes to named tensors and back: safetensors, GGUF, Meta .pth, llama2.c .bin, Hugging Face configs.
//!
//! [`open`] recognises a file or folder by its content and returns a [`Checkpoint`], whose
//! [`TensorSource`] gives the tensors of the network under its own names, checked against the configuration.
//! Tensors are views of memory maps wherever the form allows it. Parsers never panic, use checked arithmetic
//! throughout, and allocate no more than a small multiple of the bytes they read; each names its limits.

mod atomic;
mod cursor;
mod error;
pub mod gguf;
pub mod hf;
mod imatrix;
mod json;
mod listed;
pub mod llama2c;
mod map;
pub mod meta;
mod names;
mod recognise;
pub mod safetensors;
pub mod torch;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_core::{SamplingHints, SharedBytes, TensorSource};

pub use atomic::{AtomicFolder, Existing};
pub use error::FormatError;
pub use gguf::GgufVocab;
pub use imatrix::Imatrix;
pub use listed::{Index, MAX_INDEX_BYTES};
use map::DataFile;

/// The published forms of Llama 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `params.json` and `consolidated.NN.pth`.
    Meta,
    /// `config.json` with safetensors or `pytorch_model*.bin`.
    HuggingFace,
    /// GGUF, one file or split.
    Gguf,
    /// llama2.c's `.bin`.
    Llama2c,
}

/// An opened model: its tensors and whatever else its files say.
#[derive(Clone)]
pub struct Checkpoint {
    /// Configuration and tensors.
    pub source: Arc<dyn TensorSource>,
    /// The form it came in.
    pub form: Form,
    /// The files that hold its tensors; empty for a model given as bytes.
    pub files: Vec<PathBuf>,
    /// The vocabulary, where the form carries one.
    pub vocab: Option<GgufVocab>,
    /// A Jinja template for conversations.
    pub chat_template: Option<String>,
    /// Everything else that the files state, in their own words.
    pub metadata: Vec<(String, String)>,
    /// The same with their types, where the form has types: the metadata of a GGUF file.
    pub gguf_metadata: Vec<(String, gguf::Value)>,
    /// Token that begins a text; 1, as in every Llama 2, where the form has no place to say.
    pub bos_id: Option<u32>,
    /// Tokens that end a text; 2 where the form has no place to say.
    pub eos_ids: Vec<u32>,
    /// Whether a text begins with BOS; true for Llama 2 where the files do not say.
    pub add_bos: Option<bool>,
    /// Whether a text ends with EOS; false for Llama 2 where the files do not say.
    pub add_eos: Option<bool>,
    /// How tokens should be drawn, where the files say.
    pub sampling: SamplingHints,
    /// Tensors that were left out because a network of this family computes them itself.
    pub ignored: Vec<String>,
}

/// Opens a file or folder of any form.
///
/// # Errors
/// The path is no model, or its files are broken, incomplete, or not supported.
pub fn open(path: &Path) -> Result<Checkpoint, FormatError> {
    if path.is_dir() { recognise::open_folder(path) } else { recognise::open_file(path) }
}

/// Opens a model that is one GGUF or llama2.c file, from its bytes. `name` is for messages.
///
/// # Errors
/// As [`open`].
pub fn open_bytes(name: &str, bytes: SharedBytes) -> Result<Checkpoint, FormatError> {
    let file = DataFile::from_bytes(name, bytes);
    if file.bytes.starts_with(&gguf::MAGIC) {
        return gguf::open_file(file);
    }
    if llama2c::is_llama2c(&file.bytes) {
        return llama2c::open(None, file);
    }
    Err(recognise::not_a_model(&file))
}

/// Opens a model from the bytes of its file, or of all parts of a split GGUF file in their order, each with a name for
/// messages.
///
/// # Errors
/// As [`open`].
///
/// # Panics
/// There are no parts.
pub fn open_parts(parts: &[(&str, SharedBytes)]) -> Result<Checkpoint, FormatError> {
    match parts {
        [] => panic!("a model has at least one part"),
        [(name, bytes)] => open_bytes(name, bytes.clone()),
        parts => {
            let files =
                parts.iter().map(|(name, bytes)| DataFile::from_bytes(*name, bytes.clone()));
            gguf::open_parts(files.collect())
        }
    }
}
