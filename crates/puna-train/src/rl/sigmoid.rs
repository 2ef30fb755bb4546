//! The logistic function, exact at both ends.

/// `σ(x) = 1 / (1 + e⁻ˣ)`.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        return 1.0 / (1.0 + (-x).exp());
    }
    let e = x.exp();
    e / (1.0 + e)
}

/// `ln σ(x)`, which is about `x` far below zero and never overflows.
#[must_use]
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}
