//! Softmax and cross-entropy in one pass, with their gradient.

use puna_kernels::Cpu;
use puna_kernels::simd::{Op, Simd, exp};

use crate::max::max;

/// Losses of some tokens, and the gradient in place of their logits.
///
/// `logits` is `[T, V]`, `targets` and `scales` are `[T]`. `losses[t] = ln Σ_v e^logits[t,v] − logits[t, targets[t]]`, in
/// nats, and `logits[t,v]` becomes `scales[t]·(softmax(logits[t])[v] − [v = targets[t]])`. A token whose scale is zero is
/// masked: its loss and its gradient are zeros, whatever the logits are.
///
/// The exponentials of a row are summed `v` in lane `v mod L`, ascending, then lanes, halves first.
///
/// # Panics
/// When lengths do not fit, or a target is not below `V`.
pub fn cross_entropy(
    cpu: &Cpu,
    logits: &mut [f32],
    targets: &[u32],
    scales: &[f32],
    losses: &mut [f32],
) {
    let n_rows = targets.len();
    assert_eq!(scales.len(), n_rows, "cross_entropy: scales of the targets");
    assert_eq!(losses.len(), n_rows, "cross_entropy: losses of the targets");
    if n_rows == 0 {
        return;
    }
    let vocab_size = logits.len() / n_rows;
    assert_eq!(logits.len(), n_rows * vocab_size, "cross_entropy: whole rows of logits");
    let out_of_vocab = targets.iter().find(|&&target| target as usize >= vocab_size);
    assert_eq!(out_of_vocab, None, "cross_entropy: a target in a vocabulary of {vocab_size}");
    cpu.pool().run_zip([(logits, vocab_size), (losses, 1)], &|t, [logits, loss]| {
        loss[0] = match scales[t] {
            0.0 => {
                logits.fill(0.0);
                0.0
            }
            scale => cpu.dispatch(Row { logits, target: targets[t] as usize, scale }),
        };
    });
}

struct Row<'a> {
    logits: &'a mut [f32],
    target: usize,
    scale: f32,
}

impl Op for Row<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Self { logits, target, scale } = self;
        let of_target = logits[target];
        let max = max(s, logits);
        let shift = s.splat(-max);
        let mut sum = s.splat(0.0);
        for chunk in logits.chunks_mut(S::LANES) {
            let v = exp(s, s.add(s.load_partial(chunk), shift));
            s.store_partial(v, chunk);
            // Lanes that the last chunk lacks are zeros again.
            sum = s.add(sum, s.load_partial(chunk));
        }
        let sum = s.sum(sum);
        let factor = s.splat(scale / sum);
        for chunk in logits.chunks_mut(S::LANES) {
            s.store_partial(s.mul(s.load_partial(chunk), factor), chunk);
        }
        logits[target] -= scale;
        sum.ln() + (max - of_target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_gradient, assert_same_for_any_threads, cpus, finite_differences, random,
    };

    fn formula(logits: &[f64], targets: &[u32]) -> Vec<f64> {
        let rows = logits.chunks(logits.len() / targets.len());
        rows.zip(targets)
            .map(|(row, &t)| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[t as usize])
            .collect()
    }

    #[test]
    fn losses_and_gradients_equal_the_formula() {
        for cpu in cpus() {
            for vocab_size in [2, 7, 8, 33] {
                let targets = [0, 1, vocab_size as u32 - 1];
                let scales = [0.5, 2.0, 1.0];
                let given: Vec<f32> = random(1, 3 * vocab_size).iter().map(|v| v * 5.0).collect();
                let (mut logits, mut losses) = (given.clone(), [f32::NAN; 3]);
                cross_entropy(&cpu, &mut logits, &targets, &scales, &mut losses);
                let given: Vec<f64> = given.iter().map(|&v| f64::from(v)).collect();
                assert_gradient("losses", &losses, &formula(&given, &targets));
                let total = |logits: &[f64]| {
                    let losses = formula(logits, &targets);
                    losses.iter().zip(scales).map(|(l, s)| l * f64::from(s)).sum()
                };
                assert_gradient("gradient", &logits, &finite_differences(&given, total));
            }
        }
    }

    #[test]
    fn masked_tokens_give_zeros_and_far_logits_no_overflow() {
        for cpu in cpus() {
            let mut logits = [f32::NAN, 3.0, 1e30, -1e30];
            let mut losses = [f32::NAN; 2];
            cross_entropy(&cpu, &mut logits, &[0, 0], &[0.0, 1.0], &mut losses);
            assert_eq!((logits, losses), ([0.0; 4], [0.0; 2]), "{}", cpu.isa());
            cross_entropy(&cpu, &mut [1e30, -1e30], &[1], &[1.0], &mut losses[..1]);
            assert_eq!(losses[0], 2e30);
            cross_entropy(&cpu, &mut [f32::NAN, 1.0], &[1], &[1.0], &mut losses[..1]);
            assert!(losses[0].is_nan());
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (vocab_size, n_rows) = (101, 50);
        let targets: Vec<u32> = (0..n_rows).map(|t| t * 2).collect();
        assert_same_for_any_threads(|cpu| {
            let mut logits = random(1, vocab_size * n_rows as usize);
            let mut losses = vec![0.0; n_rows as usize];
            cross_entropy(cpu, &mut logits, &targets, &vec![0.1; n_rows as usize], &mut losses);
            [logits, losses].concat()
        });
    }

    #[test]
    #[should_panic(expected = "a target in a vocabulary of 2")]
    fn targets_beyond_the_vocabulary_are_refused() {
        cross_entropy(&cpus()[0], &mut [0.0; 2], &[2], &[1.0], &mut [0.0]);
    }
}
