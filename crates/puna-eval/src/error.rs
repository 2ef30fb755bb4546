//! Why a model cannot be measured.

use puna_model::ModelError;
use thiserror::Error;

/// A measurement that cannot be made.
#[derive(Debug, Error)]
pub enum EvalError {
    /// Not one whole window.
    #[error(
        "{text}: expected at least {ctx} tokens, one context, found {n_tokens}; give a longer text or a shorter --ctx"
    )]
    TooShort {
        /// The text.
        text: String,
        /// Its tokens.
        n_tokens: usize,
        /// Tokens of a window.
        ctx: usize,
    },
    /// A window that scores nothing.
    #[error("context: expected at least 4 tokens, found {ctx}")]
    Context {
        /// Tokens of a window.
        ctx: usize,
    },
    /// A stride that leaves tokens without anything before them.
    #[error("stride: expected 1 to {}, less than the context, found {stride}", ctx - 1)]
    Stride {
        /// Tokens from window to window.
        stride: usize,
        /// Tokens of a window.
        ctx: usize,
    },
    /// A text that is no text.
    #[error("{text}: expected UTF-8, found other bytes at byte {at}")]
    NotUtf8 {
        /// The text.
        text: String,
        /// The first byte at fault.
        at: usize,
    },
    /// Two models that do not speak of the same tokens.
    #[error(
        "the two models have vocabularies of {parent} and {child} tokens: they cannot be compared"
    )]
    Vocabulary {
        /// Tokens of the one compared with.
        parent: usize,
        /// Tokens of the other.
        child: usize,
    },
    /// A model that has no probability for a token.
    #[error(
        "{model}: logits of token {position} of the text: expected finite numbers, found NaN or infinity"
    )]
    NotFinite {
        /// Which of the models.
        model: &'static str,
        /// Where in the text.
        position: usize,
    },
    /// A model that cannot run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The caller wanted no more.
    #[error("stopped")]
    Stopped,
}
