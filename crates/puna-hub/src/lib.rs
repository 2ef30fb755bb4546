//! Opens any MODEL, whatever its form, with its tokenizer and chat template; writes models; fetches them.
//!
//! A MODEL is a file, a folder, one of the [`built_in_names`], or the name of a model in the [`store`]. Its tokenizer is looked for in the model file,
//! beside it, and in the folder above (where Meta's download puts it). A folder of adapters is the model that they name,
//! with them added, and the folder of a run of training is the checkpoint that it is for.
#![forbid(unsafe_code)]

mod built_in;
mod check;
pub mod convert;
pub mod disk;
mod error;
mod importance;
pub mod licence;
mod llama2;
mod lora;
mod near;
mod open;
mod place;
pub mod pull;
pub mod quantize;
mod result;
mod shown;
pub mod store;
pub mod synth;
mod tokenizer;

pub use built_in::{built_in_names, default_chat_model, default_model};
pub use check::{Finding, check_weights};
pub use error::HubError;
pub use importance::importance;
pub use licence::licence_of;
pub use lora::is_adapters;
pub use near::near_matches;
pub use open::{
    OpenOptions, Opened, OpenedScorer, open, open_checkpoint, open_scorer, open_tokenizer,
};
pub use result::{RESULT, result_of};
