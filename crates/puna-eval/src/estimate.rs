//! Means and how sure they are.

/// A mean of `n` values with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// `Σ x / n`.
    pub mean: f64,
    /// `s / √n`, `s² = Σ (x − mean)² / (n − 1)`; zero for fewer than two values.
    pub error: f64,
}

impl Estimate {
    /// The estimate of these values, summed in their order.
    pub(crate) fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let n = values.clone().count();
        if n == 0 {
            return Self { mean: 0.0, error: 0.0 };
        }
        let mean = values.clone().sum::<f64>() / n as f64;
        let squares: f64 = values.map(|x| (x - mean) * (x - mean)).sum();
        let error = if n < 2 { 0.0 } else { (squares / (n - 1) as f64 / n as f64).sqrt() };
        Self { mean, error }
    }
}

/// The smallest value that is not exceeded by a share `q` of the values; `sorted` ascending, not empty.
pub(crate) fn percentile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let e = Estimate::of([1.0, 2.0, 3.0, 6.0].into_iter());
        // Deviations −2, −1, 0, 3: s² = 14 / 3.
        assert_eq!(e.mean, 3.0);
        assert!((e.error - (14.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-15);
        assert_eq!(Estimate::of([5.0].into_iter()), Estimate { mean: 5.0, error: 0.0 });
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((percentile(&sorted, 0.99), percentile(&sorted, 0.0)), (198.0, 1.0));
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }
}
