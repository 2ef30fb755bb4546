//! Continuous batching over token ids.
//!
//! An [`Engine`] takes [`Request`]s at any time and answers them together: each [`Engine::step`] plans one
//! batch, runs the network over it, draws a token for every request whose tokens were all read, and
//! commits the result. The parts, each to be read alone:
//!
//! - [`Request`], [`Sampling`], [`Event`]: what goes in and what comes out, plain data;
//! - `blocks`: the KV cache's blocks, their owners, and the prefixes that requests share;
//! - `scheduler`: who computes what next;
//! - `lookup`: what may come after the next token, where text repeats itself;
//! - `sampler`: from logits to a token and its log-probability;
//! - [`Constraint`]: which tokens may come, where an answer must have a form.
//!
//! Besides being continued, a text can be read for its hidden states ([`Engine::submit_hidden`]).
//!
//! A request's tokens are the same alone and in any company: the network's bits do not depend on the
//! batch, and every draw depends on nothing but the request's seed, the tokens before it and their number. For
//! the same reason drafts change nothing but the speed: a drafted token is kept only if it is the one that is drawn.
//!
//! There is no text here, no clock, no channel, no thread and no async: ids only, and [`Engine::step`] is a
//! function that its owner calls.
#![forbid(unsafe_code)]

mod blocks;
mod constraint;
mod engine;
mod forward;
mod logprobs;
mod lookup;
mod request;
mod sampler;
mod scheduler;
mod select;
mod softmax;

pub use constraint::Constraint;
pub use engine::{Engine, EngineConfig};
pub use forward::{BLOCK_LEN, Chunk, Forward, Output, Wants};
pub use lookup::MAX_DRAFT;
pub use request::{
    Event, Failure, FinishReason, Load, Logprobs, Request, RequestId, Sampling, SubmitError, Usage,
};
