//! From a checked request to text: what all protocols share.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use puna_engine::{Failure as DrawFailure, FinishReason, Logprobs, Request, Sampling, Usage};
use puna_tokenizer::{StreamDecoder, Tokenizer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::error::ApiError;
use crate::grammar::{Failure, Grammar};
use crate::log::Entry;
use crate::model::Model;
use crate::stop::{MAX_STOP_BYTES, MAX_STOPS, StopStrings};
use crate::worker::{Reply, Route, Ticket, Work, Worker};

/// Most answers of one request.
pub(crate) const MAX_ANSWERS: usize = 128;
/// Most texts embedded by one request.
pub(crate) const MAX_TEXTS: usize = 2048;
/// Most alternatives reported for a token.
pub(crate) const MAX_LOGPROBS: usize = 20;
/// Seconds after which a client that found no place is told to come again.
const RETRY_SECS: u64 = 2;

/// What is wanted of a model.
pub(crate) struct Ask {
    /// Each is continued `n` times.
    pub(crate) prompts: Vec<Vec<u32>>,
    /// The `i`-th answer to a prompt has the seed of `sampling` plus `i`.
    pub(crate) n: usize,
    pub(crate) max_new_tokens: Option<usize>,
    pub(crate) sampling: Sampling,
    pub(crate) n_logprobs: Option<usize>,
    pub(crate) stops: Vec<String>,
    pub(crate) grammar: Option<Grammar>,
    /// Whether white space that an answer begins with is no part of it, as after a chat template.
    pub(crate) trim_start: bool,
}

/// More of the answer `index`: those to the first prompt come first.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) index: usize,
    pub(crate) text: String,
    /// The tokens that `text` ends, with what was asked of them.
    pub(crate) tokens: Vec<(u32, Option<Logprobs>)>,
    /// Present in the last part.
    pub(crate) end: Option<End>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The model ended it.
    Eos,
    /// A stop string was found.
    StopString,
    /// It is as long as it may be, or the context is full.
    Length,
}

impl End {
    /// OpenAI's word, which most protocols have taken over.
    pub(crate) fn openai(self) -> &'static str {
        match self {
            Self::Eos | Self::StopString => "stop",
            Self::Length => "length",
        }
    }
}

/// How long it took, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// From the request to the first token of the first answer.
    pub(crate) first_token: f64,
    /// From there to the last token of the last answer.
    pub(crate) answer: f64,
    /// Since the request came.
    pub(crate) total: f64,
}

/// Answers as they come. Dropped early, they free their places with the engine's next step.
pub(crate) struct Answers {
    model: Arc<Model>,
    receiver: UnboundedReceiver<(usize, Reply)>,
    choices: Vec<Choice>,
    /// Answers to each prompt.
    n_each: usize,
    /// Cancels what is open.
    tickets: Tickets,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    usage: Usage,
    entry: Entry,
    _places: OwnedSemaphorePermit,
}

/// One answer.
struct Choice {
    decoder: StreamDecoder<Arc<Tokenizer>>,
    stops: StopStrings,
    /// Nothing but white space has come, and it is to be left out.
    trims: bool,
    /// Tokens whose text has not been released, each with the number of bytes up to its end.
    held: VecDeque<(usize, u32, Option<Logprobs>)>,
    n_bytes: usize,
    n_released: usize,
    n_tokens: usize,
    /// A stop string was found: what is still to come is the engine's last word.
    stopped: bool,
    last_token: Option<Instant>,
    grammar_failure: Option<Failure>,
}

/// Requests that are open at an engine.
struct Tickets {
    worker: Worker,
    open: Vec<Option<Ticket>>,
}

impl Tickets {
    fn cancel(&self, index: usize) {
        if let Some(ticket) = self.open[index] {
            self.worker.cancel(ticket);
        }
    }

    fn n_open(&self) -> usize {
        self.open.iter().flatten().count()
    }
}

impl Drop for Tickets {
    fn drop(&mut self) {
        self.open.iter().flatten().for_each(|&ticket| self.worker.cancel(ticket));
    }
}

impl Model {
    /// Takes `n` places of this model's, or says to come again.
    fn take_places(&self, n: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.worker.is_broken() {
            let message = format!("the model {} cannot answer any more", self.about.name);
            return Err(ApiError::internal(message));
        }
        if n > self.n_places {
            let all = self.n_places;
            return Err(ApiError::bad(format!("{n} answers at once: there are {all} places")));
        }
        let taken = Arc::clone(&self.places).try_acquire_many_owned(n as u32);
        taken.map_err(|_| {
            let message = format!(
                "all {} places are taken by requests that are answered or wait",
                self.n_places
            );
            ApiError::busy(message, RETRY_SECS).with_code("server_busy")
        })
    }

    /// Checks what can be checked before the engine sees it.
    fn check(&self, ask: &Ask) -> Result<(), ApiError> {
        let n_answers = ask.n.saturating_mul(ask.prompts.len());
        if n_answers == 0 || n_answers > MAX_ANSWERS {
            let message = format!("expected 1 to {MAX_ANSWERS} answers, found {n_answers}");
            return Err(ApiError::field("n", message));
        }
        if ask.max_new_tokens == Some(0) {
            return Err(ApiError::field("max_tokens", "expected at least 1, found 0"));
        }
        if ask.stops.len() > MAX_STOPS {
            let found = ask.stops.len();
            let message = format!("expected at most {MAX_STOPS} strings, found {found}");
            return Err(ApiError::field("stop", message));
        }
        if ask.stops.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            let message = format!("expected strings of 1 to {MAX_STOP_BYTES} bytes");
            return Err(ApiError::field("stop", message));
        }
        ask.sampling.check(self.tokenizer.vocab_size())?;
        for prompt in &ask.prompts {
            if prompt.is_empty() {
                return Err(ApiError::bad("the prompt is empty; expected at least one token"));
            }
            if prompt.len() >= self.about.ctx {
                return Err(ApiError::too_long(prompt.len(), 1, self.about.ctx));
            }
            self.check_ids(prompt)?;
        }
        Ok(())
    }

    /// Prompts of ids may name any.
    fn check_ids(&self, ids: &[u32]) -> Result<(), ApiError> {
        let vocab_size = self.tokenizer.vocab_size();
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(id) => {
                let message = format!("token {id} is outside the vocabulary of {vocab_size}");
                Err(ApiError::field("prompt", message))
            }
            None => Ok(()),
        }
    }

    /// Has the engine answer.
    pub(crate) fn answer(self: &Arc<Self>, ask: Ask, entry: &Entry) -> Result<Answers, ApiError> {
        self.check(&ask)?;
        let places = self.take_places(ask.n * ask.prompts.len())?;
        let (sender, receiver) = unbounded_channel();
        let mut tickets = Tickets { worker: self.worker.clone(), open: Vec::new() };
        let mut choices = Vec::new();
        for prompt in &ask.prompts {
            for i in 0..ask.n {
                let seed = ask.sampling.seed.wrapping_add(i as u64);
                let room = self.about.ctx - prompt.len();
                let max_len = ask.max_new_tokens.map_or(room, |n| n.min(room));
                let started = ask.grammar.as_ref().map(|grammar| grammar.start(max_len));
                let (constraint, grammar_failure) = started.unzip();
                choices.push(Choice::new(&self.tokenizer, prompt, &ask, grammar_failure));
                let request = Request {
                    prompt: prompt.clone(),
                    max_new_tokens: ask.max_new_tokens,
                    sampling: Sampling { seed, ..ask.sampling.clone() },
                    stop_ids: self.stop_ids.clone(),
                    n_logprobs: ask.n_logprobs,
                };
                let route = Route { index: tickets.open.len(), sender: sender.clone() };
                let ticket = self.worker.submit(Work::Answer { request, constraint }, route);
                tickets.open.push(Some(ticket));
            }
        }
        entry.set("model", self.about.name.as_str());
        Ok(Answers {
            model: Arc::clone(self),
            receiver,
            choices,
            n_each: ask.n,
            tickets,
            first_token: None,
            last_token: None,
            usage: Usage::default(),
            entry: entry.clone(),
            _places: places,
        })
    }

    /// The mean of each text's hidden states, of length 1; and the number of tokens read.
    pub(crate) async fn embed(
        self: &Arc<Self>,
        texts: Vec<Vec<u32>>,
        entry: &Entry,
    ) -> Result<(Vec<Vec<f32>>, usize), ApiError> {
        for text in &texts {
            if text.is_empty() {
                return Err(ApiError::field("input", "expected at least one token, found none"));
            }
            if text.len() > self.about.ctx {
                return Err(ApiError::too_long(text.len(), 0, self.about.ctx));
            }
            self.check_ids(text)?;
        }
        let _place = self.take_places(1)?;
        entry.set("model", self.about.name.as_str());
        let n_texts = texts.len();
        let (sender, mut receiver) = unbounded_channel();
        let mut tickets = Tickets { worker: self.worker.clone(), open: Vec::new() };
        for (index, text) in texts.into_iter().enumerate() {
            let route = Route { index, sender: sender.clone() };
            tickets.open.push(Some(self.worker.submit(Work::Hidden(text), route)));
        }
        let dim = self.about.dim;
        let (mut sums, mut n_tokens) = (vec![vec![0.0_f64; dim]; n_texts], 0);
        while tickets.n_open() > 0 {
            let Some((index, reply)) = receiver.recv().await else {
                return Err(ApiError::internal("the engine has ended"));
            };
            match reply {
                Reply::Hidden(rows) => {
                    for row in rows.chunks_exact(dim) {
                        sums[index].iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                    }
                }
                Reply::Finished { usage, .. } => {
                    tickets.open[index] = None;
                    n_tokens += usage.n_prompt;
                    self.metrics.count(&usage);
                    entry.add_usage(&usage);
                }
                Reply::Refused(error) => return Err(error.into()),
                Reply::Broken(why) => return Err(broken(&why)),
                Reply::Token { .. } => {}
            }
        }
        Ok((sums.iter().map(|sum| normalised(sum)).collect(), n_tokens))
    }
}

/// The vector of length 1 in this direction; zero stays zero.
fn normalised(sum: &[f64]) -> Vec<f32> {
    let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    sum.iter().map(|x| (x * scale) as f32).collect()
}

fn broken(why: &str) -> ApiError {
    ApiError::internal(format!("the model cannot answer any more: {why}"))
}

impl Choice {
    fn new(
        tokenizer: &Arc<Tokenizer>,
        prompt: &[u32],
        ask: &Ask,
        grammar_failure: Option<Failure>,
    ) -> Self {
        let mut decoder = StreamDecoder::new(Arc::clone(tokenizer));
        let mut said = String::new();
        prompt.iter().for_each(|&id| decoder.push_to(id, &mut said));
        Self {
            decoder,
            stops: StopStrings::new(ask.stops.clone()),
            trims: ask.trim_start,
            held: VecDeque::new(),
            n_bytes: 0,
            n_released: 0,
            n_tokens: 0,
            stopped: false,
            last_token: None,
            grammar_failure,
        }
    }

    /// Takes decoded text, and appends to `out` what is certain to be part of the answer.
    fn push(&mut self, text: &str, out: &mut String) {
        let text = if self.trims { text.trim_start() } else { text };
        self.trims &= text.is_empty();
        self.n_bytes += text.len();
        let before = out.len();
        self.stopped = self.stops.push(text, out);
        self.n_released += out.len() - before;
    }

    /// The tokens whose text has been released; at the end also that of which only a part was.
    fn release(&mut self, at_end: bool) -> Vec<(u32, Option<Logprobs>)> {
        let mut tokens = Vec::new();
        let mut start = 0;
        while let Some((end, token, logprobs)) = self.held.pop_front() {
            if end > self.n_released && !(at_end && start < self.n_released) {
                self.held.push_front((end, token, logprobs));
                break;
            }
            start = end;
            tokens.push((token, logprobs));
        }
        tokens
    }
}

impl Answers {
    /// More of one of the answers; `None` when all have ended. After an error nothing follows.
    pub(crate) async fn next(&mut self) -> Option<Result<Part, ApiError>> {
        while self.tickets.n_open() > 0 {
            let Some((index, reply)) = self.receiver.recv().await else {
                self.tickets.open.clear();
                return Some(Err(ApiError::internal("the engine has ended")));
            };
            match self.take(index, reply) {
                Ok(None) => {}
                Ok(Some(part)) => return Some(Ok(part)),
                Err(error) => {
                    (0..self.tickets.open.len()).for_each(|index| self.tickets.cancel(index));
                    self.tickets.open.clear();
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// All answers, each in one part.
    pub(crate) async fn collect(&mut self) -> Result<Vec<Part>, ApiError> {
        let part = |index| Part { index, ..Part::default() };
        let mut all: Vec<Part> = (0..self.choices.len()).map(part).collect();
        while let Some(part) = self.next().await {
            let part = part?;
            let whole = &mut all[part.index];
            whole.text.push_str(&part.text);
            whole.tokens.extend(part.tokens);
            whole.end = part.end;
        }
        Ok(all)
    }

    /// Token counts of all answers that have ended.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// How long it took until now.
    pub(crate) fn times(&self) -> Times {
        let started = self.entry.started();
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let first = self.first_token.unwrap_or(started);
        Times {
            first_token: since(started, first),
            answer: since(first, self.last_token.unwrap_or(first)),
            total: started.elapsed().as_secs_f64(),
        }
    }

    fn take(&mut self, index: usize, reply: Reply) -> Result<Option<Part>, ApiError> {
        match reply {
            Reply::Token { token, logprobs, at } => Ok(self.take_token(index, token, logprobs, at)),
            Reply::Finished { reason, usage } => self.finish(index, reason, usage).map(Some),
            Reply::Refused(error) => Err(error.into()),
            Reply::Broken(why) => Err(broken(&why)),
            Reply::Hidden(_) => Ok(None),
        }
    }

    fn take_token(
        &mut self,
        index: usize,
        token: u32,
        logprobs: Option<Logprobs>,
        now: Instant,
    ) -> Option<Part> {
        let choice = &mut self.choices[index];
        if choice.stopped {
            return None;
        }
        if self.first_token.is_none() {
            self.model.metrics.first_token(now - self.entry.started());
            self.first_token = Some(now);
        }
        if let Some(last) = choice.last_token.replace(now) {
            self.model.metrics.next_token(now - last);
        }
        self.last_token = Some(now);
        choice.n_tokens += 1;
        let mut part = Part { index, ..Part::default() };
        let text = choice.decoder.push(token);
        choice.push(&text, &mut part.text);
        choice.held.push_back((choice.n_bytes, token, logprobs));
        part.tokens = choice.release(choice.stopped);
        if choice.stopped {
            self.tickets.cancel(index);
        }
        (!part.text.is_empty() || !part.tokens.is_empty()).then_some(part)
    }

    fn finish(
        &mut self,
        index: usize,
        reason: FinishReason,
        usage: Usage,
    ) -> Result<Part, ApiError> {
        self.tickets.open[index] = None;
        let choice = &mut self.choices[index];
        let usage = Usage { n_generated: choice.n_tokens, ..usage };
        self.model.metrics.count(&usage);
        self.entry.add_usage(&usage);
        let sum = &mut self.usage;
        // A prompt that is continued several times is one prompt to whoever counts.
        if index.is_multiple_of(self.n_each) {
            sum.n_prompt += usage.n_prompt;
            sum.n_cached += usage.n_cached;
        }
        sum.n_generated += usage.n_generated;
        sum.n_drafted += usage.n_drafted;
        sum.n_accepted += usage.n_accepted;
        let mut part = Part { index, ..Part::default() };
        let mut end = match reason {
            _ if choice.stopped => End::StopString,
            FinishReason::Stop(_) | FinishReason::Read => End::Eos,
            FinishReason::Length | FinishReason::Context => End::Length,
            FinishReason::Cancelled => return Err(ApiError::internal("the answer was cancelled")),
            FinishReason::Failed(failure) => return Err(choice.failed(failure)),
        };
        if !choice.stopped {
            let text = choice.decoder.finish();
            choice.push(&text, &mut part.text);
            if choice.stopped {
                end = End::StopString;
            } else {
                let before = part.text.len();
                choice.stops.finish(&mut part.text);
                choice.n_released += part.text.len() - before;
            }
            part.tokens = choice.release(true);
        }
        part.end = Some(end);
        Ok(part)
    }
}

impl Drop for Answers {
    /// What a client that left had been sent is counted too.
    fn drop(&mut self) {
        for (choice, ticket) in self.choices.iter().zip(&self.tickets.open) {
            if ticket.is_some() {
                let usage = Usage { n_generated: choice.n_tokens, ..Usage::default() };
                self.model.metrics.count(&usage);
                self.entry.add_usage(&usage);
                self.entry.set("left", true);
            }
        }
    }
}

impl Choice {
    fn failed(&self, failure: DrawFailure) -> ApiError {
        let of_grammar = self
            .grammar_failure
            .as_ref()
            .and_then(|failure| failure.lock().unwrap_or_else(PoisonError::into_inner).clone());
        match (of_grammar, failure) {
            (Some(why), _) => {
                ApiError::bad(format!("the form of the answer cannot be kept: {why}"))
            }
            (None, DrawFailure::AllForbidden) => {
                ApiError::bad("no token may come next: the bias or the form forbids all")
            }
            (None, failure) => ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("no token can be drawn: {failure}"),
            ),
        }
    }
}
