//! The loss of a reward model: a ranking of two answers, and a safety loss beside it.

use super::sigmoid::{log_sigmoid, sigmoid};

/// What an annotator says of how much better the chosen answer is, by strength.
pub const STRENGTHS: [&str; 4] =
    ["negligibly better or unsure", "slightly better", "better", "significantly better"];

/// By how much a chosen answer's reward is to be the higher one (arXiv 2307.09288, section 3.2.2 and table 27).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Margins {
    /// 0 whatever the strength: labels without one need no more.
    #[default]
    None,
    /// 0, 1/3, 2/3, 1: the most accurate over all strengths in table 28.
    Small,
    /// 0, 1, 2, 3: more accurate on distinct pairs, less on similar ones.
    Large,
}

impl Margins {
    /// The margin of a pair of this strength, 0 to 3 as in [`STRENGTHS`].
    ///
    /// # Panics
    /// A strength above 3.
    #[must_use]
    pub fn of(self, strength: u8) -> f64 {
        assert!(strength <= 3, "a strength is 0 to 3, not {strength}");
        match self {
            Self::None => 0.0,
            Self::Small => f64::from(strength) / 3.0,
            Self::Large => f64::from(strength),
        }
    }
}

/// What is known of a pair beside which answer is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct PairLabels {
    /// From [`Margins::of`].
    pub margin: f64,
    /// Whether the chosen answer is safe, where somebody said so.
    pub chosen_safe: Option<bool>,
    /// Whether the rejected one is.
    pub rejected_safe: Option<bool>,
}

/// The loss of pairs, with its setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RewardLoss {
    /// Weight of the safety loss of each labelled answer. The paper uses such a loss for its safety model (A.3.4) and
    /// tells no weight; with 1 an answer's label counts as much as the comparison.
    pub safety_weight: f64,
    /// Weight of the square of both rewards' sum. A comparison says nothing of where rewards lie, and they drift; this
    /// keeps them around 0 (Eisenstein and others, arXiv 2312.09244, equation 2), as the sigmoid and thresholds of the
    /// paper need it.
    pub center_weight: f64,
}

/// The loss of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// Of ranking and safety together.
    pub loss: f64,
    /// Its derivative by the chosen answer's reward.
    pub d_chosen: f64,
    /// By the rejected one's.
    pub d_rejected: f64,
}

impl RewardLoss {
    /// `−ln σ(chosen − rejected − margin)`, [`safety_loss`] times its weight for each answer that has a label, and
    /// `center_weight · (chosen + rejected)²`.
    ///
    /// `chosen` and `rejected` are rewards as the regression head gives them. arXiv 2307.09288, equation 2; for a pair
    /// without labels equation 1.
    #[must_use]
    pub fn pair(&self, chosen: f64, rejected: f64, labels: &PairLabels) -> PairLoss {
        let difference = chosen - rejected - labels.margin;
        let (missing, sum) = (sigmoid(-difference), chosen + rejected);
        let d_center = 2.0 * self.center_weight * sum;
        let mut pair = PairLoss {
            loss: -log_sigmoid(difference) + self.center_weight * sum * sum,
            d_chosen: d_center - missing,
            d_rejected: d_center + missing,
        };
        for (reward, is_safe, d_reward) in [
            (chosen, labels.chosen_safe, &mut pair.d_chosen),
            (rejected, labels.rejected_safe, &mut pair.d_rejected),
        ] {
            let Some(is_safe) = is_safe else { continue };
            let (loss, derivative) = safety_loss(reward, is_safe);
            pair.loss += self.safety_weight * loss;
            *d_reward += self.safety_weight * derivative;
        }
        pair
    }
}

/// Binary cross-entropy of `σ(reward)` against safe (1) or unsafe (0), and its derivative by the reward.
///
/// The paper says that its safety model has an auxiliary loss which classifies answers, and no formula (A.3.4): this is
/// the one that makes 0.5 of the score its threshold, as there.
#[must_use]
pub fn safety_loss(reward: f64, is_safe: bool) -> (f64, f64) {
    let sign = if is_safe { 1.0 } else { -1.0 };
    (-log_sigmoid(sign * reward), -sign * sigmoid(-sign * reward))
}
