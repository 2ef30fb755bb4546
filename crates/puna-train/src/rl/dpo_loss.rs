//! Direct preference optimisation: a policy from pairs without a reward model.

use super::sigmoid::{log_sigmoid, sigmoid};

/// The loss of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpoLoss {
    /// The loss.
    pub loss: f64,
    /// Its derivative by the policy's logprob of the chosen answer; by that of the rejected one it is the negative.
    pub d_chosen: f64,
    /// `beta · (chosen − chosen_ref)`, the reward that the policy implies for the chosen answer.
    pub reward_chosen: f64,
    /// The same of the rejected one.
    pub reward_rejected: f64,
}

/// `−ln σ(beta · ((chosen − chosen_ref) − (rejected − rejected_ref)))` (Rafailov and others, arXiv 2305.18290, equation
/// 7).
///
/// Logprobs are sums over an answer's tokens, by the policy and by the frozen reference. DPO is not in the paper.
#[must_use]
pub fn dpo_loss(
    chosen: f64,
    rejected: f64,
    chosen_ref: f64,
    rejected_ref: f64,
    beta: f64,
) -> DpoLoss {
    let reward_chosen = beta * (chosen - chosen_ref);
    let reward_rejected = beta * (rejected - rejected_ref);
    let difference = reward_chosen - reward_rejected;
    DpoLoss {
        loss: -log_sigmoid(difference),
        d_chosen: -beta * sigmoid(-difference),
        reward_chosen,
        reward_rejected,
    }
}
