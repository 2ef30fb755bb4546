//! The engine: requests in, events out, one step at a time.

use std::collections::BTreeMap;
use std::slice::ChunksExact;

use crate::sampler::{Sampler, Scratch};
use crate::scheduler::{Plan, Scheduler, Sequence, Shown};
use crate::{
    BLOCK_LEN, Constraint, Event, Failure, FinishReason, Forward, Load, Logprobs, Request,
    RequestId, SubmitError, Usage,
};

/// Limits of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Most tokens in one forward pass, at least `max_seqs`. More reads prompts faster; fewer lets a running
    /// answer wait less while another prompt is read.
    pub max_batch_tokens: usize,
    /// Most requests computed at once, at least 1; others wait.
    pub max_seqs: usize,
    /// Whether requests that start with the same tokens share what was computed for them.
    pub prefix_cache: bool,
    /// Most tokens drafted in one forward pass, for all requests together; 0 for none. No request gets more than
    /// [`MAX_DRAFT`](crate::MAX_DRAFT). Where an answer repeats what came before, what followed there is read along
    /// with the next token, and those of it that are then drawn take no pass of their own. Answers are the same
    /// with any value.
    pub max_draft: usize,
}

impl Default for EngineConfig {
    /// 512 tokens, 16 requests, prefixes shared, 8 tokens drafted.
    fn default() -> Self {
        Self { max_batch_tokens: 512, max_seqs: 16, prefix_cache: true, max_draft: 8 }
    }
}

/// Answers many requests at once with one network.
pub struct Engine<F> {
    forward: F,
    scheduler: Scheduler,
    /// All requests; without an answer those that are read for their hidden states.
    answers: BTreeMap<RequestId, Option<Answer>>,
    scratch: Scratch,
    /// Not handed out yet.
    events: Vec<Event>,
    next_id: u64,
}

/// What the engine knows of a request beyond its tokens.
struct Answer {
    sampler: Sampler,
    stop_ids: Vec<u32>,
    /// Why it ends when it has all the tokens it may have.
    at_max_len: FinishReason,
}

/// A token, and its log-probabilities where the request asked for them.
type Drawn = (u32, Option<Logprobs>);

/// What was drawn for a request.
struct Draws {
    id: RequestId,
    /// The beginning of its draft.
    accepted: Vec<Drawn>,
    /// What comes then: not in the draft, beyond it, or a stop id.
    last: Result<Drawn, Failure>,
}

impl Answer {
    /// Draws the next token of `seq` from the first of `rows`, `[1 + draft, V]`; then, as long as the draft has
    /// what was drawn, the token after it from the next row.
    fn draw(&mut self, seq: &Sequence, rows: ChunksExact<'_, f32>, scratch: &mut Scratch) -> Draws {
        let mut drafted = seq.draft().iter();
        let mut accepted = Vec::new();
        for (pos, row) in (seq.len()..).zip(rows) {
            let last = self.sampler.draw(row, pos, scratch);
            if let Ok((token, _)) = last
                && !self.stop_ids.contains(&token)
            {
                self.sampler.accept(token);
                if drafted.next() == Some(&token) {
                    accepted.extend(last);
                    continue;
                }
            }
            return Draws { id: seq.id, accepted, last };
        }
        unreachable!("there is a row after the last token of a draft")
    }
}

impl<F: Forward> Engine<F> {
    /// An engine without requests.
    ///
    /// # Panics
    /// If `max_seqs` is 0 or above `max_batch_tokens`.
    pub fn new(forward: F, config: EngineConfig) -> Self {
        let EngineConfig { max_batch_tokens, max_seqs, .. } = config;
        assert!(max_seqs > 0, "max_seqs is 0; expected at least 1");
        assert!(
            max_seqs <= max_batch_tokens,
            "max_batch_tokens is {max_batch_tokens}; expected at least max_seqs, {max_seqs}"
        );
        let scheduler = Scheduler::new(config, forward.n_blocks());
        Self {
            forward,
            scheduler,
            answers: BTreeMap::new(),
            scratch: Scratch::default(),
            events: Vec::new(),
            next_id: 0,
        }
    }

    /// The network.
    pub fn forward(&self) -> &F {
        &self.forward
    }

    /// Most tokens that prompt and answer may have together: the model's limit, or that of the KV cache if it
    /// is smaller.
    pub fn context(&self) -> usize {
        self.forward.max_seq_len().min(self.forward.n_blocks() * BLOCK_LEN)
    }

    /// Queues a request. Its events come out of the following [`step`](Self::step)s.
    ///
    /// # Errors
    /// If the request makes no sense or can never fit. Nothing is shortened to make it fit.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, SubmitError> {
        self.submit_constrained(request, None)
    }

    /// [`submit`](Self::submit), and the answer is of the form that `constraint` allows.
    ///
    /// # Errors
    /// As `submit`.
    pub fn submit_constrained(
        &mut self,
        request: Request,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<RequestId, SubmitError> {
        self.check_request(&request)?;
        let (wanted, context) = (wanted_len(&request), self.context());
        let Request { prompt, sampling, stop_ids, n_logprobs, .. } = request;
        let (max_len, at_max_len) = if wanted <= context {
            (wanted, FinishReason::Length)
        } else {
            (context, FinishReason::Context)
        };
        let sampler = Sampler::new(sampling, n_logprobs, &prompt, constraint);
        let id = self.new_id();
        self.answers.insert(id, Some(Answer { sampler, stop_ids, at_max_len }));
        self.scheduler.add(id, prompt, max_len);
        Ok(id)
    }

    /// Queues a text to be read for its hidden states: [`Event::Hidden`]s, whose rows together are those of all its
    /// tokens in order, then [`FinishReason::Read`].
    ///
    /// # Errors
    /// If the text is empty, longer than the context, or has ids that the model does not have.
    pub fn submit_hidden(&mut self, text: Vec<u32>) -> Result<RequestId, SubmitError> {
        self.check_ids(&text)?;
        let (n_tokens, context) = (text.len(), self.context());
        if n_tokens > context {
            return Err(SubmitError::TextTooLong { n_tokens, context, over: n_tokens - context });
        }
        let id = self.new_id();
        self.answers.insert(id, None);
        self.scheduler.add_hidden(id, text);
        Ok(id)
    }

    fn new_id(&mut self) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Ends a request; its [`Event::Finished`] comes out of the next step. Nothing happens if it has ended already.
    pub fn cancel(&mut self, id: RequestId) {
        if self.answers.contains_key(&id) {
            self.finish(id, FinishReason::Cancelled);
        }
    }

    /// How busy the engine is.
    pub fn load(&self) -> Load {
        self.scheduler.load()
    }

    /// Whether there is nothing to do and nothing to report.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.events.is_empty()
    }

    /// Advances the requests by one forward pass and reports what came of it.
    pub fn step(&mut self) -> Vec<Event> {
        let plan = self.scheduler.schedule();
        if !plan.is_empty() {
            let (vocab_size, dim) = (self.forward.vocab_size(), self.forward.dim());
            let output = self.forward.forward(&self.scheduler.chunks(&plan));
            let (answers, scratch) = (&mut self.answers, &mut self.scratch);
            let wanting = self.scheduler.wanting(&plan);
            let draws = sample(wanting, answers, output.logits, vocab_size, scratch);
            let shown = self.scheduler.showing(&plan);
            report_hidden(&shown, output.hidden, dim, &mut self.events);
            self.commit(&plan, draws);
            for Shown { id, .. } in shown.into_iter().filter(|shown| shown.is_last) {
                self.finish(id, FinishReason::Read);
            }
        }
        std::mem::take(&mut self.events)
    }

    /// Checks that queues, blocks and answers balance; for tests, and cheap enough to be called when idle.
    ///
    /// # Panics
    /// If they do not.
    pub fn check(&self) {
        self.scheduler.check(self.answers.keys().copied());
    }

    fn check_request(&self, request: &Request) -> Result<(), SubmitError> {
        self.check_ids(&request.prompt)?;
        let (vocab_size, n_prompt) = (self.forward.vocab_size(), request.prompt.len());
        let context = self.context();
        if n_prompt >= context {
            let over = n_prompt + 1 - context;
            return Err(SubmitError::PromptTooLong { n_prompt, context, over });
        }
        if request.max_new_tokens == Some(0) {
            return Err(SubmitError::NothingWanted);
        }
        if let Some(found) = request.n_logprobs.filter(|&n| n > vocab_size) {
            return Err(SubmitError::TooManyLogprobs { vocab_size, found });
        }
        if request.max_new_tokens.is_some() {
            let needed = wanted_len(request).min(self.forward.max_seq_len()).div_ceil(BLOCK_LEN);
            let n_blocks = self.forward.n_blocks();
            if needed > n_blocks {
                return Err(SubmitError::CacheTooSmall { needed, n_blocks });
            }
        }
        request.sampling.check(vocab_size)
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), SubmitError> {
        let vocab_size = self.forward.vocab_size();
        if ids.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        match ids.iter().find(|&&token| token as usize >= vocab_size) {
            Some(&token) => Err(SubmitError::UnknownToken { place: "prompt", token, vocab_size }),
            None => Ok(()),
        }
    }

    fn commit(&mut self, plan: &Plan, draws: Vec<Draws>) {
        self.scheduler.commit(plan);
        for Draws { id, accepted, last } in draws {
            self.scheduler.settle(id, accepted.len());
            let event = |(token, logprobs)| Event::Token { id, token, logprobs };
            self.events.extend(accepted.into_iter().map(event));
            match last {
                Ok((token, logprobs)) => self.extend(id, token, logprobs),
                Err(failure) => self.finish(id, FinishReason::Failed(failure)),
            }
        }
    }

    /// Appends a drawn token to its answer, or ends it.
    fn extend(&mut self, id: RequestId, token: u32, logprobs: Option<Logprobs>) {
        let answer = self.answers[&id].as_ref().expect("only answers grow");
        if answer.stop_ids.contains(&token) {
            return self.finish(id, FinishReason::Stop(token));
        }
        let at_max_len = answer.at_max_len;
        self.events.push(Event::Token { id, token, logprobs });
        if self.scheduler.push(id, token) {
            self.finish(id, at_max_len);
        }
    }

    fn finish(&mut self, id: RequestId, reason: FinishReason) {
        self.answers.remove(&id);
        let seq = self.scheduler.remove(id).expect("every answer has a sequence");
        let Sequence { n_prompt, n_cached, n_drafted, n_accepted, .. } = seq;
        let n_generated = seq.tokens.len() - n_prompt;
        let usage = Usage { n_prompt, n_cached, n_generated, n_drafted, n_accepted };
        self.events.push(Event::Finished { id, reason, usage });
    }
}

/// Draws for each of the sequences `wanting` from its rows of `logits`, `[n_wanted, V]`: one, and one more for each
/// token of its draft.
fn sample<'a>(
    wanting: impl Iterator<Item = &'a Sequence>,
    answers: &mut BTreeMap<RequestId, Option<Answer>>,
    mut logits: &[f32],
    vocab_size: usize,
    scratch: &mut Scratch,
) -> Vec<Draws> {
    let mut draws = Vec::new();
    for seq in wanting {
        let (rows, others) = logits.split_at((1 + seq.draft().len()) * vocab_size);
        logits = others;
        let answer = answers.get_mut(&seq.id).and_then(Option::as_mut);
        let answer = answer.expect("whoever wants logits has an answer");
        draws.push(answer.draw(seq, rows.chunks_exact(vocab_size), scratch));
    }
    assert_eq!(logits.len(), 0, "a row for each wanted token");
    draws
}

/// Reports the rows that are new of `hidden`, whose last ones are those of the texts `shown`.
fn report_hidden(shown: &[Shown], hidden: &[f32], dim: usize, events: &mut Vec<Event>) {
    let n_rows: usize = shown.iter().map(|text| text.n_rows).sum();
    let mut rows = &hidden[hidden.len() - n_rows * dim..];
    for text in shown {
        let (own, others) = rows.split_at(text.n_rows * dim);
        rows = others;
        let new = &own[text.n_known * dim..];
        if !new.is_empty() {
            events.push(Event::Hidden { id: text.id, rows: new.to_vec() });
        }
    }
}

/// Tokens of prompt and answer together, if nothing but `max_new_tokens` ends it.
fn wanted_len(request: &Request) -> usize {
    request.max_new_tokens.map_or(usize::MAX, |n| request.prompt.len().saturating_add(n))
}
