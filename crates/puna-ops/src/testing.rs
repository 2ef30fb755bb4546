//! Helpers of this crate's tests.

use puna_core::Rng;
use puna_kernels::{Cpu, Isa};

/// Thread counts for which results must be the same bits.
pub(crate) const N_THREADS: [usize; 3] = [1, 2, 7];

/// One thread of every instruction set of this CPU.
pub(crate) fn cpus() -> Vec<Cpu> {
    Isa::available().into_iter().map(|isa| Cpu::with_isa(isa, 1).unwrap()).collect()
}

/// `n` floats in −1..1 from a seed.
pub(crate) fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, 0);
    (0..n).map(|_| (rng.next_f64() * 2.0 - 1.0) as f32).collect()
}

/// Asserts that two arrays hold the same bits.
#[track_caller]
pub(crate) fn assert_same_bits(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}: lengths");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{what}: {a} and {b} at {i}");
    }
}

/// Asserts that `result` is the same bits for any number of threads, on every instruction set.
#[track_caller]
pub(crate) fn assert_same_for_any_threads(result: impl Fn(&Cpu) -> Vec<f32>) {
    for isa in Isa::available() {
        let expected = result(&Cpu::with_isa(isa, 1).unwrap());
        for n_threads in N_THREADS {
            let found = result(&Cpu::with_isa(isa, n_threads).unwrap());
            assert_same_bits(&format!("{isa} on {n_threads} threads"), &found, &expected);
        }
    }
}

/// The gradient of `f` at `x` by central differences, in f64: with steps of 10⁻⁵, errors are near 10⁻¹⁰.
pub(crate) fn finite_differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let given = x[i];
            x[i] = given + STEP;
            let above = f(&x);
            x[i] = given - STEP;
            let below = f(&x);
            x[i] = given;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// Asserts that each element is within 10⁻⁵ of the largest.
#[track_caller]
pub(crate) fn assert_gradient(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    let peak = expected.iter().fold(0f64, |peak, e| peak.max(e.abs()));
    assert!(peak > 0.0, "{what}: a gradient of zeros shows nothing");
    for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs();
        assert!(error <= 1e-5 * peak, "{what}: {f} at {i}, expected {e}; the largest is {peak}");
    }
}
