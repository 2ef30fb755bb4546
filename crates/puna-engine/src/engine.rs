//! The engine: requests in, events out, one step at a time.

use std::collections::BTreeMap;

use crate::sampler::{Sampler, Scratch};
use crate::scheduler::{Plan, Scheduler, Sequence};
use crate::{
    BLOCK_LEN, Event, Failure, FinishReason, Forward, Logprobs, Request, RequestId, SubmitError,
    Usage,
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
}

impl Default for EngineConfig {
    /// 512 tokens, 16 requests, prefixes shared.
    fn default() -> Self {
        Self { max_batch_tokens: 512, max_seqs: 16, prefix_cache: true }
    }
}

/// Answers many requests at once with one network.
pub struct Engine<F> {
    forward: F,
    scheduler: Scheduler,
    answers: BTreeMap<RequestId, Answer>,
    scratch: Scratch,
    /// Not handed out yet.
    events: Vec<Event>,
    next_id: u64,
}

/// What the engine knows of a request beyond its tokens.
struct Answer {
    sampler: Sampler,
    stop_ids: Vec<u32>,
    /// Prompt and answer end at this many tokens, for this reason.
    max_len: usize,
    at_max_len: FinishReason,
}

/// What was drawn for a request.
type Draw = (RequestId, Result<(u32, Option<Logprobs>), Failure>);

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
        self.check_request(&request)?;
        let (wanted, context) = (wanted_len(&request), self.context());
        let Request { prompt, sampling, stop_ids, n_logprobs, .. } = request;
        let (max_len, at_max_len) = if wanted <= context {
            (wanted, FinishReason::Length)
        } else {
            (context, FinishReason::Context)
        };
        let sampler = Sampler::new(sampling, n_logprobs, &prompt);
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.answers.insert(id, Answer { sampler, stop_ids, max_len, at_max_len });
        self.scheduler.add(id, prompt);
        Ok(id)
    }

    /// Ends a request; its [`Event::Finished`] comes out of the next step. Nothing happens if it has ended already.
    pub fn cancel(&mut self, id: RequestId) {
        if self.answers.contains_key(&id) {
            self.finish(id, FinishReason::Cancelled);
        }
    }

    /// Whether there is nothing to do and nothing to report.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.events.is_empty()
    }

    /// Advances the requests by one forward pass and reports what came of it.
    pub fn step(&mut self) -> Vec<Event> {
        let plan = self.scheduler.schedule();
        if !plan.is_empty() {
            let logits = self.forward.forward(&self.scheduler.chunks(&plan));
            let wanting = self.scheduler.wanting(&plan);
            let draws = sample(wanting, &self.answers, logits, &mut self.scratch);
            self.commit(&plan, draws);
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
        let vocab_size = self.forward.vocab_size();
        let n_prompt = request.prompt.len();
        if n_prompt == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(SubmitError::UnknownToken { place: "prompt", token, vocab_size });
        }
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

    fn commit(&mut self, plan: &Plan, draws: Vec<Draw>) {
        self.scheduler.commit(plan);
        for (id, drawn) in draws {
            match drawn {
                Ok((token, logprobs)) => self.extend(id, token, logprobs),
                Err(failure) => self.finish(id, FinishReason::Failed(failure)),
            }
        }
    }

    /// Appends a drawn token to its answer, or ends it.
    fn extend(&mut self, id: RequestId, token: u32, logprobs: Option<Logprobs>) {
        let answer = self.answers.get_mut(&id).expect("every scheduled request has an answer");
        if answer.stop_ids.contains(&token) {
            return self.finish(id, FinishReason::Stop(token));
        }
        answer.sampler.accept(token);
        self.events.push(Event::Token { id, token, logprobs });
        if self.scheduler.push(id, token) == answer.max_len {
            let reason = answer.at_max_len;
            self.finish(id, reason);
        }
    }

    fn finish(&mut self, id: RequestId, reason: FinishReason) {
        self.answers.remove(&id);
        let seq = self.scheduler.remove(id).expect("every answer has a sequence");
        let n_generated = seq.tokens.len() - seq.n_prompt;
        let usage = Usage { n_prompt: seq.n_prompt, n_cached: seq.n_cached, n_generated };
        self.events.push(Event::Finished { id, reason, usage });
    }
}

/// Draws a token for each of the sequences `wanting`, from its row of `logits`, `[n_wanting, V]`.
fn sample<'a>(
    wanting: impl Iterator<Item = &'a Sequence>,
    answers: &BTreeMap<RequestId, Answer>,
    logits: &[f32],
    scratch: &mut Scratch,
) -> Vec<Draw> {
    let wanting: Vec<&Sequence> = wanting.collect();
    let Some(vocab_size) = logits.len().checked_div(wanting.len()) else { return Vec::new() };
    assert_eq!(logits.len(), wanting.len() * vocab_size, "one row for each of {}", wanting.len());
    let draw = |(seq, row): (&Sequence, &[f32])| {
        (seq.id, answers[&seq.id].sampler.draw(row, seq.tokens.len(), scratch))
    };
    wanting.into_iter().zip(logits.chunks_exact(vocab_size)).map(draw).collect()
}

/// Tokens of prompt and answer together, if nothing but `max_new_tokens` ends it.
fn wanted_len(request: &Request) -> usize {
    request.max_new_tokens.map_or(usize::MAX, |n| request.prompt.len().saturating_add(n))
}
