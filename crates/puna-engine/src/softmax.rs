//! Exponentials and their sums, the same bits on every machine: no library function, no reordering.

/// `e^x` for `x <= 0`, within 2e-7 of its value; 0 below -87, where `f32` would become subnormal.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; then `2^n` times the Taylor polynomial of degree 7 of `e^r`, whose
/// remainder is under 6e-9. Plain arithmetic without branches, so that loops over it use vector registers.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// ln 2 in two parts, the first short enough that its product with `n` is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding 1.5 · 2²³ leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut poly = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        poly = poly * r + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let result = poly * f32::from_bits(exponent << 23);
    if x < -87.0 { 0.0 } else { result }
}

/// Writes `exp((x - max) / temperature)` for each logit `x`: probabilities but for a common factor, 1 for the
/// largest. `max` is finite and no logit exceeds it; `temperature > 0`.
pub(crate) fn weights(logits: &[f32], max: f32, temperature: f32, out: &mut Vec<f32>) {
    out.clear();
    out.extend(logits.iter().map(|&x| weight(x, max, temperature)));
}

/// One of [`weights`].
#[inline(always)]
pub(crate) fn weight(x: f32, max: f32, temperature: f32) -> f32 {
    exp((x - max) / temperature)
}

/// Sum in `f64`: lane `j` of eight adds the elements `j, j + 8, ...` in order, then the lanes are added in order.
pub(crate) fn sum(weights: &[f32]) -> f64 {
    let mut lanes = [0.0; 8];
    let (chunks, rest) = weights.as_chunks::<8>();
    for chunk in chunks {
        for (lane, &w) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(w);
        }
    }
    for (lane, &w) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(w);
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_on_its_range() {
        let mut worst: f64 = 0.0;
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / exact - 1.0).abs());
        }
        assert!(worst < 2e-7, "relative error {worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!([exp(-87.1), exp(-1e30), exp(f32::NEG_INFINITY)], [0.0; 3]);
    }

    #[test]
    fn weights_are_relative_to_the_largest() {
        let mut out = Vec::new();
        weights(&[1.0, 3.0, f32::NEG_INFINITY, 2.0], 3.0, 0.5, &mut out);
        for (found, exact) in out.iter().zip([(-4.0f64).exp(), 1.0, 0.0, (-2.0f64).exp()]) {
            assert!((f64::from(*found) - exact).abs() <= 2e-7 * exact, "{found} {exact}");
        }
        // The smallest temperature there is must not make 0 / 0.
        weights(&[3.0, 1.0], 3.0, f32::from_bits(1), &mut out);
        assert_eq!(out, [1.0, 0.0]);
    }

    #[test]
    fn sum_takes_every_element() {
        for n in [0u32, 1, 7, 8, 9, 31] {
            let all: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(sum(&all), f64::from(n * (n + 1) / 2), "{n}");
        }
    }
}
