//! What can be wrong with a checkpoint when a network is made of it.

use puna_core::{ConfigError, SourceError};
use thiserror::Error;

/// A network that cannot be built from a checkpoint.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The configuration describes no network.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// A tensor could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The checkpoint lacks a tensor.
    #[error("{tensor}: missing from the checkpoint")]
    Missing {
        /// This program's name of the tensor.
        tensor: String,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("{tensor}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// This program's name of the tensor.
        tensor: String,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
        /// The shape in the checkpoint.
        found: Vec<usize>,
    },
    /// A row does not consist of whole blocks, or the bytes do not match the shape.
    #[error("{tensor}: {dtype} with shape {shape:?} takes {expected} bytes, found {found}")]
    Bytes {
        /// This program's name of the tensor.
        tensor: String,
        /// Storage type.
        dtype: puna_core::DType,
        /// Shape in the checkpoint.
        shape: Vec<usize>,
        /// Bytes that type and shape take, or why they cannot be said.
        expected: String,
        /// Bytes present.
        found: usize,
    },
    /// A weight is NaN or infinite.
    #[error("{tensor}: element {index} is {value}, expected a finite number")]
    NotFinite {
        /// This program's name of the tensor.
        tensor: String,
        /// Index of the first such element.
        index: usize,
        /// Its value.
        value: f32,
    },
}
