//! HTTP over the engine: the protocols that clients of language models speak already.
//!
//! A request goes down through four layers and its answer comes back up:
//!
//! - `openai`, `ollama`, `sagemaker`, ...: a protocol's own words, checked and translated;
//! - `service`: text to ids and ids to text, stop strings, grammars, token counts and times;
//! - `worker`: one thread for each model, which owns its engine and steps it;
//! - `puna_engine::Engine`: ids alone.
//!
//! [`app`] is the whole server as a function from request to response, [`run`] puts it on a port. Nothing below this
//! crate knows of HTTP, JSON forms or async.
//!
//! A prompt is never cut: one that does not fit is refused with both numbers. A request that cannot be taken now is
//! refused with the time to come again. A client that leaves frees its place with the next step.
#![forbid(unsafe_code)]

mod access;
mod app;
mod ending;
mod error;
mod extract;
mod grammar;
mod log;
mod metrics;
mod model;
mod ollama;
mod openai;
mod openapi;
mod page;
mod patient;
mod sagemaker;
mod service;
mod serving;
mod stop;
mod streamed;
mod tgi;
mod worker;

pub use access::{Access, KeyFileError, read_keys};
pub use app::{Config, app};
pub use log::Log;
pub use model::{About, Model, Words};
pub use patient::Patience;
pub use serving::{Ended, ServeError, Tls, bind, run};
