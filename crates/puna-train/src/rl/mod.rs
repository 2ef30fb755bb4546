//! The formulas of alignment, one a file: losses with their derivatives, rewards, advantages, choice among samples.
//!
//! Pure functions over numbers and slices, in f64, sums from the first element to the last. Forward and backward are
//! one function: what it returns has the loss and its derivatives by the inputs that a network computes. Where the
//! paper ("Llama 2", arXiv 2307.09288) leaves something open, the item says what was chosen.

mod dpo_loss;
mod gae;
mod ppo_loss;
mod rejection;
mod reward_loss;
mod rewards;
mod sigmoid;
mod whiten;

pub use dpo_loss::{DpoLoss, dpo_loss};
pub use gae::gae;
pub use ppo_loss::{Clipped, entropy, policy_loss, value_loss};
pub use rejection::{best_of, max_and_median};
pub use reward_loss::{Margins, PairLabels, PairLoss, RewardLoss, STRENGTHS, safety_loss};
pub use rewards::{
    LOGIT_LIMIT, SAFETY_THRESHOLD, combined, kl_k1, kl_k3, logit, safety_decides, token_rewards,
};
pub use sigmoid::{log_sigmoid, sigmoid};
pub use whiten::{Moments, whiten};
