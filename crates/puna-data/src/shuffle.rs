//! A shuffle without memory: a keyed bijection of `0..n`.
//!
//! A Feistel network (Luby and Rackoff, 1988) permutes the numbers of an even number of bits that hold `n`. A result
//! of `n` or more is put in again until one falls below ("cycle walking": Black and Rogaway, "Ciphers with arbitrary
//! finite domains", 2002), which leaves a bijection of `0..n`, after fewer than four steps on average.

use puna_core::Rng;

/// Rounds: enough that neighbours land anywhere.
const N_ROUNDS: u64 = 6;

/// A bijection of `0..n`, chosen by a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shuffle {
    n: u64,
    key: u64,
    half_bits: u32,
}

impl Shuffle {
    /// `n`: at least 1, at most 2⁶².
    pub(crate) fn new(n: u64, key: u64) -> Self {
        debug_assert!((1..=1 << 62).contains(&n));
        let bits = u64::BITS - (n - 1).leading_zeros();
        Self { n, key, half_bits: bits.div_ceil(2).max(1) }
    }

    /// Where `i`, below `n`, goes.
    pub(crate) fn at(&self, i: u64) -> u64 {
        debug_assert!(i < self.n);
        let mut i = self.permute(i);
        while i >= self.n {
            i = self.permute(i);
        }
        i
    }

    fn permute(&self, i: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (i >> self.half_bits, i & mask);
        for round in 0..N_ROUNDS {
            let noise = Rng::new(self.key, round << 32 | right).next_u32();
            (left, right) = (right, left ^ (u64::from(noise) & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_bijection(n in 1u64..3000, key: u64) {
            let shuffle = Shuffle::new(n, key);
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                let to = shuffle.at(i) as usize;
                prop_assert!(!std::mem::replace(&mut seen[to], true), "{} is hit twice", to);
            }
        }

        #[test]
        fn stays_inside_large_ranges(n in 1u64..=1 << 62, key: u64, i: u64) {
            prop_assert!(Shuffle::new(n, key).at(i % n) < n);
        }
    }

    #[test]
    fn neighbours_go_apart_and_keys_differ() {
        let n = 1000;
        let orders: Vec<Vec<u64>> =
            (0..2).map(|key| (0..n).map(|i| Shuffle::new(n, key).at(i)).collect()).collect();
        let same = orders[0].iter().zip(&orders[1]).filter(|(a, b)| a == b).count();
        assert!(same < 10, "{same} of {n} numbers go to the same place under two keys");
        // The mean distance of two independent numbers below n is n / 3.
        let steps = orders[0].windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        let mean = steps.sum::<u64>() as f64 / (n - 1) as f64;
        assert!((300.0..366.0).contains(&mean), "mean distance {mean}");
    }
}
