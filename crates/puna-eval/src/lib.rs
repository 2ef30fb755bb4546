//! How good a model is on a text, and how far it is from another one.
//!
//! # Method
//! A text is encoded whole, BOS first where the model wants one, and cut into windows of `ctx` tokens; in each
//! window the first token is replaced by BOS. Without a stride, windows lie one after another and the second half of
//! each is scored: every scored token has at least `ctx / 2` tokens before it. This is the method of llama.cpp's
//! perplexity tool, so that figures can be compared. With a stride `s`, windows begin every `s` tokens and
//! the last `s` tokens of each are scored. What is left of the text after the last whole window is not scored.
//!
//! With `n` scored tokens and `x_t = −ln p(token_t | tokens before it in the window)`:
//! - perplexity is `e^m`, `m = Σ x_t / n`; its standard error is `e^m · s / √n`, `s` the sample deviation of `x_t`, as
//!   if tokens were independent;
//! - bits per byte is `Σ x_t / ln 2 / Σ bytes of the scored tokens' pieces`, which can be compared between vocabularies;
//! - the divergence of a model from its parent is the mean over positions of `KL(P‖Q) = Σ_v P(v)·(ln P(v) − ln Q(v))`, `P`
//!   the parent's and `Q` the model's distribution of the next token; top-1 agreement is the share of positions at
//!   which both have the same most likely token.
//!
//! Models run a layer at a time ([`puna_model::Layerwise`]), so one larger than memory is read from its files in
//! order, once for each 16,384 tokens. Sums run in f64 in the order of the text: figures are the same for any number of threads.
#![forbid(unsafe_code)]

mod error;
mod estimate;
mod pass;
mod score;
mod text;
mod windows;

pub use error::EvalError;
pub use estimate::Estimate;
pub use pass::Watch;
pub use score::{Comparison, Options, Perplexity, compare, perplexity, watch_inputs};
pub use text::{Text, built_in_text};
