//! One file a subcommand: its arguments, their check, and the calls into the libraries.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod generate;
pub(crate) mod imatrix;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod perplexity;
pub(crate) mod pretrain;
pub(crate) mod pull;
pub(crate) mod quantize;
pub(crate) mod report;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod sft;
pub(crate) mod synth;
pub(crate) mod tokenize;
pub(crate) mod tokenizer;
mod training;
