//! Words shared by every Puna crate: the model's configuration, data types and
//! their block layouts, tensors by name, a seeded random stream.
//!
//! No file is opened here, no thread started, and there is no `unsafe`.
#![forbid(unsafe_code)]

mod config;
mod dtype;
mod hints;
mod rng;
mod tensor;
mod weight;

pub use config::{ConfigError, ModelConfig, Rope, RopeLayout, RopeScaling};
pub use dtype::{DType, KvType, UnknownType};
pub use hints::SamplingHints;
pub use rng::Rng;
pub use tensor::{SharedBytes, SourceError, Tensor, TensorInfo, TensorSource};
pub use weight::{LayerWeight, WeightId};
