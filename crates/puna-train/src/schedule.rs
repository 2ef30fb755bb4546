//! The learning rate over time.

use std::f64::consts::PI;

/// Linear warm-up, then a cosine down to a part of the peak (arXiv 2307.09288, section 2.2: to 10 %).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The highest learning rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub n_warmup: u64,
    /// Steps in all, after which the rate stays at its lowest.
    pub n_steps: u64,
    /// The lowest rate, as a part of the peak.
    pub min_ratio: f64,
}

impl Schedule {
    /// The rate of a step; the first is 1. Warm-up reaches the peak at step `n_warmup`, the cosine its lowest at
    /// `n_steps`.
    #[must_use]
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.n_warmup {
            return self.peak * step as f64 / self.n_warmup as f64;
        }
        let n = self.n_steps.saturating_sub(self.n_warmup).max(1);
        let progress = ((step - self.n_warmup) as f64 / n as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (PI * progress).cos());
        self.peak * (self.min_ratio + (1.0 - self.min_ratio) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_in_a_line_and_falls_in_a_cosine() {
        let schedule = Schedule { peak: 2.0, n_warmup: 10, n_steps: 110, min_ratio: 0.1 };
        let close = |step, expected: f64| {
            let lr = schedule.lr(step);
            assert!((lr - expected).abs() < 1e-12, "step {step}: {lr}, expected {expected}");
        };
        close(1, 0.2);
        close(5, 1.0);
        close(10, 2.0);
        close(60, 1.1);
        close(110, 0.2);
        close(500, 0.2);
    }

    #[test]
    fn it_may_lack_warm_up() {
        let schedule = Schedule { peak: 1.0, n_warmup: 0, n_steps: 1, min_ratio: 0.0 };
        assert_eq!(schedule.lr(1), 0.0);
        let constant = Schedule { peak: 1.0, n_warmup: 0, n_steps: 5, min_ratio: 1.0 };
        assert!((1..9).all(|step| constant.lr(step) == 1.0));
    }
}
