//! The updates of an iteration: clipped losses of policy and value head, and their gradients.

use puna_train::Pass;
use puna_train::rl::{policy_loss, value_loss};

use super::Ppo;
use super::rollout::Group;
use crate::RecipeError;
use crate::run::Learner;

/// Sums over the answers' tokens of an iteration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub n_tokens: f64,
    pub policy_loss: f64,
    pub value_loss: f64,
    pub n_clipped: f64,
    /// Over updates: the length of the gradient.
    pub norms: f64,
}

impl Ppo<'_> {
    /// Learns from each mini-batch once. What is wrong with one, if something is, ends it before its update.
    pub(super) fn update(
        &self,
        learner: &mut Learner<'_>,
        pass: &mut Pass,
        groups: &[Group<'_>],
    ) -> Result<Result<Sums, String>, RecipeError> {
        let mut sums = Sums::default();
        for (i, group) in groups.iter().enumerate() {
            self.group_grads(learner, pass, group, i == 0, &mut sums)?;
            let norm = learner.grad_norm();
            if !(norm.is_finite() && sums.policy_loss.is_finite() && sums.value_loss.is_finite()) {
                return Ok(Err(format!(
                    "mini-batch {}: losses {} and {}, length of the gradient {norm}: not finite",
                    i + 1,
                    sums.policy_loss,
                    sums.value_loss
                )));
            }
            learner.update(self.lr(), norm);
            sums.norms += norm;
        }
        Ok(Ok(sums))
    }

    /// Gradients of a mini-batch: the mean over its tokens of the policy's loss, and of the value's times its weight.
    fn group_grads(
        &self,
        learner: &mut Learner<'_>,
        pass: &mut Pass,
        group: &Group<'_>,
        is_first: bool,
        sums: &mut Sums,
    ) -> Result<(), RecipeError> {
        let c = &self.config;
        let n_tokens = group.n_tokens() as f64;
        sums.n_tokens += n_tokens;
        for (mut rows, items) in group.micro_batches(self.micro_batch) {
            let Learner { cpu, weights, grads, .. } = learner;
            let losses = pass.losses(cpu, weights, rows.view()).to_vec();
            let values = pass.scores(cpu, weights, None);
            let mut d_values = vec![0.0; values.len()];
            for (rollout, first) in items {
                for (t, &advantage) in rollout.advantages.iter().enumerate() {
                    let row = first + t;
                    let (logprob, old) = (-f64::from(losses[row]), rollout.logprobs_old[t]);
                    if is_first && logprob != old {
                        return Err(RecipeError::Check(format!(
                            "before the first update a token's log-probability is {logprob} and was {old}: please report this"
                        )));
                    }
                    let policy = policy_loss(logprob, old, advantage, c.clip_range);
                    let (value, value_old) = (f64::from(values[row]), rollout.values_old[t]);
                    let value = value_loss(value, value_old, rollout.returns[t], c.value_clip);
                    sums.policy_loss += policy.loss;
                    sums.value_loss += value.loss;
                    sums.n_clipped += f64::from(u8::from(policy.is_clipped));
                    // The loss of a token is the negative of its log-probability.
                    rows.scales[row] = (-policy.derivative / n_tokens) as f32;
                    d_values[row] = (c.value_coef * value.derivative / n_tokens) as f32;
                }
            }
            pass.add_grads(cpu, weights, rows.view(), Some(&d_values), grads);
        }
        Ok(())
    }
}
