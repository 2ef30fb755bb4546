//! Log-probabilities of the model's own distribution.

use crate::Logprobs;
use crate::select::largest;
use crate::softmax::{sum, weights};

/// `ln softmax(logits)` of the token `chosen` and of the `n` most probable ones. The logits hold no NaN and no plus
/// infinity; `max` is the largest of them and finite. `buffer` is scratch.
pub(crate) fn logprobs(
    logits: &[f32],
    max: f32,
    chosen: u32,
    n: usize,
    buffer: &mut Vec<f32>,
) -> Logprobs {
    weights(logits, max, 1.0, buffer);
    let log_sum = sum(buffer).ln();
    let logprob = |logit: f32| (f64::from(logit) - f64::from(max) - log_sum) as f32;
    let top = largest(logits, max, n).into_iter().map(|(id, x)| (id, logprob(x))).collect();
    Logprobs { chosen: logprob(logits[chosen as usize]), top }
}

#[cfg(test)]
mod tests {
    use super::*;
    use puna_core::Rng;

    #[test]
    fn equals_log_softmax_in_f64() {
        let mut rng = Rng::new(11, 0);
        let mut logits: Vec<f32> = (0..1000).map(|_| (rng.next_normal() * 4.0) as f32).collect();
        logits[17] = f32::NEG_INFINITY;
        let exact_sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let exact = |id: u32| f64::from(logits[id as usize]) - exact_sum.ln();
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);

        let found = logprobs(&logits, max, 5, 20, &mut Vec::new());
        assert!((f64::from(found.chosen) - exact(5)).abs() < 2e-6);
        assert_eq!(found.top.len(), 20);
        assert_eq!(logits[found.top[0].0 as usize], max);
        assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1));
        for &(id, logprob) in &found.top {
            assert!((f64::from(logprob) - exact(id)).abs() < 2e-6, "token {id}");
        }
        assert_eq!(logprobs(&logits, max, 5, 0, &mut Vec::new()).top, []);
        assert_eq!(logprobs(&logits, max, 17, 2000, &mut Vec::new()).top.len(), 999);
    }
}
