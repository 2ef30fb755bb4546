//! What can be wrong with turning one form of a model into another.

use std::path::PathBuf;

use puna_core::{DType, WeightId};
use puna_tokenizer::TokenizerError;
use thiserror::Error;

/// Why a model cannot be written in another form.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// A value that the type asked for would turn into infinity.
    #[error(
        "tensor {tensor}: value {value} does not fit into {dtype}, which ends at {largest}; bf16 and f32 hold it"
    )]
    Overflow {
        /// The tensor.
        tensor: WeightId,
        /// The value.
        value: f32,
        /// The type asked for.
        dtype: DType,
        /// The largest finite value of that type.
        largest: f32,
    },
    /// A value that blocks cannot hold.
    #[error(
        "tensor {tensor}: expected finite values to store as {dtype}, found {value}; puna inspect MODEL --check \
         tells where"
    )]
    NotFinite {
        /// The tensor.
        tensor: WeightId,
        /// The value.
        value: f32,
        /// The type asked for.
        dtype: DType,
    },
    /// A folder that would be replaced together with the model that is read.
    #[error(
        "{}: expected another folder than that of the model to convert, which has {} in it; it is left as it is",
        folder.display(),
        source_file.display()
    )]
    SourceInside {
        /// What was to be written.
        folder: PathBuf,
        /// A file of the source.
        source_file: PathBuf,
    },
    /// A vocabulary that the other form cannot hold.
    #[error("the tokenizer cannot be written in this form: {0}")]
    Vocabulary(#[from] TokenizerError),
}
