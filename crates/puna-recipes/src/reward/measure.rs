//! How good a reward model is on held-out pairs.

use puna_data::chat::SafetyLabel;
use puna_train::rl::{log_sigmoid, sigmoid};

/// A pair with its scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scored {
    pub chosen: f64,
    pub rejected: f64,
    pub strength: Option<u8>,
    pub safety: Option<SafetyLabel>,
}

/// Bins of confidence that calibration is measured in.
const N_BINS: usize = 10;

/// Accuracy over all pairs and by strength, the mean loss without margins, the expected calibration error of
/// `σ(chosen − rejected)` (arXiv 1706.04599, equation 3, ten bins), and for labelled answers the accuracy and the
/// recall of unsafe ones at a threshold of 0.5 (as in the paper's table 29).
pub(super) fn metrics(scored: &[Scored]) -> Vec<(String, f64)> {
    if scored.is_empty() {
        return Vec::new();
    }
    let mut metrics = vec![
        ("held_out_accuracy".to_owned(), accuracy(scored.iter())),
        (
            "held_out_loss".to_owned(),
            mean(scored.iter().map(|s| -log_sigmoid(s.chosen - s.rejected))),
        ),
        ("calibration_error".to_owned(), calibration_error(scored)),
    ];
    for (strength, name) in ["negligibly", "slightly", "better", "significantly"].iter().enumerate()
    {
        let of_strength = || scored.iter().filter(|s| s.strength == Some(strength as u8));
        if of_strength().next().is_some() {
            metrics.push((format!("accuracy_{name}"), accuracy(of_strength())));
        }
    }
    let labelled: Vec<(f64, bool)> = scored.iter().flat_map(labels).collect();
    if !labelled.is_empty() {
        let right =
            labelled.iter().map(|&(score, is_safe)| f64::from(u8::from((score > 0.0) == is_safe)));
        metrics.push(("safety_accuracy".to_owned(), mean(right)));
        let unsafe_ones: Vec<f64> =
            labelled.iter().filter(|l| !l.1).map(|l| f64::from(u8::from(l.0 <= 0.0))).collect();
        if !unsafe_ones.is_empty() {
            metrics.push(("unsafe_recall".to_owned(), mean(unsafe_ones.into_iter())));
        }
    }
    metrics
}

/// Both answers' scores, with whether they are safe where that is known.
fn labels(s: &Scored) -> Vec<(f64, bool)> {
    let of =
        |label: SafetyLabel| [(s.chosen, label.chosen_safe()), (s.rejected, label.rejected_safe())];
    s.safety.into_iter().flat_map(of).collect()
}

/// The part of pairs whose chosen answer has the higher score; equal scores count half.
fn accuracy<'a>(scored: impl Iterator<Item = &'a Scored>) -> f64 {
    mean(scored.map(|s| match s.chosen.total_cmp(&s.rejected) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    }))
}

/// How far confidence is from accuracy: in bins of the confidence in whichever answer has the higher score.
fn calibration_error(scored: &[Scored]) -> f64 {
    let mut bins = [(0.0, 0.0); N_BINS];
    for s in scored {
        let confidence = sigmoid((s.chosen - s.rejected).abs());
        // From 0.5 to 1.
        let bin = (((confidence - 0.5) * 2.0 * N_BINS as f64) as usize).min(N_BINS - 1);
        bins[bin].0 += confidence;
        bins[bin].1 += f64::from(u8::from(s.chosen > s.rejected));
    }
    bins.iter().map(|(confidence, right)| (confidence - right).abs()).sum::<f64>()
        / scored.len() as f64
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
    sum / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_their_definitions() {
        let of = |chosen, rejected, strength, safety| Scored { chosen, rejected, strength, safety };
        let scored = [
            of(2.0, 1.0, Some(3), Some(SafetyLabel::ChosenSafe)),
            of(-1.0, -2.0, Some(3), Some(SafetyLabel::BothUnsafe)),
            of(0.5, 1.5, Some(0), None),
            of(1.0, 1.0, None, Some(SafetyLabel::BothSafe)),
        ];
        let found: std::collections::BTreeMap<_, _> = metrics(&scored).into_iter().collect();
        let close = |name: &str, expected: f64| {
            assert!(
                (found[name] - expected).abs() < 1e-12,
                "{name}: {}, expected {expected}",
                found[name]
            );
        };
        close("held_out_accuracy", 0.625);
        close("accuracy_significantly", 1.0);
        close("accuracy_negligibly", 0.0);
        // Of six labelled answers, the rejected unsafe one has a score above 0.
        close("safety_accuracy", 5.0 / 6.0);
        close("unsafe_recall", 2.0 / 3.0);
        // Three confidences of σ(1), of which two are right, and one of a half that is not.
        close("calibration_error", ((3.0 * sigmoid(1.0) - 2.0) + 0.5) / 4.0);
    }
}
