//! Answers of the weights in memory, by the batching engine.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use puna_core::{KvType, Rng, TensorSource};
use puna_engine::{Engine, EngineConfig, Event, FinishReason, Request, Sampling};
use puna_kernels::Cpu;
use puna_model::{KvCache, Model, Runner};
use puna_train::Layout;

use crate::RecipeError;
use crate::run::TrainedWeights;

/// Answers computed at once, and the most memory for their keys and values, unless one needs more.
const MAX_SEQS: usize = 64;
const MAX_CACHE_BYTES: usize = 4 << 30;

/// An engine over a copy of the weights.
pub(crate) struct Writer {
    engine: Engine<Runner>,
    stop_ids: Vec<u32>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drawn {
    /// Its tokens, without the one that ends it.
    pub tokens: Vec<u32>,
    /// Whether it came to its end, instead of to its greatest length.
    pub is_complete: bool,
}

impl Drawn {
    /// The answer's ids behind those of its prompt, with the token that ends it if it is complete.
    pub(crate) fn after(&self, prompt: &[u32], eos_id: u32) -> Vec<u32> {
        let mut ids = [prompt, &self.tokens].concat();
        ids.extend(self.is_complete.then_some(eos_id));
        ids
    }
}

/// The seed of an answer, from a run's seed: other rounds and other answers have unrelated ones.
pub(crate) fn answer_seed(seed: u64, round: u64, answer: u64) -> u64 {
    let mut rng = Rng::new(seed, round);
    let of_round = u64::from(rng.next_u32()) << 32 | u64::from(rng.next_u32());
    let mut rng = Rng::new(of_round, answer);
    u64::from(rng.next_u32()) << 32 | u64::from(rng.next_u32())
}

impl Writer {
    /// Copies weights, for prompts and answers of together at most `ctx` tokens; `stop_id` ends an answer.
    ///
    /// # Errors
    /// The network cannot run.
    pub(crate) fn new(
        cpu: &Cpu,
        layout: &Layout,
        weights: &[f32],
        ctx: usize,
        stop_id: u32,
    ) -> Result<Self, RecipeError> {
        Self::of_source(cpu, &TrainedWeights { layout, weights }, ctx, &[stop_id])
    }

    /// The same of a model as it is stored.
    ///
    /// # Errors
    /// The network cannot run.
    pub(crate) fn of_source(
        cpu: &Cpu,
        source: &dyn TensorSource,
        ctx: usize,
        stop_ids: &[u32],
    ) -> Result<Self, RecipeError> {
        let model = Arc::new(Model::load(source, ctx).map_err(refused)?);
        let cpu = Cpu::with_isa(cpu.isa(), cpu.pool().n_threads()).map_err(refused)?;
        // As whoever runs the model keeps them, unless told otherwise.
        // Answers that do not fit wait for others to end.
        let fit = MAX_CACHE_BYTES / KvCache::bytes_per_block(model.config(), KvType::F16);
        let one = KvCache::blocks_for(ctx);
        let runner = Runner::new(model, cpu, KvType::F16, (MAX_SEQS * one).min(one.max(fit)));
        let config = EngineConfig {
            max_batch_tokens: 512,
            max_seqs: MAX_SEQS,
            prefix_cache: true,
            max_draft: 0,
        };
        Ok(Self { engine: Engine::new(runner, config), stop_ids: stop_ids.to_vec() })
    }

    /// An answer to each prompt, of at most `max_new_tokens`, drawn as `sampling` says for its index.
    ///
    /// # Errors
    /// A prompt does not fit.
    pub(crate) fn write(
        &mut self,
        prompts: &[&[u32]],
        max_new_tokens: usize,
        sampling: impl Fn(usize) -> Sampling,
    ) -> Result<Vec<Drawn>, RecipeError> {
        let mut drawn = vec![Drawn { tokens: Vec::new(), is_complete: false }; prompts.len()];
        let mut index_of = BTreeMap::new();
        for (index, prompt) in prompts.iter().enumerate() {
            let request = Request {
                prompt: prompt.to_vec(),
                max_new_tokens: Some(max_new_tokens),
                sampling: sampling(index),
                stop_ids: self.stop_ids.clone(),
                n_logprobs: None,
            };
            index_of.insert(self.engine.submit(request).map_err(refused)?, index);
        }
        while !self.engine.is_idle() {
            for event in self.engine.step() {
                match event {
                    Event::Token { id, token, .. } => drawn[index_of[&id]].tokens.push(token),
                    Event::Finished { id, reason, .. } => match reason {
                        FinishReason::Stop(_) => drawn[index_of[&id]].is_complete = true,
                        FinishReason::Failed(failure) => return Err(refused(failure)),
                        _ => {}
                    },
                    Event::Hidden { .. } => {}
                }
            }
        }
        Ok(drawn)
    }
}

fn refused(e: impl Display) -> RecipeError {
    RecipeError::Check(format!("answers: {e}"))
}
