//! The engine over the real network, with tiny random weights: the promise is kept from end to end.

use std::sync::Arc;

use crate::fake::{Answer, answer, id_of};
use puna_core::{DType, KvType, Rng};
use puna_engine::{BLOCK_LEN, Engine, EngineConfig, Request, Sampling};
use puna_kernels::Cpu;
use puna_model::{Model, Runner};
use puna_testkit::{TinySource, tiny_config};

const CONTEXT: usize = 4 * BLOCK_LEN;

fn requests(vocab_size: usize) -> Vec<Request> {
    let mut rng = Rng::new(3, 0);
    let mut tokens =
        |n: usize| -> Vec<u32> { (0..n).map(|_| rng.next_u32() % vocab_size as u32).collect() };
    let stem = tokens(BLOCK_LEN + 8);
    (0..5)
        .map(|i| Request {
            prompt: [&stem[..], &tokens(1 + 5 * i)].concat(),
            max_new_tokens: Some(40),
            sampling: match i % 2 {
                0 => Sampling::greedy(),
                _ => Sampling { top_p: 0.95, seed: i as u64, ..Sampling::default() },
            },
            stop_ids: vec![],
            n_logprobs: Some(2),
        })
        .collect()
}

#[test]
fn tokens_and_logprobs_are_the_same_bits_in_company() {
    let config = tiny_config();
    let requests = requests(config.vocab_size);
    let model = Arc::new(Model::load(&TinySource::new(config, DType::Q8_0, 7), CONTEXT).unwrap());
    let engine = |n_threads, n_blocks, config| {
        let cpu = Cpu::new(n_threads).unwrap();
        let runner = Runner::new(Arc::clone(&model), cpu, KvType::F16, n_blocks);
        Engine::new(runner, config)
    };
    // Too few blocks for all five: some are pre-empted. Prompts come in chunks of a few tokens.
    let config =
        EngineConfig { max_batch_tokens: 13, max_seqs: 4, prefix_cache: true, max_draft: 5 };
    let mut crowd = engine(2, 7, config);
    for request in &requests {
        crowd.submit(request.clone()).unwrap();
    }
    let mut found = vec![Answer::default(); requests.len()];
    while !crowd.is_idle() {
        for event in crowd.step() {
            found[id_of(&event).0 as usize].take(event);
        }
        crowd.check();
    }
    for (request, found) in requests.into_iter().zip(found) {
        let config = EngineConfig { max_draft: 0, ..EngineConfig::default() };
        let mut alone = engine(1, 4, config);
        let id = alone.submit(request).unwrap();
        let expected = answer(&mut alone, id);
        assert_eq!(found.tokens, expected.tokens);
        assert_eq!(found.logprobs, expected.logprobs);
    }
}

#[test]
fn drafts_change_no_bit() {
    let config = tiny_config();
    let (ctx, vocab_size) = (8 * BLOCK_LEN, config.vocab_size as u32);
    let mut rng = Rng::new(5, 0);
    let mut tally = (0, 0);
    for (seed, dtype) in [(1, DType::F32), (2, DType::BF16), (3, DType::Q8_0), (4, DType::Q4_0)] {
        let source = TinySource::new(config.clone(), dtype, seed);
        let model = Arc::new(Model::load(&source, ctx).unwrap());
        let phrase: Vec<u32> = (0..11).map(|_| rng.next_u32() % vocab_size).collect();
        let penalised = Sampling { repetition_penalty: 1.2, seed, ..Sampling::default() };
        // A temperature at which the network mostly, not always, repeats the phrase that the bias favours.
        let biased = Sampling {
            logit_bias: phrase[..2].iter().map(|&token| (token, 9.0)).collect(),
            temperature: 0.8,
            seed,
            ..Sampling::default()
        };
        for sampling in [Sampling::greedy(), penalised, biased] {
            let request = Request {
                prompt: phrase.repeat(4),
                max_new_tokens: Some(150),
                sampling,
                stop_ids: vec![],
                n_logprobs: Some(2),
            };
            let run = |max_draft| {
                let cpu = Cpu::new(2).unwrap();
                let runner = Runner::new(Arc::clone(&model), cpu, KvType::F16, 8);
                let config = EngineConfig { max_draft, ..EngineConfig::default() };
                let mut engine = Engine::new(runner, config);
                let id = engine.submit(request.clone()).unwrap();
                answer(&mut engine, id)
            };
            let (plain, drafting) = (run(0), run(16));
            assert_eq!(plain.tokens, drafting.tokens);
            assert_eq!(plain.logprobs, drafting.logprobs);
            let usage = drafting.end.unwrap().1;
            tally = (tally.0 + usage.n_drafted, tally.1 + usage.n_accepted);
        }
    }
    assert!(tally.1 > 200 && tally.0 - tally.1 > 20, "drafted and accepted: {tally:?}");
}
