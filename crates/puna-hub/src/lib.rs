//! Opens any MODEL, whatever its form, with its tokenizer and chat template; writes models.
//!
//! A MODEL is a file, a folder, or one of the [`built_in_names`]. Its tokenizer is looked for in the model file,
//! beside it, and in the folder above (where Meta's download puts it).
#![forbid(unsafe_code)]

mod built_in;
mod check;
pub mod convert;
pub mod disk;
mod error;
mod importance;
mod near;
mod open;
pub mod quantize;
pub mod synth;
mod tokenizer;

pub use built_in::built_in_names;
pub use check::{Finding, check_weights};
pub use error::HubError;
pub use importance::importance;
pub use near::near_matches;
pub use open::{OpenOptions, Opened, open, open_checkpoint, open_tokenizer};
