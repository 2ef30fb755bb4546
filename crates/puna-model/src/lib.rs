//! The Llama 2 network (arXiv 2307.09288, section 2.2): pre-normalised transformer blocks with RMSNorm,
//! rotary position embedding, grouped-query attention and SwiGLU, over weights of any stored type.
//!
//! Dimension letters: `T` rows of a forward pass (tokens of all sequences together), `D` dim,
//! `F` hidden_dim, `N` heads, `K` KV heads, `H` head_dim, `V` vocabulary.
//!
//! **Bits do not depend on company.** The logits of a token are a function of the weights, its sequence up
//! to it, the instruction set and the build alone: not of the number of threads, of how the sequence was cut into
//! chunks, or of what else was in the batch. Every kernel used here sums each output in one documented order.
#![forbid(unsafe_code)]

mod batch;
mod block;
mod error;
mod forward;
mod kv_cache;
mod layerwise;
mod plan;
mod rope;
mod weights;

pub use batch::{Chunk, Wants};
pub use error::ModelError;
pub use forward::{Output, Runner};
pub use kv_cache::KvCache;
pub use layerwise::Layerwise;
pub use plan::MemoryPlan;
pub use rope::{frequencies, magnitude};
pub use weights::{Layer, Matrix, Model};
