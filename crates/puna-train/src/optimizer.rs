//! AdamW with the state it keeps, weight decay on matrices alone, and clipping.

use std::ops::Range;

use puna_kernels::Cpu;
use puna_ops::{AdamW, sum_of_squares};

/// Numbers that stay the same for all of training. [`Default`] is the paper's (arXiv 2307.09288, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decoupled decay of matrices; norms have none.
    pub weight_decay: f32,
    /// The longest that the gradient of all weights together may be.
    pub clip: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-5, weight_decay: 0.1, clip: 1.0 }
    }
}

/// What AdamW remembers of past gradients, in the layout of the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// Means of gradients.
    pub means: Vec<f32>,
    /// Means of their squares.
    pub squares: Vec<f32>,
    /// Updates made.
    pub n_updates: u32,
}

impl Optimizer {
    /// Nothing remembered yet.
    #[must_use]
    pub fn new(n_weights: usize) -> Self {
        Self { means: vec![0.0; n_weights], squares: vec![0.0; n_weights], n_updates: 0 }
    }

    /// Updates the weights by the gradients of a complete batch, whose length `norm` [`grad_norm`] has measured. `parts`
    /// are ranges of them, and whether weights there decay; `lr` is the learning rate of each.
    #[expect(clippy::too_many_arguments, reason = "what is updated, by what, and how")]
    pub fn update(
        &mut self,
        cpu: &Cpu,
        parts: impl Iterator<Item = (Range<usize>, bool)>,
        config: &OptimizerConfig,
        lr: impl Fn(&Range<usize>) -> f64,
        weights: &mut [f32],
        grads: &[f32],
        norm: f64,
    ) {
        self.n_updates += 1;
        let grad_scale = if norm > config.clip { (config.clip / norm) as f32 } else { 1.0 };
        for (span, decays) in parts {
            let adamw = AdamW {
                lr: lr(&span) as f32,
                beta1: config.beta1,
                beta2: config.beta2,
                eps: config.eps,
                weight_decay: if decays { config.weight_decay } else { 0.0 },
                grad_scale,
                step: self.n_updates,
            };
            adamw.update(
                cpu,
                &mut weights[span.clone()],
                &grads[span.clone()],
                &mut self.means[span.clone()],
                &mut self.squares[span],
            );
        }
    }
}

/// The length of the gradient of all weights together; not finite if one of them is not.
#[must_use]
pub fn grad_norm(cpu: &Cpu, grads: &[f32]) -> f64 {
    sum_of_squares(cpu, grads).sqrt()
}
