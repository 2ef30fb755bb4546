//! Rotation frequencies as a checkpoint states them.

use std::f64::consts::PI;

use puna_core::{ModelConfig, RopeScaling};
use puna_kernels::RopeTable;

/// The rotations of positions below `ctx`.
pub(crate) fn table(config: &ModelConfig, ctx: usize) -> RopeTable {
    RopeTable::new(&frequencies(config, ctx), ctx, magnitude(config))
}

/// Rotation of each pair of a head per position, in radians, `[H / 2]`: `theta^(-2i/H)`, stretched as the
/// configuration says. `ctx` is the context length the model is opened with; it matters for NTK scaling only.
///
/// Sources: arXiv 2104.09864 (RoPE), arXiv 2306.15595 (linear), Hugging Face's `dynamic` rule (NTK),
/// arXiv 2309.00071 sections 3.2 and 3.3 (YaRN).
pub fn frequencies(config: &ModelConfig, ctx: usize) -> Vec<f64> {
    let head_dim = config.head_dim as f64;
    let theta = f64::from(config.rope.theta);
    let geometric = |base: f64| -> Vec<f64> {
        (0..config.head_dim / 2).map(|i| base.powf(-2.0 * i as f64 / head_dim)).collect()
    };
    match config.rope.scaling {
        RopeScaling::None => geometric(theta),
        RopeScaling::Linear { factor } => {
            geometric(theta).iter().map(|f| f / f64::from(factor)).collect()
        }
        RopeScaling::Ntk { factor, original_max_seq_len } => {
            // A head of one pair turns at frequency 1 whatever the base.
            if config.head_dim == 2 {
                return vec![1.0];
            }
            let factor = f64::from(factor);
            let stretch = ctx.max(original_max_seq_len) as f64 / original_max_seq_len as f64;
            let exponent = head_dim / (head_dim - 2.0);
            geometric(theta * (factor * stretch - (factor - 1.0)).powf(exponent))
        }
        RopeScaling::Yarn { factor, original_max_seq_len, beta_fast, beta_slow, .. } => {
            // The pair that turns `rotations` times over the original context.
            let pair = |rotations: f32| {
                let wavelength = original_max_seq_len as f64 / (f64::from(rotations) * 2.0 * PI);
                head_dim * wavelength.ln() / (2.0 * theta.ln())
            };
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(head_dim - 1.0);
            let width = (high - low).max(0.001);
            let interpolate = |(i, f): (usize, &f64)| {
                let ramp = ((i as f64 - low) / width).clamp(0.0, 1.0);
                f / f64::from(factor) * ramp + f * (1.0 - ramp)
            };
            geometric(theta).iter().enumerate().map(interpolate).collect()
        }
    }
}

/// The factor on both sines and cosines: 1 but for YaRN (arXiv 2309.00071, section 3.4, equation 22).
pub fn magnitude(config: &ModelConfig) -> f32 {
    match config.rope.scaling {
        RopeScaling::Yarn { factor, attn_factor, .. } => {
            attn_factor.unwrap_or_else(|| if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 })
        }
        _ => 1.0,
    }
}
