//! What a request may ask, and how it ends.

use std::collections::BTreeSet;

use crate::fake::{Answer, FakeModel, POISON, VOCAB_SIZE, answer, id_of};
use puna_engine::{
    BLOCK_LEN, Engine, EngineConfig, Failure, FinishReason, Request, Sampling, SubmitError, Usage,
};

const CONTEXT: usize = 3 * BLOCK_LEN;

fn engine(n_blocks: usize) -> Engine<FakeModel> {
    let config = EngineConfig { max_draft: 0, ..EngineConfig::default() };
    Engine::new(FakeModel::new(n_blocks, CONTEXT), config)
}

/// Greedy from a prompt of `n_prompt` tokens.
fn request(n_prompt: usize, max_new_tokens: Option<usize>) -> Request {
    Request {
        prompt: vec![1; n_prompt],
        max_new_tokens,
        sampling: Sampling::greedy(),
        stop_ids: vec![],
        n_logprobs: None,
    }
}

fn run(request: Request) -> (Answer, FinishReason) {
    let mut engine = engine(4);
    let id = engine.submit(request).unwrap();
    let answer = answer(&mut engine, id);
    let reason = answer.end.unwrap().0;
    (answer, reason)
}

#[test]
fn answers_end_for_the_right_reason() {
    let (answer, reason) = run(request(5, Some(10)));
    assert_eq!((answer.tokens.len(), reason), (10, FinishReason::Length));
    let usage = Usage { n_prompt: 5, n_generated: 10, ..Usage::default() };
    assert_eq!(answer.end, Some((FinishReason::Length, usage)));

    let (longer, reason) = run(request(5, None));
    assert_eq!((longer.tokens.len(), reason), (CONTEXT - 5, FinishReason::Context));
    assert_eq!(longer.tokens[..10], answer.tokens);
    let (_, reason) = run(request(5, Some(usize::MAX)));
    assert_eq!(reason, FinishReason::Context);
    let (_, reason) = run(request(5, Some(CONTEXT - 5)));
    assert_eq!(reason, FinishReason::Length, "both at once");

    let stop = longer.tokens[7];
    let n_before = longer.tokens.iter().position(|&token| token == stop).unwrap();
    let (stopped, reason) =
        run(Request { stop_ids: vec![VOCAB_SIZE as u32, stop], ..request(5, None) });
    assert_eq!(reason, FinishReason::Stop(stop));
    assert_eq!(stopped.tokens, longer.tokens[..n_before]);
}

#[test]
fn penalties_see_the_whole_answer() {
    let sampling = Sampling { presence_penalty: 1000.0, ..Sampling::greedy() };
    let (answer, _) = run(Request { sampling, ..request(5, Some(40)) });
    let distinct: BTreeSet<u32> = answer.tokens.iter().copied().collect();
    assert_eq!(distinct.len(), 40, "{:?}", answer.tokens);
    let (free, _) = run(request(5, Some(40)));
    assert_ne!(free.tokens, answer.tokens);
}

#[test]
fn a_logit_that_is_no_number_ends_one_answer_only() {
    let mut engine = engine(4);
    let good = engine.submit(request(5, Some(10))).unwrap();
    let poisoned = Request { prompt: vec![1, POISON], ..request(2, Some(10)) };
    let bad = engine.submit(poisoned).unwrap();
    let mut answers = [Answer::default(), Answer::default()];
    while !engine.is_idle() {
        for event in engine.step() {
            answers[usize::from(id_of(&event) == bad)].take(event);
        }
        engine.check();
    }
    let failure = Failure::NotANumber { token: 5 };
    assert!(good < bad);
    assert_eq!(answers[1].end.unwrap().0, FinishReason::Failed(failure));
    assert!(answers[1].tokens.is_empty());
    assert_eq!(answers[0], run(request(5, Some(10))).0);
}

#[test]
fn cancelling_frees_everything_at_once() {
    let mut engine = engine(3);
    let running = engine.submit(request(5, None)).unwrap();
    let waiting = engine.submit(request(CONTEXT - 1, None)).unwrap();
    engine.step();
    engine.cancel(running);
    engine.cancel(waiting);
    engine.cancel(waiting);
    engine.check();
    assert!(!engine.is_idle(), "the ends are still to be reported");
    let events = engine.step();
    let ends: Vec<_> = events.iter().map(id_of).collect();
    assert_eq!(ends, [running, waiting]);
    assert!(engine.is_idle() && engine.step().is_empty());
    let id = engine.submit(request(CONTEXT - 1, None)).unwrap();
    assert_eq!(answer(&mut engine, id).tokens.len(), 1);
}

#[test]
fn what_cannot_be_answered_is_refused() {
    let sampling = |change: fn(&mut Sampling)| {
        let mut request = request(1, None);
        change(&mut request.sampling);
        request
    };
    let cases = [
        (request(0, None), "the prompt is empty; expected at least one token"),
        (
            Request { prompt: vec![1, 48], ..request(1, None) },
            "prompt: token 48 is outside the vocabulary of 48",
        ),
        (
            request(CONTEXT + 9, Some(1)),
            "the prompt has 105 tokens and the context 96: 10 too many (one place is kept for the answer)",
        ),
        (
            request(CONTEXT, None),
            "the prompt has 96 tokens and the context 96: 1 too many (one place is kept for the answer)",
        ),
        (request(1, Some(0)), "max_new_tokens: expected at least 1, found 0"),
        (
            Request { n_logprobs: Some(49), ..request(1, None) },
            "n_logprobs: expected at most 48, the vocabulary, found 49",
        ),
        (
            sampling(|s| s.temperature = -0.5),
            "temperature: expected 0 or a positive number, found -0.5",
        ),
        (
            sampling(|s| s.temperature = f32::NAN),
            "temperature: expected 0 or a positive number, found NaN",
        ),
        (sampling(|s| s.top_p = 1.5), "top_p: expected a number from 0 to 1, found 1.5"),
        (sampling(|s| s.min_p = -1.0), "min_p: expected a number from 0 to 1, found -1"),
        (
            sampling(|s| s.repetition_penalty = 0.0),
            "repetition_penalty: expected a number above 0, found 0",
        ),
        (
            sampling(|s| s.presence_penalty = f32::INFINITY),
            "presence_penalty: expected a finite number, found inf",
        ),
        (
            sampling(|s| s.frequency_penalty = f32::NAN),
            "frequency_penalty: expected a finite number, found NaN",
        ),
        (
            sampling(|s| s.logit_bias = vec![(99, 1.0)]),
            "logit_bias: token 99 is outside the vocabulary of 48",
        ),
        (
            sampling(|s| s.logit_bias = vec![(1, f32::INFINITY)]),
            "logit_bias: expected a finite number or minus infinity, found inf",
        ),
    ];
    let mut engine = engine(4);
    for (request, message) in cases {
        assert_eq!(engine.submit(request).unwrap_err().to_string(), message);
    }
    assert!(engine.is_idle());
}

#[test]
fn a_cache_smaller_than_the_context_is_the_limit() {
    let mut engine = engine(2);
    assert_eq!(engine.context(), 2 * BLOCK_LEN);
    let needed = SubmitError::CacheTooSmall { needed: 3, n_blocks: 2 };
    assert_eq!(engine.submit(request(10, Some(60))), Err(needed));
    let id = engine.submit(request(10, None)).unwrap();
    assert_eq!(answer(&mut engine, id).end.unwrap().0, FinishReason::Context);
}
