//! From logits to a token. [`Sampling`] documents the steps and their order.

use std::collections::BTreeMap;

use puna_core::Rng;

use crate::constraint::mask;
use crate::logprobs::logprobs;
use crate::select::{Candidate, argmax, collect_above, cut, largest, nucleus, total};
use crate::softmax::{sum, weight, weights};
use crate::{Constraint, Failure, Logprobs, Sampling};

/// Buffers that all samplers share; they carry nothing from one draw to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Logits after penalties and bias, `[V]`.
    adjusted: Vec<f32>,
    /// Probabilities but for a common factor, `[V]`.
    weights: Vec<f32>,
}

/// Draws the tokens of one request.
pub(crate) struct Sampler {
    sampling: Sampling,
    n_logprobs: Option<usize>,
    /// How often each token of prompt or answer is in the answer; empty without penalties.
    seen: BTreeMap<u32, u32>,
    constraint: Option<Box<dyn Constraint>>,
}

impl Sampler {
    /// `sampling` has been checked.
    pub(crate) fn new(
        sampling: Sampling,
        n_logprobs: Option<usize>,
        prompt: &[u32],
        constraint: Option<Box<dyn Constraint>>,
    ) -> Self {
        let mut seen = BTreeMap::new();
        if has_penalties(&sampling) {
            seen.extend(prompt.iter().map(|&token| (token, 0)));
        }
        Self { sampling, n_logprobs, seen, constraint }
    }

    /// Draws the token at position `pos` from `logits`, `[V]`.
    pub(crate) fn draw(
        &mut self,
        logits: &[f32],
        pos: usize,
        scratch: &mut Scratch,
    ) -> Result<(u32, Option<Logprobs>), Failure> {
        let adjusted = self.adjust(logits, &mut scratch.adjusted);
        let (best, max) = argmax(adjusted)?;
        let token = if self.sampling.temperature == 0.0 {
            best
        } else {
            let kept = filter(&self.sampling, adjusted, max, &mut scratch.weights);
            pick(&kept, Rng::new(self.sampling.seed, pos as u64).next_f64())
        };
        let Some(n) = self.n_logprobs else { return Ok((token, None)) };
        let (_, max) = argmax(logits)?;
        Ok((token, Some(logprobs(logits, max, token, n, &mut scratch.weights))))
    }

    /// Takes note that `token` is now part of the answer.
    pub(crate) fn accept(&mut self, token: u32) {
        if has_penalties(&self.sampling) {
            *self.seen.entry(token).or_default() += 1;
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token);
        }
    }

    /// Penalties, bias and constraint.
    fn adjust<'a>(&mut self, logits: &'a [f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let s = &self.sampling;
        if self.seen.is_empty() && s.logit_bias.is_empty() && self.constraint.is_none() {
            return logits;
        }
        buffer.clear();
        buffer.extend_from_slice(logits);
        for (&token, &n) in &self.seen {
            let x = &mut buffer[token as usize];
            *x = if *x > 0.0 { *x / s.repetition_penalty } else { *x * s.repetition_penalty };
            if n > 0 {
                *x -= s.presence_penalty + n as f32 * s.frequency_penalty;
            }
        }
        for &(token, bias) in &s.logit_bias {
            buffer[token as usize] += bias;
        }
        if let Some(constraint) = &mut self.constraint {
            mask(buffer, constraint.allowed());
        }
        buffer
    }
}

fn has_penalties(s: &Sampling) -> bool {
    s.repetition_penalty != 1.0 || s.presence_penalty != 0.0 || s.frequency_penalty != 0.0
}

/// The tokens that temperature, top-k, top-p and min-p leave, at least one, with weights relative to the most
/// probable. Their order is a function of logits and settings, no more.
fn filter(s: &Sampling, logits: &[f32], max: f32, buffer: &mut Vec<f32>) -> Vec<Candidate> {
    let top_p = f64::from(s.top_p);
    let mut kept = Vec::new();
    if 0 < s.top_k && s.top_k < logits.len() {
        kept = largest(logits, max, s.top_k);
        for (_, x) in &mut kept {
            *x = weight(*x, max, s.temperature);
        }
        if top_p < 1.0 {
            let target = top_p * total(&kept);
            cut(&mut kept, target);
        }
    } else {
        weights(logits, max, s.temperature, buffer);
        if top_p < 1.0 {
            kept = nucleus(buffer, top_p * sum(buffer));
        } else {
            collect_above(buffer, s.min_p.next_down().max(0.0), &mut kept);
        }
    }
    if s.min_p > 0.0 {
        kept.retain(|&(_, weight)| weight >= s.min_p);
    }
    kept
}

/// The candidate in whose share of the total `u`, in `[0, 1)`, falls.
fn pick(candidates: &[Candidate], u: f64) -> u32 {
    let target = u * total(candidates);
    let mut sum = 0.0;
    let covers = |&&(_, weight): &&Candidate| {
        sum += f64::from(weight);
        sum > target
    };
    // The same sum in the same order, and `u < 1`: it is covered unless the product rounds up to the total.
    let found = candidates.iter().find(covers).or(candidates.iter().rfind(|c| c.1 > 0.0));
    found.expect("the most probable token is always kept").0
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
