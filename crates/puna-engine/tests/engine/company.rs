//! A request's tokens are the same alone and in any company.

use std::collections::BTreeMap;

use crate::fake::{Answer, DIM, FakeConstraint, FakeModel, VOCAB_SIZE, answer, id_of};
use puna_core::Rng;
use puna_engine::{
    BLOCK_LEN, Constraint, Engine, EngineConfig, FinishReason, Request, RequestId, Sampling,
};

const CONTEXT: usize = 5 * BLOCK_LEN;

/// Random choices of one schedule.
struct Dice(Rng);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_f64() * n as f64) as usize
    }

    fn tokens(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(VOCAB_SIZE - 1) as u32).collect()
    }

    fn sampling(&mut self) -> Sampling {
        if self.below(2) == 0 {
            return Sampling::greedy();
        }
        let seed = self.below(1000) as u64;
        let base = Sampling { seed, ..Sampling::default() };
        match self.below(4) {
            0 => base,
            1 => Sampling { temperature: 0.7, top_p: 0.9, ..base },
            2 => Sampling { top_k: 10, min_p: 0.05, frequency_penalty: 0.5, ..base },
            _ => Sampling { repetition_penalty: 1.3, logit_bias: vec![(3, -1.0)], ..base },
        }
    }

    /// A prompt that starts with part of `stem`, which other requests do too.
    fn request(&mut self, stem: &[u32]) -> Request {
        let n_shared = self.below(stem.len());
        let n_own = 1 + self.below(20);
        let max_new_tokens = (self.below(5) > 0).then_some(1 + self.below(60));
        Request {
            prompt: [&stem[..n_shared], &self.tokens(n_own)].concat(),
            max_new_tokens,
            sampling: self.sampling(),
            stop_ids: self.tokens(1),
            n_logprobs: (self.below(2) == 0).then_some(3),
        }
    }
}

/// What the engine is asked for.
#[derive(Clone)]
enum Wish {
    Free(Request),
    Constrained(Request),
    Hidden(Vec<u32>),
}

impl Wish {
    fn submit(&self, engine: &mut Engine<FakeModel>) -> RequestId {
        let id = match self.clone() {
            Self::Free(request) => engine.submit(request),
            Self::Constrained(request) => {
                let constraint: Box<dyn Constraint> = FakeConstraint::new();
                engine.submit_constrained(request, Some(constraint))
            }
            Self::Hidden(text) => engine.submit_hidden(text),
        };
        id.unwrap()
    }
}

/// The answer to a request alone, one token a pass, by a network that repeats itself as much as `habit` says.
fn alone(request: &Request, habit: f32) -> Answer {
    wish_alone(&Wish::Free(request.clone()), habit)
}

fn wish_alone(wish: &Wish, habit: f32) -> Answer {
    let config =
        EngineConfig { max_batch_tokens: CONTEXT, max_seqs: 1, prefix_cache: false, max_draft: 0 };
    let mut engine = Engine::new(FakeModel::new(5, CONTEXT).with_habit(habit), config);
    let id = wish.submit(&mut engine);
    answer(&mut engine, id)
}

/// What a schedule was like.
#[derive(Default)]
struct Tally {
    n_cached: usize,
    n_recomputed: usize,
    n_cancelled: usize,
    n_together: usize,
    n_constrained: usize,
    n_hidden: usize,
    n_drafted: usize,
    n_accepted: usize,
}

/// Requests that arrive and leave at random, with random limits: each answer is that of the request alone.
fn check_schedule(seed: u64, tally: &mut Tally) {
    let dice = &mut Dice(Rng::new(seed, 0));
    let max_seqs = 1 + dice.below(6);
    let max_batch_tokens = max_seqs + dice.below(60);
    let prefix_cache = dice.below(4) > 0;
    let max_draft = dice.below(3) * dice.below(12);
    let config = EngineConfig { max_batch_tokens, max_seqs, prefix_cache, max_draft };
    let habit = [0.0, 4.0, 7.0, 20.0][dice.below(4)];
    let network = FakeModel::new(5 + dice.below(8), CONTEXT).with_habit(habit);
    let mut engine = Engine::new(network, config);
    let stem = dice.tokens(4 * BLOCK_LEN);

    let mut answers: BTreeMap<RequestId, (Wish, Answer)> = BTreeMap::new();
    let n_requests = 3 + dice.below(8);
    while answers.len() < n_requests || !engine.is_idle() {
        if answers.len() < n_requests && dice.below(4) == 0 {
            let request = dice.request(&stem);
            let wish = match dice.below(6) {
                0 => Wish::Constrained(request),
                1 => Wish::Hidden(request.prompt),
                _ => Wish::Free(request),
            };
            let id = wish.submit(&mut engine);
            answers.insert(id, (wish, Answer::default()));
        }
        if dice.below(80) == 0 {
            engine.cancel(RequestId(dice.below(n_requests) as u64));
        }
        let events = engine.step();
        tally.n_together += usize::from(events.len() > 2);
        for event in events {
            answers.get_mut(&id_of(&event)).unwrap().1.take(event);
        }
        engine.check();
    }
    assert!(engine.forward().largest_batch <= max_batch_tokens);

    let mut n_needed = 0;
    for (id, (wish, found)) in answers {
        let expected = wish_alone(&wish, habit);
        let (reason, usage) = found.end.expect("every request ends");
        let n = found.tokens.len();
        assert_eq!(found.tokens, expected.tokens[..n], "seed {seed}, {id:?}");
        assert_eq!(found.logprobs, expected.logprobs[..n], "seed {seed}, {id:?}");
        let n_hidden = found.hidden.len();
        assert_eq!(found.hidden, expected.hidden[..n_hidden], "seed {seed}, {id:?}");
        match &wish {
            Wish::Constrained(_) => assert!(FakeConstraint::allows(&found.tokens)),
            Wish::Hidden(text) if reason == FinishReason::Read => {
                assert_eq!(n_hidden, text.len() * DIM);
            }
            _ => {}
        }
        tally.n_constrained += usize::from(matches!(wish, Wish::Constrained(_)));
        tally.n_hidden += n_hidden;
        if reason == FinishReason::Cancelled {
            tally.n_cancelled += 1;
        } else {
            assert_eq!(Some(reason), expected.end.map(|end| end.0), "seed {seed}, {id:?}");
            assert_eq!(n, expected.tokens.len(), "seed {seed}, {id:?}");
        }
        // Without a draft that was rejected, every token but the last is read once.
        n_needed += usage.n_prompt + n - usage.n_cached + usage.n_drafted - usage.n_accepted;
        assert!(usage.n_accepted <= usage.n_drafted && usage.n_accepted <= n);
        assert!(max_draft > 0 || usage.n_drafted == 0);
        tally.n_cached += usage.n_cached;
        tally.n_drafted += usage.n_drafted;
        tally.n_accepted += usage.n_accepted;
    }
    // What was cancelled may not have been read to its end, so this is the least it can be.
    tally.n_recomputed += engine.forward().n_computed.saturating_sub(n_needed);
}

#[test]
fn tokens_are_the_same_in_200_random_schedules() {
    let mut tally = Tally::default();
    for seed in 0..200 {
        check_schedule(seed, &mut tally);
    }
    // The schedules were worth the name.
    assert!(tally.n_cached > 10_000, "cached {}", tally.n_cached);
    assert!(tally.n_recomputed > 1_000, "recomputed {}", tally.n_recomputed);
    assert!(tally.n_cancelled > 50, "cancelled {}", tally.n_cancelled);
    assert!(tally.n_together > 1_000, "together {}", tally.n_together);
    assert!(tally.n_constrained > 100, "constrained {}", tally.n_constrained);
    assert!(tally.n_hidden > 5_000, "hidden {}", tally.n_hidden);
    assert!(tally.n_accepted > 1_000, "accepted {}", tally.n_accepted);
    assert!(tally.n_drafted - tally.n_accepted > 300, "rejected of {}", tally.n_drafted);
}

#[test]
fn preempted_and_resumed_equals_uninterrupted() {
    let dice = &mut Dice(Rng::new(1, 0));
    for prefix_cache in [false, true] {
        let requests: Vec<Request> =
            [Sampling::greedy(), Sampling { seed: 4, ..Sampling::default() }]
                .map(|sampling| Request {
                    prompt: dice.tokens(BLOCK_LEN),
                    max_new_tokens: Some(3 * BLOCK_LEN),
                    sampling,
                    stop_ids: vec![],
                    n_logprobs: Some(2),
                })
                .to_vec();
        let config = EngineConfig { prefix_cache, max_draft: 0, ..EngineConfig::default() };
        let mut engine = Engine::new(FakeModel::new(5, CONTEXT), config);
        for request in &requests {
            engine.submit(request.clone()).unwrap();
        }
        let mut answers = vec![Answer::default(); 2];
        while !engine.is_idle() {
            for event in engine.step() {
                answers[id_of(&event).0 as usize].take(event);
            }
        }
        let n_needed = 2 * (4 * BLOCK_LEN - 1);
        assert!(engine.forward().n_computed > n_needed, "nothing was recomputed");
        for (request, found) in requests.iter().zip(answers) {
            assert_eq!(found, alone(request, 0.0), "prefix cache: {prefix_cache}");
        }
    }
}

#[test]
fn the_second_turn_reads_only_what_is_new() {
    let dice = &mut Dice(Rng::new(2, 0));
    let request = |prompt: Vec<u32>| Request {
        prompt,
        max_new_tokens: Some(30),
        sampling: Sampling::greedy(),
        stop_ids: vec![],
        n_logprobs: None,
    };
    let config = EngineConfig { max_draft: 0, ..EngineConfig::default() };
    let mut engine = Engine::new(FakeModel::new(5, CONTEXT), config);
    let first = request(dice.tokens(50));
    let id = engine.submit(first.clone()).unwrap();
    let reply = answer(&mut engine, id);
    assert_eq!(reply.end.unwrap().1.n_cached, 0);

    let before = engine.forward().n_computed;
    // 50 + 30 + 10 tokens, of which 79 were computed: two full blocks.
    let second = request([first.prompt, reply.tokens, dice.tokens(10)].concat());
    let id = engine.submit(second.clone()).unwrap();
    let reply = answer(&mut engine, id);
    assert_eq!(reply.end.unwrap().1.n_cached, 2 * BLOCK_LEN);
    assert_eq!(engine.forward().n_computed - before, 90 - 2 * BLOCK_LEN + 29);
    assert_eq!(reply.tokens, alone(&second, 0.0).tokens);
}

#[test]
fn an_answer_cut_and_continued_is_the_same() {
    let dice = &mut Dice(Rng::new(3, 0));
    for _ in 0..10 {
        // Whether a token is of the prompt or of the answer matters to no draw, only to some penalties.
        let sampling =
            Sampling { seed: dice.below(1000) as u64, top_p: 0.95, ..Sampling::default() };
        let prompt = dice.tokens(20);
        let whole = Request { max_new_tokens: Some(40), sampling, ..dice.request(&prompt) };
        let tokens = alone(&whole, 0.0).tokens;
        let cut = tokens.len() / 2;
        let rest = Request {
            prompt: [&whole.prompt[..], &tokens[..cut]].concat(),
            max_new_tokens: Some(40 - cut),
            ..whole
        };
        assert_eq!(alone(&rest, 0.0).tokens, tokens[cut..]);
    }
}

#[test]
fn several_answers_to_one_prompt_share_what_was_read() {
    let dice = &mut Dice(Rng::new(4, 0));
    let prompt = dice.tokens(2 * BLOCK_LEN + 7);
    let request = |seed| Request {
        prompt: prompt.clone(),
        max_new_tokens: Some(9),
        sampling: Sampling { seed, ..Sampling::default() },
        stop_ids: vec![],
        n_logprobs: None,
    };
    let config = EngineConfig { max_draft: 0, ..EngineConfig::default() };
    let mut engine = Engine::new(FakeModel::new(12, CONTEXT), config);
    let mut answers: Vec<_> =
        (0..5).map(|seed| (engine.submit(request(seed)).unwrap(), Answer::default())).collect();
    while !engine.is_idle() {
        for event in engine.step() {
            answers[id_of(&event).0 as usize].1.take(event);
        }
        engine.check();
    }
    // The full blocks once, the seven tokens after them by each, and 8 of the 9 tokens of each answer.
    assert_eq!(engine.forward().n_computed, 2 * BLOCK_LEN + 5 * (7 + 8));
    for (seed, (_, found)) in answers.iter().enumerate() {
        assert_eq!(found.tokens, alone(&request(seed as u64), 0.0).tokens, "seed {seed}");
    }
    assert_ne!(answers[0].1.tokens, answers[1].1.tokens);
}
