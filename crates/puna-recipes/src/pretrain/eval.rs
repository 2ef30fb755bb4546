//! What is measured and shown on the way: held-out bits per byte of each source, and continuations of prompts.

use std::f64::consts::LN_2;
use std::sync::Arc;

use puna_core::KvType;
use puna_engine::{Engine, EngineConfig, Event, Request, Sampling};
use puna_kernels::Cpu;
use puna_model::{KvCache, Model, Runner};
use puna_train::MicroBatch;

use super::Training;
use crate::RecipeError;
use crate::run::{StepRecord, TrainedWeights};

impl Training<'_> {
    /// Measures and continues; whether no step before was better, which is remembered.
    pub(super) fn evaluate(&mut self, record: &mut StepRecord) -> Result<bool, RecipeError> {
        let (mut all_nats, mut all_bytes) = (0.0, 0);
        for source in 0..self.of.corpus.manifest().sources.len() {
            let (nats, n_bytes) = self.held_out(source)?;
            if n_bytes > 0 {
                let name = self.of.corpus.manifest().sources[source].name.clone();
                record.bits_per_byte.push((name, nats / LN_2 / n_bytes as f64));
            }
            all_nats += nats;
            all_bytes += n_bytes;
        }
        let bits = all_nats / LN_2 / all_bytes as f64;
        // Without held-out text there is nothing to compare.
        let is_best =
            bits.is_finite() && self.state.best.is_none_or(|(_, best)| bits < f64::from_bits(best));
        if is_best {
            self.state.best = Some((record.step, bits.to_bits()));
        }
        record.samples = self.continuations()?;
        Ok(is_best)
    }

    /// Nats, and bytes of text, of a source's held-out windows, taken at equal distances.
    fn held_out(&mut self, source: usize) -> Result<(f64, u64), RecipeError> {
        let of = self.of;
        let (seq_len, at_once) = (of.settled.seq_len, of.settled.micro_batch);
        let windows = of.corpus.held_out(source, seq_len);
        let n = match of.config.eval.windows {
            0 => windows.len(),
            n => n.min(windows.len()),
        };
        let (mut nats, mut n_bytes) = (0.0, 0);
        for first in (0..n).step_by(at_once) {
            // What a window lacks is masked.
            let len = at_once * seq_len;
            let (mut tokens, mut targets) = (vec![0; len], vec![0; len]);
            let (mut starts, mut scales) = (vec![0; len], vec![0.0; len]);
            for (i, index) in (first..n.min(first + at_once as u64)).enumerate() {
                let window = windows.window(index * windows.len() / n)?;
                let ids = &window.sequence.tokens;
                let place = i * seq_len..i * seq_len + ids.len() - 1;
                tokens[place.clone()].copy_from_slice(&ids[..ids.len() - 1]);
                targets[place.clone()].copy_from_slice(&ids[1..]);
                starts[place.clone()]
                    .copy_from_slice(&window.sequence.document_starts[..ids.len() - 1]);
                scales[place].fill(1.0);
                n_bytes += window.n_bytes;
            }
            let batch = MicroBatch {
                tokens: &tokens,
                targets: &targets,
                scales: &scales,
                starts: of.config.within_documents.then_some(&starts),
            };
            let losses = self.pass.losses(of.cpu, &self.weights, batch);
            nats += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        }
        Ok((nats, n_bytes))
    }

    /// A continuation of each prompt, drawn at temperature 0.8.
    fn continuations(&self) -> Result<Vec<String>, RecipeError> {
        let of = self.of;
        let eval = &of.config.eval;
        if eval.prompts.is_empty() || eval.sample_tokens == 0 {
            return Ok(Vec::new());
        }
        let refused = |e: &dyn std::fmt::Display| RecipeError::Check(format!("continuations: {e}"));
        let tokenizer = of.corpus.tokenizer();
        let vocabulary = &of.corpus.manifest().tokenizer;
        let source = TrainedWeights { layout: &of.layout, weights: &self.weights };
        let ctx = of.settled.seq_len;
        let model = Arc::new(Model::load(&source, ctx).map_err(|e| refused(&e))?);
        let cpu =
            Cpu::with_isa(of.cpu.isa(), of.cpu.pool().n_threads()).map_err(|e| refused(&e))?;
        let runner = Runner::new(model, cpu, KvType::F32, KvCache::blocks_for(ctx));
        let config =
            EngineConfig { max_batch_tokens: 512, max_seqs: 1, prefix_cache: false, max_draft: 0 };
        let mut engine = Engine::new(runner, config);
        let mut texts = Vec::new();
        for prompt in &eval.prompts {
            let mut ids = vec![vocabulary.bos_id];
            tokenizer.encode_into(prompt, &mut ids);
            let request = Request {
                prompt: ids.clone(),
                max_new_tokens: Some(eval.sample_tokens),
                sampling: Sampling { temperature: 0.8, ..Sampling::default() },
                stop_ids: vec![vocabulary.bos_id, vocabulary.eos_id],
                n_logprobs: None,
            };
            engine.submit(request).map_err(|e| refused(&e))?;
            'answer: loop {
                for event in engine.step() {
                    match event {
                        Event::Token { token, .. } => ids.push(token),
                        Event::Hidden { .. } => {}
                        Event::Finished { .. } => break 'answer,
                    }
                }
            }
            texts.push(tokenizer.decode(&ids));
        }
        Ok(texts)
    }
}
