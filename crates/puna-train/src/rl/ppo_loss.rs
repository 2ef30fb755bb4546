//! The clipped objectives of PPO, a token at a time.

/// A clipped loss of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipped {
    /// The loss.
    pub loss: f64,
    /// Its derivative by the logprob or value that the network computes now.
    pub derivative: f64,
    /// Whether the clipped branch is the one that counts, whose derivative is 0.
    pub is_clipped: bool,
}

/// `−min(r · A, clamp(r, 1 − clip_range, 1 + clip_range) · A)` with `r = e^(logprob − logprobs_old)` (Schulman and
/// others, arXiv 1707.06347, equation 7; `clip_range` 0.2 in arXiv 2307.09288, section 3.2.3).
///
/// Where nothing has changed since the token was drawn, `r` is exactly 1 and the loss exactly `−advantage`.
#[must_use]
pub fn policy_loss(logprob: f64, logprob_old: f64, advantage: f64, clip_range: f64) -> Clipped {
    let ratio = (logprob - logprob_old).exp();
    let free = -ratio * advantage;
    let held = -ratio.clamp(1.0 - clip_range, 1.0 + clip_range) * advantage;
    let is_clipped = held > free;
    Clipped {
        loss: if is_clipped { held } else { free },
        derivative: if is_clipped { 0.0 } else { free },
        is_clipped,
    }
}

/// `½ max((v − R)², (v_clipped − R)²)` with `v_clipped = value_old + clamp(value − value_old, ±clip_range)`.
///
/// The paper says nothing of its critic; this is the loss of the program that PPO was published with (openai/baselines,
/// `ppo2`), which keeps the value near the one that its advantages were computed with. An infinite `clip_range` leaves
/// the plain square.
#[must_use]
pub fn value_loss(value: f64, value_old: f64, target: f64, clip_range: f64) -> Clipped {
    let free = value - target;
    let held = value_old + (value - value_old).clamp(-clip_range, clip_range) - target;
    let is_clipped = held * held > free * free;
    Clipped {
        loss: 0.5 * if is_clipped { held * held } else { free * free },
        derivative: if is_clipped { 0.0 } else { free },
        is_clipped,
    }
}

/// The entropy of a distribution over tokens in nats: `ln Z − Σ p · logit`, with `p = e^logit / Z`. For reports: the
/// paper's objective has no such term. Logits of −∞ have probability 0.
///
/// # Panics
/// No logits.
#[must_use]
pub fn entropy(logits: &[f32]) -> f64 {
    assert!(!logits.is_empty(), "a distribution over no token");
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for shifted in logits.iter().map(|&logit| f64::from(logit) - f64::from(max)) {
        let weight = shifted.exp();
        sum += weight;
        if weight > 0.0 {
            weighted += weight * shifted;
        }
    }
    sum.ln() - weighted / sum
}
