//! Drafts change the number of passes and nothing else.

use crate::fake::{Answer, FakeModel, POISON, answer};
use puna_engine::{BLOCK_LEN, Engine, EngineConfig, FinishReason, Request, Sampling};

const CONTEXT: usize = 6 * BLOCK_LEN;
/// A network that goes round and round, with an exception now and then.
const HABIT: f32 = 9.0;

fn engine(max_draft: usize) -> Engine<FakeModel> {
    let network = FakeModel::new(6, CONTEXT).with_habit(HABIT);
    Engine::new(network, EngineConfig { max_draft, ..EngineConfig::default() })
}

fn request(sampling: Sampling) -> Request {
    Request {
        prompt: vec![40, 41, 40],
        max_new_tokens: None,
        sampling,
        stop_ids: vec![],
        n_logprobs: Some(3),
    }
}

/// The answer, and the number of passes it took.
fn run(request: &Request, max_draft: usize) -> (Answer, usize) {
    let mut engine = engine(max_draft);
    let id = engine.submit(request.clone()).unwrap();
    let answer = answer(&mut engine, id);
    (answer, engine.forward().n_passes)
}

/// With drafts and without: the same tokens, log-probabilities and reason to end. Returns the answer with drafts.
fn check(request: &Request) -> (Answer, usize) {
    let (expected, n_passes) = run(request, 0);
    assert_eq!(n_passes, expected.tokens.len() + usize::from(stopped(&expected)));
    let mut outcome = None;
    for max_draft in [1, 2, 8, 100] {
        let (found, n_passes) = run(request, max_draft);
        let usage = found.end.unwrap().1;
        assert_eq!(found.tokens, expected.tokens);
        assert_eq!(found.logprobs, expected.logprobs);
        assert_eq!(found.end.unwrap().0, expected.end.unwrap().0);
        let n_drawn = found.tokens.len() + usize::from(stopped(&found));
        assert_eq!(n_passes + usage.n_accepted, n_drawn, "a pass for each token not drafted");
        outcome = Some((found, n_passes));
    }
    outcome.unwrap()
}

fn stopped(answer: &Answer) -> bool {
    matches!(answer.end.unwrap().0, FinishReason::Stop(_))
}

#[test]
fn answers_are_the_same_and_take_fewer_passes() {
    let penalties = Sampling {
        repetition_penalty: 1.1,
        presence_penalty: 0.2,
        frequency_penalty: 0.01,
        ..Sampling::default()
    };
    let (mut n_drawn, mut n_passes) = (0, 0);
    for seed in 0..20 {
        let cases = [
            Sampling::greedy(),
            Sampling { seed, ..Sampling::default() },
            Sampling { seed, temperature: 0.7, top_p: 0.9, ..Sampling::default() },
            Sampling { seed, ..penalties.clone() },
            Sampling { temperature: 0.0, ..penalties.clone() },
        ];
        for sampling in cases {
            let mut request = request(sampling);
            request.prompt.push(seed as u32);
            let (answer, passes) = check(&request);
            n_drawn += answer.tokens.len();
            n_passes += passes;
        }
    }
    assert!(3 * n_passes < 2 * n_drawn, "{n_passes} passes for {n_drawn} tokens");
}

#[test]
fn answers_end_within_a_draft() {
    let whole = run(&request(Sampling::greedy()), 0).0.tokens;
    for n in 1..60 {
        let (short, _) = check(&Request { max_new_tokens: Some(n), ..request(Sampling::greedy()) });
        assert_eq!(short.tokens, whole[..n]);
        assert_eq!(short.end.unwrap().0, FinishReason::Length);
    }
    for &stop in &whole {
        let (short, _) = check(&Request { stop_ids: vec![stop], ..request(Sampling::greedy()) });
        assert_eq!(short.end.unwrap().0, FinishReason::Stop(stop));
    }
    // A stop id that comes late: the answer has fallen into its round, and the draft holds the id.
    let mut request = request(Sampling::greedy());
    request.prompt.extend(&whole);
    request.prompt.truncate(3 * BLOCK_LEN);
    let expected = run(&request, 0).0.tokens;
    let is_late = |&&token: &&u32| expected.iter().position(|&t| t == token) > Some(8);
    let stop = *expected.iter().find(is_late).expect("a token that comes late");
    let (answer, _) = check(&Request { stop_ids: vec![stop], ..request });
    assert_eq!(answer.end.unwrap().0, FinishReason::Stop(stop));
}

#[test]
fn what_was_drafted_in_vain_does_not_matter() {
    // The poison follows in the draft whenever 40, 41 was drawn again; its row is no number, and is never looked at.
    let mut poisoned = request(Sampling::greedy());
    poisoned.prompt = [vec![5; 6], vec![POISON, 40], vec![5; 5]].concat();
    poisoned.sampling.logit_bias = vec![(5, 30.0)];
    let mut last_of_five = poisoned.clone();
    last_of_five.sampling.logit_bias.clear();
    for request in [poisoned, last_of_five] {
        let (answer, _) = check(&request);
        assert_eq!(answer.end.unwrap().0, FinishReason::Context);
        assert!(!answer.tokens.contains(&POISON));
    }
}

#[test]
fn accepted_tokens_are_shared_with_the_next_turn() {
    let mut engine = engine(8);
    let first = Request { max_new_tokens: Some(100), ..request(Sampling::greedy()) };
    let id = engine.submit(first.clone()).unwrap();
    let reply = answer(&mut engine, id);
    assert!(reply.end.unwrap().1.n_accepted > 50);
    let prompt = [first.prompt, reply.tokens, vec![3, 4]].concat();
    let second = Request { prompt, max_new_tokens: Some(5), ..request(Sampling::greedy()) };
    let id = engine.submit(second.clone()).unwrap();
    let reply = answer(&mut engine, id);
    assert_eq!(reply.end.unwrap().1.n_cached, 102 / BLOCK_LEN * BLOCK_LEN);
    assert_eq!(reply.tokens, run(&second, 0).0.tokens);
}

#[test]
fn cancelled_within_a_round() {
    for n_steps in 1..30 {
        let mut engine = engine(8);
        let id = engine.submit(request(Sampling::greedy())).unwrap();
        let mut found = Answer::default();
        for _ in 0..n_steps {
            engine.step().into_iter().for_each(|event| found.take(event));
        }
        engine.cancel(id);
        engine.check();
        engine.step().into_iter().for_each(|event| found.take(event));
        assert!(engine.is_idle());
        assert_eq!(found.end.unwrap().0, FinishReason::Cancelled);
        let whole = run(&request(Sampling::greedy()), 0).0;
        assert_eq!(found.tokens, whole.tokens[..found.tokens.len()]);
        assert_eq!(found.logprobs, whole.logprobs[..found.tokens.len()]);
    }
}
