//! What can be wrong between a model's name and its use.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use puna_core::SourceError;
use puna_eval::EvalError;
use puna_formats::FormatError;
use puna_tokenizer::TokenizerError;
use puna_tokenizer::chat::ChatError;
use thiserror::Error;

use crate::convert::ConvertError;
use crate::disk::bytes_text;
use crate::pull::PullError;
use crate::store::StoreError;
use crate::synth::Shape;

/// Why a model cannot be opened or written.
#[derive(Debug, Error)]
pub enum HubError {
    /// Neither a path nor a name.
    #[error("no file, folder or model is called {model:?}{}", did_you_mean(model, near, *pull))]
    NotFound {
        /// What was asked for.
        model: String,
        /// Names and files that it may have meant.
        near: Vec<String>,
        /// Whether it may be a repository that can be pulled.
        pull: bool,
    },
    /// Adapters on adapters without an end.
    #[error("expected at most {most} folders of adapters on one model, found more")]
    TooDeep {
        /// As many as there may be.
        most: usize,
    },
    /// A built-in model whose files were not there when the program was built.
    #[error(
        "{name} is not in this program: models/{files} were missing when it was built; give a model file or folder instead"
    )]
    NotBuiltIn {
        /// The model's name.
        name: &'static str,
        /// The missing files.
        files: &'static str,
    },
    /// The model's files.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A tensor of the model.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No tokenizer where one could be.
    #[error(
        "{model}: no tokenizer found; looked for {} in {}; give it with --tokenizer FILE",
        list(names),
        list(folders)
    )]
    NoTokenizer {
        /// The model.
        model: String,
        /// File names looked for.
        names: Vec<String>,
        /// Folders looked in.
        folders: Vec<String>,
    },
    /// A tokenizer that cannot be read.
    #[error("{file}: {source}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: TokenizerError,
    },
    /// A measurement that failed.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A quantised model that is too far from its parent.
    #[error(
        "mean KL divergence from the parent: expected at most {limit} nats, found {found:.6}: no file was written"
    )]
    TooFar {
        /// Nats.
        found: f64,
        /// Nats.
        limit: f64,
    },
    /// A model whose values run out of range.
    #[error("{model}: input of {matrix}: expected finite numbers, found NaN or infinity")]
    InputNotFinite {
        /// The model.
        model: String,
        /// The matrix whose input it is.
        matrix: String,
    },
    /// A tokenizer of another model.
    #[error(
        "{tokenizer}: the tokenizer has {n_pieces} pieces, but the model {model} has a vocabulary of {vocab_size}"
    )]
    VocabMismatch {
        /// Where the tokenizer was found.
        tokenizer: String,
        /// Its size.
        n_pieces: usize,
        /// The model.
        model: String,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// llama2.c's form does not say how many pieces it has.
    #[error(
        "{file}: a tokenizer.bin can only be read together with its model, which knows its size"
    )]
    UnknownSize {
        /// The file.
        file: String,
    },
    /// A chat template that cannot be used.
    #[error("{file}: {source}")]
    Template {
        /// The model.
        file: String,
        /// What is wrong with it.
        source: ChatError,
    },
    /// A shape that `synth` does not know.
    #[error("unknown shape {found:?}, expected one of {}", list(&Shape::ALL))]
    UnknownShape {
        /// What was given.
        found: String,
    },
    /// A vocabulary that `synth` cannot write.
    #[error("{file}: {message}")]
    Vocabulary {
        /// Where the vocabulary came from.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A model that does not fit into another form.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A repository, or the way to it.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The store of pulled models.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More bytes than the disk has room for.
    #[error(
        "{}: needs {}, only {} are free on its disk",
        path.display(),
        bytes_text(*needed),
        bytes_text(*free)
    )]
    NoSpace {
        /// What was to be written.
        path: PathBuf,
        /// Its bytes.
        needed: u64,
        /// Bytes that this user may still write there.
        free: u64,
    },
    /// Long work was stopped by its caller.
    #[error("stopped")]
    Stopped,
}

fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn did_you_mean(model: &str, near: &[String], pull: bool) -> String {
    if pull {
        return format!("; puna pull {model} fetches it, if it is a repository");
    }
    if near.is_empty() {
        return format!("; built in: {}", list(crate::built_in_names()));
    }
    format!("; did you mean {}?", near.join(" or "))
}
