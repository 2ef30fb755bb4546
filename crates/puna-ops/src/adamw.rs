//! The update of AdamW (arXiv 1711.05101), and the norm that gradients are clipped by.

use puna_kernels::Cpu;
use puna_kernels::simd::{Op, Simd};

/// Elements per task. The norm's sum depends on it.
const TASK_LEN: usize = 16 * 1024;

/// One update's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// What gradients are multiplied by first: less than 1 when they are clipped.
    pub grad_scale: f32,
    /// Updates made, this one included.
    pub step: u32,
}

impl AdamW {
    /// Updates weights and both means in place: with `g = grad_scale·grads`,
    ///
    /// `w ← w·(1 − lr·weight_decay)`, `m ← β₁·m + (1 − β₁)·g`, `v ← β₂·v + (1 − β₂)·g²`,
    /// `w ← w − lr/(1 − β₁ˢ) · m / (√v/√(1 − β₂ˢ) + eps)`, element by element, each operation rounded to f32.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn update(
        self,
        cpu: &Cpu,
        weights: &mut [f32],
        grads: &[f32],
        means: &mut [f32],
        squares: &mut [f32],
    ) {
        assert_eq!(grads.len(), weights.len(), "AdamW: gradients of the weights");
        let slices = [(weights, TASK_LEN), (means, TASK_LEN), (squares, TASK_LEN)];
        assert!(
            slices.iter().all(|(slice, _)| slice.len() == grads.len()),
            "AdamW: means of the weights"
        );
        cpu.pool().run_zip(slices, &|task, [w, m, v]| {
            let g = &grads[task * TASK_LEN..][..w.len()];
            cpu.dispatch(Update { numbers: self, w, g, m, v });
        });
    }
}

struct Update<'a> {
    numbers: AdamW,
    w: &'a mut [f32],
    g: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Op for Update<'_> {
    type Output = ();

    /// A plain loop: compilers put it into vectors well.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let AdamW { lr, beta1, beta2, eps, weight_decay, grad_scale, step } = self.numbers;
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(step as i32);
        let step_size = (f64::from(lr) / correction(beta1)) as f32;
        let root = correction(beta2).sqrt() as f32;
        let keep = (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32;
        let (rest1, rest2) = (1.0 - beta1, 1.0 - beta2);
        let moments = self.m.iter_mut().zip(self.v);
        for ((w, &g), (m, v)) in self.w.iter_mut().zip(self.g).zip(moments) {
            let g = g * grad_scale;
            *m = *m * beta1 + g * rest1;
            *v = *v * beta2 + g * g * rest2;
            *w = *w * keep - step_size * (*m / (v.sqrt() / root + eps));
        }
    }
}

/// `Σ x²` in f64, in a fixed order: stretches of 16,384 elements, in each the squares of element `i` by `i mod 8`; then
/// these, then stretches, in ascending order. A number that is not finite makes the sum so.
#[must_use]
pub fn sum_of_squares(cpu: &Cpu, x: &[f32]) -> f64 {
    let mut parts = vec![0.0; x.len().div_ceil(TASK_LEN)];
    cpu.pool().run_chunks(&mut parts, 1, &|task, part| {
        let x = &x[task * TASK_LEN..x.len().min((task + 1) * TASK_LEN)];
        part[0] = cpu.dispatch(Squares(x));
    });
    parts.iter().sum()
}

struct Squares<'a>(&'a [f32]);

impl Op for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let mut sums = [0.0; 8];
        for chunk in self.0.chunks(8) {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_gradient, assert_same_for_any_threads, cpus, random};

    const NUMBERS: AdamW = AdamW {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-5,
        weight_decay: 0.1,
        grad_scale: 0.5,
        step: 1,
    };

    #[test]
    fn updates_equal_the_formula() {
        for cpu in cpus() {
            let n = 37;
            let mut w = random(1, n);
            let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
            let mut exact: Vec<[f64; 3]> = w.iter().map(|&w| [f64::from(w), 0.0, 0.0]).collect();
            for step in 1..=3 {
                let g = random(u64::from(step) + 1, n);
                AdamW { step, ..NUMBERS }.update(&cpu, &mut w, &g, &mut m, &mut v);
                for ([w, m, v], g) in exact.iter_mut().zip(&g) {
                    let g = f64::from(*g) * 0.5;
                    *w *= 1.0 - 0.01 * 0.1;
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.95 * *v + 0.05 * g * g;
                    let (m, v) = (
                        *m / (1.0 - 0.9f64.powi(step as i32)),
                        *v / (1.0 - 0.95f64.powi(step as i32)),
                    );
                    *w -= 0.01 * m / (v.sqrt() + 1e-5);
                }
            }
            let expected: Vec<f64> = exact.iter().map(|[w, ..]| *w).collect();
            assert_gradient("weights", &w, &expected);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let n = 5 * TASK_LEN + 3;
        assert_same_for_any_threads(|cpu| {
            let (mut w, mut m, mut v) = (random(1, n), random(2, n), random(3, n));
            v.iter_mut().for_each(|v| *v = v.abs());
            NUMBERS.update(cpu, &mut w, &random(4, n), &mut m, &mut v);
            let norm = sum_of_squares(cpu, &w);
            w.push(norm as f32);
            [w, m, v].concat()
        });
    }

    #[test]
    fn the_norm_is_exact_and_shows_what_is_not_finite() {
        for cpu in cpus() {
            assert_eq!(sum_of_squares(&cpu, &[3.0; 20]), 180.0);
            assert_eq!(sum_of_squares(&cpu, &[]), 0.0);
            let mut x = vec![1.0; 2 * TASK_LEN];
            x[TASK_LEN + 5] = f32::NAN;
            assert!(sum_of_squares(&cpu, &x).is_nan());
        }
    }
}
