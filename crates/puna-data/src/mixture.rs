//! Which source a training sequence is drawn from: a plan that never strays from the weights by a whole sequence.
//!
//! The chairman assignment problem: in every term one of several states provides the chairman, and at any time each
//! shall have done so as often as its share says, give or take less than one. Tijdeman ("The chairman assignment
//! problem", 1980) gives a rule that errs by at most 1 − 1/(2m − 2) among m states: of those who are due, the one whose
//! turn comes to an end first. With whole weights the plan repeats itself after as many terms as there are shares, so one
//! period is kept and any term is looked up.

/// The plan of one period.
#[derive(Debug)]
pub(crate) struct Mixture {
    weights: Vec<u64>,
    /// Of each term: whose it is, and how many of its own came before in the period.
    terms: Vec<(u16, u32)>,
}

impl Mixture {
    /// `weights`: each at least 1, at most 2¹⁶ of them, together at most a million.
    pub(crate) fn new(weights: &[u64]) -> Self {
        // Weights of 20 and 10 are those of 2 and 1.
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        let weights: Vec<u64> = weights.iter().map(|weight| weight / divisor).collect();
        let total: u64 = weights.iter().sum();
        let mut counts = vec![0u64; weights.len()];
        let mut terms = Vec::with_capacity(total as usize);
        for term in 1..=total {
            let due = next(&weights, &counts, term, total);
            terms.push((due as u16, counts[due] as u32));
            counts[due] += 1;
        }
        debug_assert_eq!(counts, weights);
        Self { weights, terms }
    }

    /// The source of the `index`-th sequence, and how many sequences of that source came before.
    pub(crate) fn at(&self, index: u64) -> (usize, u64) {
        let period = self.terms.len() as u64;
        let (source, before) = self.terms[(index % period) as usize];
        let source = usize::from(source);
        (source, index / period * self.weights[source] + u64::from(before))
    }
}

/// Tijdeman's rule for the term `term`, counted from 1.
fn next(weights: &[u64], counts: &[u64], term: u64, total: u64) -> usize {
    let n = weights.len();
    if n == 1 {
        return 0;
    }
    let slack = 2 * n as u128 - 2;
    let (term, total) = (u128::from(term), u128::from(total));
    let mut best: Option<(usize, u128)> = None;
    for (i, (&weight, &count)) in weights.iter().zip(counts).enumerate() {
        let (weight, count) = (u128::from(weight), u128::from(count));
        // Due: term · weight / total − count ≥ 1 / slack.
        if slack * (term * weight) < total + slack * total * count {
            continue;
        }
        // Its turn ends with the last term in which it is not behind by more than 1 − 1 / slack.
        let end = total * (slack * (count + 1) - 1) / (slack * weight);
        if best.is_none_or(|(_, first)| end < first) {
            best = Some((i, end));
        }
    }
    best.expect("somebody is due in every term").0
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_prefix_strays_by_a_whole_sequence(weights in prop::collection::vec(1u64..60, 1..9)) {
            let mixture = Mixture::new(&weights);
            let total: u64 = weights.iter().sum();
            let mut counts = vec![0u64; weights.len()];
            for index in 0..2 * total + 3 {
                let (source, before) = mixture.at(index);
                prop_assert_eq!(before, counts[source]);
                counts[source] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    // |count − (index + 1) · weight / total| < 1
                    let off = (count * total).abs_diff((index + 1) * weight);
                    prop_assert!(off < total, "{counts:?} after {} of {weights:?}", index + 1);
                }
            }
        }
    }

    #[test]
    fn any_term_is_looked_up() {
        let mixture = Mixture::new(&[20, 10]);
        let found: Vec<_> = (0..6).map(|i| mixture.at(i)).collect();
        assert_eq!(found, [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3)]);
        assert_eq!(mixture.at(3_000_000_000_000), (0, 2_000_000_000_000));
        let even = Mixture::new(&[1; 40]);
        assert_eq!(even.terms.len(), 40);
    }
}
