//! From two reward models' scores to a reward for each token.

/// Below this score of the safety model an answer counts as unsafe (arXiv 2307.09288, section 3.2.3: chosen there for a
/// precision of 0.89 and a recall of 0.55).
pub const SAFETY_THRESHOLD: f64 = 0.15;

/// The largest [`logit`], either way: that of a score 10⁻⁶ from its end.
pub const LOGIT_LIMIT: f64 = 13.815509557963773;

/// Whether the safety model's score is the one that counts: for prompts that call for safety, and for answers below
/// `threshold` ([`SAFETY_THRESHOLD`]) whatever the prompt.
#[must_use]
pub fn safety_decides(is_safety_prompt: bool, safety: f64, threshold: f64) -> bool {
    is_safety_prompt || safety < threshold
}

/// `Rc = Rs if is_safety(prompt) or Rs < threshold else Rh` (arXiv 2307.09288, section 3.2.3). Scores are in `[0, 1]`,
/// the [`sigmoid`](super::sigmoid) of what a regression head gives.
#[must_use]
pub fn combined(safety: f64, helpfulness: f64, is_safety_prompt: bool, threshold: f64) -> f64 {
    if safety_decides(is_safety_prompt, safety, threshold) { safety } else { helpfulness }
}

/// `ln(p / (1 − p))` of a score in `[0, 1]`, kept within ±[`LOGIT_LIMIT`] so that a model that is certain gives a
/// finite reward. It undoes the sigmoid before the rewards of a batch are [whitened](super::whiten).
#[must_use]
pub fn logit(score: f64) -> f64 {
    (score.ln() - (-score).ln_1p()).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
}

/// The rewards of an answer's tokens: `−kl_coef · (logprobs[t] − logprobs_ref[t])`, and `score` on top for the last.
///
/// So the rewards add up to `score − kl_coef · KL`, equation 4 of arXiv 2307.09288 with the estimator [`kl_k1`], the
/// one whose derivative is that of the divergence. All slices are `[T]`: what policy and reference say of each token.
///
/// # Panics
/// No token, or slices of different lengths.
pub fn token_rewards(
    rewards: &mut [f64],
    logprobs: &[f64],
    logprobs_ref: &[f64],
    kl_coef: f64,
    score: f64,
) {
    let n = rewards.len();
    assert!(n > 0, "an answer has at least one token");
    assert_eq!((logprobs.len(), logprobs_ref.len()), (n, n), "a logprob for each token");
    for (reward, (&logprob, &logprob_ref)) in
        rewards.iter_mut().zip(logprobs.iter().zip(logprobs_ref))
    {
        *reward = -kl_coef * kl_k1(logprob, logprob_ref);
    }
    rewards[n - 1] += score;
}

/// `logprob − logprob_ref` of a token that the policy drew: its mean is `KL(policy ‖ reference)`.
#[must_use]
pub fn kl_k1(logprob: f64, logprob_ref: f64) -> f64 {
    logprob - logprob_ref
}

/// `r − 1 − ln r` with `r = p_ref / p`, for a token that the policy drew: the mean of [`kl_k1`], never negative, and
/// less scattered where the two are close (Schulman, "Approximating KL divergence", k3). For reports.
#[must_use]
pub fn kl_k3(logprob: f64, logprob_ref: f64) -> f64 {
    let log_ratio = logprob_ref - logprob;
    log_ratio.exp_m1() - log_ratio
}
