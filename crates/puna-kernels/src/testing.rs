//! Helpers of this crate's tests.

use puna_core::Rng;

use crate::Cpu;
use crate::isa::{Isa, Token};

/// Thread counts for which results must be the same bits.
pub(crate) const N_THREADS: [usize; 3] = [1, 2, 7];

/// A token of every instruction set of this CPU.
pub(crate) fn tokens() -> Vec<Token> {
    Isa::available().into_iter().filter_map(Token::detect).collect()
}

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
