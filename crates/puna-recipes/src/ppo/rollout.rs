//! Answers with everything that the update needs to know of their tokens.

use puna_kernels::Cpu;
use puna_train::Pass;
use puna_train::rl::{LOGIT_LIMIT, gae, kl_k1, logit, token_rewards, whiten};

use crate::RecipeError;
use crate::tune::{Drawn, Item, Packed, Prompt, RowBatch, pack};

/// An answer, and what was said of its tokens when it was drawn; all slices are of as many tokens, EOS included where it
/// is complete.
#[derive(Clone, Debug, Default)]
pub(super) struct Rollout {
    item: Item,
    n_prompt: usize,
    /// Whitened over the batch.
    score: f64,
    pub logprobs_ref: Vec<f64>,
    pub logprobs_old: Vec<f64>,
    pub values_old: Vec<f64>,
    pub advantages: Vec<f64>,
    pub returns: Vec<f64>,
}

impl Rollout {
    fn n_answer(&self) -> usize {
        self.item.ids.len() - self.n_prompt
    }

    /// The sum over its tokens of `ln π − ln π₀`.
    pub(super) fn kl(&self) -> f64 {
        self.logprobs_old.iter().zip(&self.logprobs_ref).map(|(&p, &r)| kl_k1(p, r)).sum()
    }
}

/// Rollouts with their scores' logits whitened.
pub(super) fn begin(
    prompts: &[&Prompt],
    drawn: &[Drawn],
    scores: &[f64],
    eos_id: u32,
) -> Vec<Rollout> {
    let mut scores: Vec<f64> = scores.iter().map(|&score| logit(score)).collect();
    whiten(&mut scores);
    let rollout = |((prompt, drawn), score): ((&&Prompt, &Drawn), f64)| {
        let ids = drawn.after(&prompt.ids, eos_id);
        let n_prompt = prompt.ids.len();
        let learned = (0..ids.len()).map(|t| t >= n_prompt).collect();
        Rollout { item: Item::one(ids, learned), n_prompt, score, ..Rollout::default() }
    };
    prompts.iter().zip(drawn).zip(scores).map(rollout).collect()
}

/// The rollouts of one update, packed into rows once for all passes: the same rows give the same bits.
pub(super) struct Group<'r> {
    pub rollouts: &'r mut [Rollout],
    packed: Packed,
}

impl<'r> Group<'r> {
    pub(super) fn new(rollouts: &'r mut [Rollout], seq_len: usize) -> Self {
        let lens: Vec<usize> = rollouts.iter().map(|rollout| rollout.item.ids.len()).collect();
        Self { packed: pack(&lens, seq_len, 0, 0), rollouts }
    }

    /// Tokens of all answers.
    pub(super) fn n_tokens(&self) -> usize {
        self.rollouts.iter().map(Rollout::n_answer).sum()
    }

    fn rows(&self, first: usize, n_rows: usize) -> RowBatch {
        let part = first..(first + n_rows).min(self.packed.rows.len());
        RowBatch::new(&self.packed, part, n_rows, |i| &self.rollouts[i].item)
    }

    /// Rows in pieces of `n_rows`, each with its rollouts and the row that predicts the first token of their answers.
    pub(super) fn micro_batches(
        &self,
        n_rows: usize,
    ) -> impl Iterator<Item = (RowBatch, Vec<(&Rollout, usize)>)> {
        (0..self.packed.rows.len()).step_by(n_rows).map(move |first| {
            let rows = self.rows(first, n_rows);
            let place = |&(i, place): &(usize, usize)| {
                let rollout = &self.rollouts[i];
                (rollout, place + rollout.n_prompt - 1)
            };
            let items = rows.items.iter().map(place).collect();
            (rows, items)
        })
    }

    /// Log-probabilities and values of all answers' tokens by some weights.
    pub(super) fn observe(
        &mut self,
        pass: &mut Pass,
        cpu: &Cpu,
        weights: &[f32],
        n_rows: usize,
        keep: impl Fn(&mut Rollout, Vec<f64>, Vec<f64>),
    ) {
        for first in (0..self.packed.rows.len()).step_by(n_rows) {
            let rows = self.rows(first, n_rows);
            let losses = pass.losses(cpu, weights, rows.view()).to_vec();
            let values = pass.scores(cpu, weights, None);
            for &(i, place) in &rows.items {
                let rollout = &mut self.rollouts[i];
                let tokens = place + rollout.n_prompt - 1..place + rollout.item.ids.len() - 1;
                let logprobs =
                    losses[tokens.clone()].iter().map(|&loss| -f64::from(loss)).collect();
                let values = values[tokens].iter().map(|&value| f64::from(value)).collect();
                keep(rollout, logprobs, values);
            }
        }
    }
}

/// Advantages, whitened over all tokens of the batch, and returns; the mean KL divergence of an answer.
pub(super) fn advantages(groups: &mut [Group<'_>], kl_coef: f64, gamma: f64, lambda: f64) -> f64 {
    let (mut kl, mut n) = (0.0, 0.0);
    let mut all = Vec::new();
    for rollout in groups.iter_mut().flat_map(|group| group.rollouts.iter_mut()) {
        let mut rewards = vec![0.0; rollout.n_answer()];
        let (policy, reference) = (&rollout.logprobs_old, &rollout.logprobs_ref);
        token_rewards(&mut rewards, policy, reference, kl_coef, rollout.score);
        rollout.advantages = vec![0.0; rewards.len()];
        rollout.returns = vec![0.0; rewards.len()];
        let (advantages, returns) = (&mut rollout.advantages, &mut rollout.returns);
        gae(advantages, returns, &rewards, &rollout.values_old, gamma, lambda);
        all.extend_from_slice(advantages);
        kl += rollout.kl();
        n += 1.0;
    }
    whiten(&mut all);
    let mut rest = &all[..];
    for rollout in groups.iter_mut().flat_map(|group| group.rollouts.iter_mut()) {
        let (own, others) = rest.split_at(rollout.advantages.len());
        rollout.advantages.copy_from_slice(own);
        rest = others;
    }
    kl / n
}

/// Refuses rewards most of which lie so far out that they are cut to one value, from which nothing can be learned.
pub(super) fn check(scores: &[f64]) -> Result<(), RecipeError> {
    let n = scores.iter().filter(|&&score| logit(score).abs() >= LOGIT_LIMIT).count();
    if 2 * n <= scores.len() {
        return Ok(());
    }
    Err(RecipeError::Check(format!(
        "{n} of {} rewards have logits beyond ±{LOGIT_LIMIT:.1}, where all are alike: expected reward models whose rewards lie \
         around 0, as puna reward train makes them with center_weight",
        scores.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_that_are_all_alike_are_refused() {
        let far = [1e-9, 1e-8, 0.5, 0.9];
        assert!(check(&far).is_ok(), "half of them are of use");
        assert!(check(&[0.0, 1.0]).is_err());
        let error = check(&far[..3]).unwrap_err().to_string();
        assert!(error.starts_with("2 of 3 rewards") && error.contains("center_weight"), "{error}");
    }
}
