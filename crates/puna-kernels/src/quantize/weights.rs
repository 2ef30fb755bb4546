//! How much the error of each value counts.

use super::lanes::finite;

/// The weight of a value's squared error.
///
/// Without importance it is 1. With it, it is llama.cpp's: `importance·√(mean + x²)`, `importance` being the
/// column's and `mean` the mean of `x²` over the row. It is scaled so that the importance is 1 on average, and
/// no weight is less than a ten thousandth of that: a column that was never seen in use keeps its shape.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    importance: Option<&'a [f32]>,
    scale: f32,
    mean_square: f64,
}

impl<'a> Weights<'a> {
    const LEAST: f32 = 1e-4;

    /// Those of a matrix with columns of this importance. What is not finite or negative counts as 0; when
    /// nothing is left, there is no importance.
    pub(super) fn new(importance: Option<&'a [f32]>) -> Self {
        let mean = importance.map_or(0.0, |columns| {
            let sum: f64 = columns.iter().map(|&w| f64::from(finite(w).max(0.0))).sum();
            sum / columns.len() as f64
        });
        let scale = (1.0 / mean) as f32;
        let importance = importance.filter(|_| scale.is_finite());
        Self { importance, scale, mean_square: 0.0 }
    }

    /// Those of one row.
    ///
    /// Order of summation: value `i` is added, as f64, to the `i mod 8`-th of eight sums, and these in order.
    #[inline(always)]
    pub(super) fn of_row(self, values: &[f32]) -> Self {
        if self.importance.is_none() {
            return self;
        }
        let mut sums = [0.0f64; 8];
        for values in values.chunks(8) {
            for (sum, &x) in sums.iter_mut().zip(values) {
                let x = f64::from(finite(x));
                *sum += x * x;
            }
        }
        Self { mean_square: sums.iter().sum::<f64>() / values.len() as f64, ..self }
    }

    /// Those from column `first` on.
    #[inline(always)]
    pub(super) fn from(self, first: usize) -> Self {
        Self { importance: self.importance.map(|columns| &columns[first..]), ..self }
    }

    /// The importance of the columns, if it matters.
    #[inline(always)]
    pub(super) fn columns(self) -> Option<&'a [f32]> {
        self.importance
    }

    /// The mean of `x²` over the row when all `x` are multiplied by `factor`.
    #[inline(always)]
    pub(super) fn mean_square(self, factor: f32) -> f32 {
        (self.mean_square * f64::from(factor) * f64::from(factor)) as f32
    }

    /// The weight of `x`, in a column of this importance, where the mean of squares is `mean_square`.
    #[inline(always)]
    pub(super) fn of(self, importance: f32, mean_square: f32, x: f32) -> f32 {
        let importance = finite(importance).max(0.0) * self.scale;
        importance * (mean_square + x * x).sqrt() + Self::LEAST
    }
}
