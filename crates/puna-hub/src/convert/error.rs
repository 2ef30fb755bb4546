//! What can be wrong with turning one form of a model into another.

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
    /// A vocabulary that the other form cannot hold.
    #[error("the tokenizer cannot be written in this form: {0}")]
    Vocabulary(#[from] TokenizerError),
}
