//! What goes into the engine and what comes out: plain data.

use puna_core::SamplingHints;
use thiserror::Error;

/// Names a request within one engine. Later requests have greater ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A prompt to be continued.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Token ids, BOS included where the model wants one; at least one.
    pub prompt: Vec<u32>,
    /// Most tokens to generate, at least 1; `None` goes on until a stop id or the end of the context.
    pub max_new_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Ids that end the answer. The one that did is named by [`FinishReason::Stop`] and is not an
    /// [`Event::Token`].
    pub stop_ids: Vec<u32>,
    /// `Some(n)` reports each token's log-probability and the `n` most probable tokens; `None` neither.
    pub n_logprobs: Option<usize>,
}

/// How the next token is drawn from the logits. The steps, in this order:
///
/// 1. repetition penalty `θ` (Keskar et al. 2019, CTRL, section 4.1, with the sign taken care of): each token
///    in the prompt or the answer so far has its logit divided by `θ` if positive, multiplied by `θ` if not;
/// 2. presence and frequency penalties, as OpenAI defines them: a token that is `n > 0` times in the answer
///    so far (the prompt does not count) loses `presence_penalty + n * frequency_penalty`;
/// 3. `logit_bias` is added, after the penalties so that it has the last word; then tokens that a
///    [`Constraint`](crate::Constraint) does not allow are left out;
/// 4. `temperature` 0 takes the largest logit, the lowest id among equals, and ends here; otherwise logits are
///    divided by it;
/// 5. `top_k` keeps the `k` largest, the lower ids among equals;
/// 6. `top_p` keeps the fewest tokens, most probable first, that together have at least `top_p` of the
///    probability that is left (Holtzman et al. 2019, section 3.1); always at least one;
/// 7. `min_p` keeps tokens at least `min_p` times as probable as the most probable one;
/// 8. one of those left is drawn in proportion to its probability, by the first number of the random stream
///    of (`seed`, position of the new token). Nothing else enters: not the company, not the past draws.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 (greedy) or more.
    pub temperature: f32,
    /// 0 for all tokens.
    pub top_k: usize,
    /// 0 to 1; 1 for all tokens, 0 for the most probable one.
    pub top_p: f32,
    /// 0 to 1; 0 for all tokens.
    pub min_p: f32,
    /// Above 0; 1 for none.
    pub repetition_penalty: f32,
    /// Any finite number; 0 for none.
    pub presence_penalty: f32,
    /// Any finite number; 0 for none.
    pub frequency_penalty: f32,
    /// Added to the logits of these ids; minus infinity forbids one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Same seed, same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// The model's own distribution: temperature 1, every filter and penalty off, seed 0.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// As a model's maker suggests, and where nothing is suggested as before.
    #[must_use]
    pub fn suggested(self, by: &SamplingHints) -> Self {
        Self {
            temperature: by.temperature.unwrap_or(self.temperature),
            top_k: by.top_k.map_or(self.top_k, |k| k as usize),
            top_p: by.top_p.unwrap_or(self.top_p),
            min_p: by.min_p.unwrap_or(self.min_p),
            repetition_penalty: by.repetition_penalty.unwrap_or(self.repetition_penalty),
            ..self
        }
    }

    /// The most probable token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every value against its range and every biased id against the vocabulary.
    pub fn check(&self, vocab_size: usize) -> Result<(), SubmitError> {
        let unit = |x: f32| (0.0..=1.0).contains(&x);
        let checks = [
            ("temperature", "0 or a positive number", self.temperature, self.temperature >= 0.0),
            ("top_p", "a number from 0 to 1", self.top_p, unit(self.top_p)),
            ("min_p", "a number from 0 to 1", self.min_p, unit(self.min_p)),
            (
                "repetition_penalty",
                "a number above 0",
                self.repetition_penalty,
                self.repetition_penalty > 0.0,
            ),
            ("presence_penalty", "a finite number", self.presence_penalty, true),
            ("frequency_penalty", "a finite number", self.frequency_penalty, true),
        ];
        for (name, expected, found, in_range) in checks {
            if !(in_range && found.is_finite()) {
                return Err(SubmitError::OutOfRange { name, expected, found });
            }
        }
        for &(token, bias) in &self.logit_bias {
            if token as usize >= vocab_size {
                return Err(SubmitError::UnknownToken { place: "logit_bias", token, vocab_size });
            }
            if bias.is_nan() || bias == f32::INFINITY {
                let expected = "a finite number or minus infinity";
                return Err(SubmitError::OutOfRange { name: "logit_bias", expected, found: bias });
            }
        }
        Ok(())
    }
}

/// What [`Engine::step`](crate::Engine::step) reports. Every accepted request gets any number of `Token`s,
/// or of `Hidden`s, then exactly one `Finished`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The answer grew by one token.
    Token {
        /// Whose answer.
        id: RequestId,
        /// The token.
        token: u32,
        /// Present when the request asked for it.
        logprobs: Option<Logprobs>,
    },
    /// More of a text was read for its hidden states.
    Hidden {
        /// Whose text.
        id: RequestId,
        /// Those of the next tokens, `[n, D]`, after the final norm.
        rows: Vec<f32>,
    },
    /// The request is done and forgotten.
    Finished {
        /// Which request.
        id: RequestId,
        /// Why it ended.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
}

/// Natural logarithms of probabilities under the model's own distribution: the log-softmax of the logits
/// before any penalty, bias, temperature or filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// That of the token that was drawn.
    pub chosen: f32,
    /// The most probable tokens in descending order, the lower id first among equals. Tokens of probability
    /// zero are left out.
    pub top: Vec<(u32, f32)>,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// This stop id was drawn.
    Stop(u32),
    /// `max_new_tokens` were generated.
    Length,
    /// Prompt and answer fill the context.
    Context,
    /// The text was read to its end: all its hidden states were reported.
    Read,
    /// [`Engine::cancel`](crate::Engine::cancel) was called.
    Cancelled,
    /// No token could be drawn.
    Failed(Failure),
}

/// Why no token could be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// A logit is NaN or plus infinity: the weights are damaged or a penalty is out of all proportion.
    #[error("the logit of token {token} is not a number")]
    NotANumber {
        /// The first such token.
        token: u32,
    },
    /// The logit bias forbids every token that the model allows.
    #[error("every token is forbidden")]
    AllForbidden,
}

/// Token counts of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Of those, how many were found in the cache and not computed.
    pub n_cached: usize,
    /// Tokens of the answer, a stop id not counted.
    pub n_generated: usize,
    /// Tokens that were drafted and read before it was known that they would be drawn.
    pub n_drafted: usize,
    /// Of those, how many were then drawn.
    pub n_accepted: usize,
}

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SubmitError {
    /// No tokens to continue.
    #[error("the prompt is empty; expected at least one token")]
    EmptyPrompt,
    /// An id that the model does not have.
    #[error("{place}: token {token} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// `prompt` or `logit_bias`.
        place: &'static str,
        /// The id.
        token: u32,
        /// Ids go below this.
        vocab_size: usize,
    },
    /// The prompt leaves no place for an answer.
    #[error(
        "the prompt has {n_prompt} tokens and the context {context}: {over} too many \
         (one place is kept for the answer)"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Positions there are, [`Engine::context`](crate::Engine::context).
        context: usize,
        /// How many tokens must go.
        over: usize,
    },
    /// A text whose hidden states are wanted is longer than the context.
    #[error("the text has {n_tokens} tokens and the context {context}: {over} too many")]
    TextTooLong {
        /// Tokens of the text.
        n_tokens: usize,
        /// Positions there are, [`Engine::context`](crate::Engine::context).
        context: usize,
        /// How many tokens must go.
        over: usize,
    },
    /// Prompt and answer are within the model's context, but the KV cache is smaller.
    #[error(
        "prompt and max_new_tokens need {needed} cache blocks of {} positions, there are {n_blocks}",
        crate::BLOCK_LEN
    )]
    CacheTooSmall {
        /// Blocks for the whole request.
        needed: usize,
        /// Blocks there are.
        n_blocks: usize,
    },
    /// An answer of no tokens.
    #[error("max_new_tokens: expected at least 1, found 0")]
    NothingWanted,
    /// More alternatives than tokens.
    #[error("n_logprobs: expected at most {vocab_size}, the vocabulary, found {found}")]
    TooManyLogprobs {
        /// Number of tokens.
        vocab_size: usize,
        /// The value given.
        found: usize,
    },
    /// A sampling value outside its range.
    #[error("{name}: expected {expected}, found {found}")]
    OutOfRange {
        /// The field of [`Sampling`].
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value given.
        found: f32,
    },
}

/// How busy an engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait for their turn.
    pub n_waiting: usize,
    /// Requests that are computed.
    pub n_running: usize,
    /// Cache blocks that requests hold.
    pub n_blocks_held: usize,
    /// Cache blocks that hold what nobody uses now and someone may use again.
    pub n_blocks_idle: usize,
    /// Cache blocks there are.
    pub n_blocks: usize,
}
