//! Generalised advantage estimation.

/// How much better each token of an answer turned out than its value said (Schulman and others, arXiv 1506.02438,
/// equation 16):
///
/// `δ[t] = rewards[t] + gamma · values[t + 1] − values[t]`, `A[t] = δ[t] + gamma · lambda · A[t + 1]`, and the target
/// of the value head is `returns[t] = A[t] + values[t]`.
///
/// All slices are `[T]`; `values[t]` is that of the tokens before token `t`. After the last token the value is 0, also
/// where an answer was cut for its length: its reward is for what is there. The paper tells neither `gamma` nor
/// `lambda`; usual are 1, so that the score counts alike for all tokens, and 0.95.
///
/// # Panics
/// Slices of different lengths.
pub fn gae(
    advantages: &mut [f64],
    returns: &mut [f64],
    rewards: &[f64],
    values: &[f64],
    gamma: f64,
    lambda: f64,
) {
    let n = rewards.len();
    let lengths = (advantages.len(), returns.len(), values.len());
    assert_eq!(lengths, (n, n, n), "advantages, returns and values for each of {n} rewards");
    let (mut advantage, mut value_after) = (0.0, 0.0);
    for t in (0..n).rev() {
        let error = rewards[t] + gamma * value_after - values[t];
        advantage = error + gamma * lambda * advantage;
        advantages[t] = advantage;
        returns[t] = advantage + values[t];
        value_after = values[t];
    }
}
