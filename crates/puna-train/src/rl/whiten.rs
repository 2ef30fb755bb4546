//! Whitening: mean 0 and variance 1.

/// Added to a variance, so that equal values become zeros.
const EPS: f64 = 1e-8;

/// Mean and variance before whitening.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// `Σ x / n`.
    pub mean: f64,
    /// `Σ (x − mean)² / n`.
    pub variance: f64,
}

/// Gives a batch mean 0 and variance 1: `(x − mean) / √(variance + 10⁻⁸)`, and returns what they were.
///
/// The paper whitens rewards (arXiv 2307.09288, section 3.2.3) and does not say over what. Here it is the batch at
/// hand, so that a step is a function of its own samples. Equal values become zeros; no values stay none.
pub fn whiten(values: &mut [f64]) -> Moments {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let scale = 1.0 / (variance + EPS).sqrt();
    values.iter_mut().for_each(|x| *x = (*x - mean) * scale);
    Moments { mean, variance }
}
