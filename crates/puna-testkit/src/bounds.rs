//! Error bounds for floating-point results, and assertions that use them.

/// Unit roundoff of f32, 2⁻²⁴: the largest relative error of one rounded operation.
pub const U_F32: f64 = 1.0 / (1u64 << 24) as f64;

/// `γₙ = n·u / (1 − n·u)`: the relative error that `n` successive rounded operations may add up to
/// (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1). `u` is the unit roundoff.
///
/// # Panics
/// When `n·u ≥ 1`, where the bound says nothing.
#[must_use]
pub fn gamma(n: usize, u: f64) -> f64 {
    let nu = n as f64 * u;
    assert!(nu < 1.0, "no bound for n = {n}, u = {u}");
    nu / (1.0 - nu)
}

/// The oracle: `Σ xᵢyᵢ` and `Σ |xᵢyᵢ|` by a plain f64 loop. Products of two f32 are exact in f64.
///
/// # Panics
/// When the lengths differ.
#[must_use]
pub fn dot_f64(x: &[f32], y: &[f32]) -> (f64, f64) {
    assert_eq!(x.len(), y.len(), "lengths of a dot product");
    x.iter().zip(y).fold((0.0, 0.0), |(sum, magnitude), (&a, &b)| {
        let product = f64::from(a) * f64::from(b);
        (sum + product, magnitude + product.abs())
    })
}

/// Asserts that `actual` is a dot product of `x` and `y` in f32 by some order of summation, with or
/// without fused multiply-add: `|actual − Σxᵢyᵢ| ≤ γₙ·Σ|xᵢyᵢ|`, plus half the smallest denormal for
/// each product that may underflow. When the oracle leaves f32's range, `actual` must not be finite.
///
/// # Panics
/// When the bound is broken, naming `what`, both values and the bound.
#[track_caller]
pub fn assert_dot_within(what: &str, actual: f32, x: &[f32], y: &[f32]) {
    let (expected, magnitude) = dot_f64(x, y);
    if expected.is_nan() {
        assert!(actual.is_nan(), "{what}: {actual}, expected a NaN");
        return;
    }
    if expected.abs() > f64::from(f32::MAX) {
        assert!(!actual.is_finite(), "{what}: {actual}, expected {expected}, beyond f32");
        return;
    }
    let underflow = x.len() as f64 * f64::from(f32::from_bits(1)) / 2.0;
    let bound = gamma(x.len(), U_F32) * magnitude + underflow;
    let error = (f64::from(actual) - expected).abs();
    assert!(error <= bound, "{what}: {actual}, expected {expected}, error {error:e} > {bound:e}");
}

/// Asserts `max|actual − expected| ≤ relative · max|expected|` over two arrays of equal length, as for
/// logits. A value that is not finite fails. Returns the error found, as a part of `max|expected|`.
///
/// # Panics
/// When lengths differ or the bound is broken, naming `what`, the worst place and both values there.
#[track_caller]
pub fn assert_within_peak(what: &str, actual: &[f32], expected: &[f32], relative: f32) -> f32 {
    assert_eq!(actual.len(), expected.len(), "{what}: lengths");
    let peak = expected.iter().fold(0f32, |peak, e| peak.max(e.abs()));
    let bound = relative * peak;
    let mut worst = (0, 0f32);
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (a - e).abs();
        assert!(error.is_finite(), "{what}: {a} at {i}, expected {e}");
        if error > worst.1 {
            worst = (i, error);
        }
    }
    let (i, error) = worst;
    assert!(
        error <= bound,
        "{what}: {} at {i}, expected {}, error {error:e} > {bound:e}",
        actual[i],
        expected[i]
    );
    error / peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_of_a_few_operations() {
        assert_eq!(gamma(0, U_F32), 0.0);
        assert_eq!(gamma(1, 0.25), 1.0 / 3.0);
        assert_eq!(gamma(2, 0.25), 1.0);
    }

    #[test]
    fn a_plain_f32_loop_is_within_the_bound() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.7).sin()).collect();
        let y: Vec<f32> = (0..1000).map(|i| (i as f32 * 1.3).cos()).collect();
        let sum = x.iter().zip(&y).fold(0f32, |sum, (a, b)| sum + a * b);
        assert_dot_within("plain loop", sum, &x, &y);
        assert_dot_within("empty", 0.0, &[], &[]);
        assert_dot_within("infinite", f32::INFINITY, &[f32::MAX], &[2.0]);
        assert_dot_within("not a number", f32::NAN, &[f32::INFINITY], &[0.0]);
    }

    #[test]
    #[should_panic(expected = "one ulp off")]
    fn a_single_product_must_be_rounded_correctly() {
        assert_dot_within("one ulp off", 2.000_000_5, &[2.0], &[1.0]);
    }

    #[test]
    #[should_panic(expected = "logits: 3 at 1")]
    fn the_worst_place_is_named() {
        assert_within_peak("logits", &[1.0, 3.0], &[1.0, 2.9], 1e-4);
    }

    #[test]
    #[should_panic(expected = "NaN at 0")]
    fn a_nan_is_never_within() {
        assert_within_peak("logits", &[f32::NAN], &[1.0], 1e-4);
    }
}
