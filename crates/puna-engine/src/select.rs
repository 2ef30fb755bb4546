//! The largest of many values, without sorting them all.

use std::cmp::Ordering;

use crate::Failure;

/// A token and its logit or weight.
pub(crate) type Candidate = (u32, f32);

/// The largest logit and the lowest id that has it, in one pass (and a look back into the 256 values around it).
///
/// # Errors
/// If a logit is NaN or plus infinity, or all are minus infinity.
pub(crate) fn argmax(logits: &[f32]) -> Result<Candidate, Failure> {
    let (mut max, mut start) = (f32::NEG_INFINITY, 0);
    for (idx, block) in logits.chunks(BLOCK).enumerate() {
        let (block_max, bad) = block_max(block);
        if bad {
            let at = block.iter().position(|&x| is_bad(x)).expect("one of the block is bad");
            return Err(Failure::NotANumber { token: (idx * BLOCK + at) as u32 });
        }
        if block_max > max {
            (max, start) = (block_max, idx * BLOCK);
        }
    }
    if max == f32::NEG_INFINITY {
        return Err(Failure::AllForbidden);
    }
    let at = logits[start..].iter().position(|&x| x == max).expect("the block has its maximum");
    Ok(((start + at) as u32, max))
}

const BLOCK: usize = 256;

/// The largest value, and whether any is NaN or plus infinity; in lanes of their own, for vector registers.
fn block_max(block: &[f32]) -> (f32, bool) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let mut bad = [0; 16];
    let (chunks, rest) = block.as_chunks::<16>();
    for chunk in chunks {
        for j in 0..16 {
            lanes[j] = if chunk[j] > lanes[j] { chunk[j] } else { lanes[j] };
            bad[j] |= u32::from(is_bad(chunk[j]));
        }
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    (max, bad != [0; 16] || rest.iter().any(|&x| is_bad(x)))
}

#[inline(always)]
fn is_bad(x: f32) -> bool {
    x.is_nan() || x == f32::INFINITY
}

/// The `k` largest logits above minus infinity (fewer if there are fewer), in descending order, the lower id first
/// among equals. `max` is the largest.
///
/// The best few of 32,000 logits lie close to the maximum: a fast pass collects what is within a span of it, and
/// only these are compared with each other. The span widens until it holds enough.
pub(crate) fn largest(logits: &[f32], max: f32, k: usize) -> Vec<Candidate> {
    let mut found = Vec::new();
    for span in [8.0, 32.0, f32::INFINITY] {
        collect_above(logits, max - span, &mut found);
        if found.len() >= k {
            break;
        }
    }
    if k < found.len() {
        if k > 0 {
            found.select_nth_unstable_by(k - 1, descending);
        }
        found.truncate(k);
    }
    found.sort_unstable_by(descending);
    found
}

/// The fewest largest weights that sum to at least `target` (all positive ones, if they do not), the lower ids among
/// equals; at least one. Weights lie in `[0, 1]`, and one of them is 1.
///
/// Nothing is sorted but a few: weights are counted by size in buckets a quarter of a power of two wide, the
/// largest buckets that stay below `target` are taken whole, and only the next one is sorted. They
/// come out in that order: whole buckets by id, then the best of the last bucket.
pub(crate) fn nucleus(weights: &[f32], target: f64) -> Vec<Candidate> {
    let mut sums = [0.0; N_BUCKETS];
    for &weight in weights {
        sums[bucket(weight)] += f64::from(weight);
    }
    let (mut sum, mut last) = (0.0, N_BUCKETS - 1);
    while last > 0 && (sum + sums[last] < target || sums[last] == 0.0) {
        sum += sums[last];
        last -= 1;
    }
    let mut kept = Vec::new();
    let lower = f32::from_bits((last as u32) << BUCKET_SHIFT);
    collect_above(weights, lower.next_down().max(0.0), &mut kept);
    let mut edge: Vec<Candidate> =
        kept.extract_if(.., |&mut (_, weight)| bucket(weight) == last).collect();
    edge.sort_unstable_by(descending);
    cut(&mut edge, target - sum);
    kept.append(&mut edge);
    kept
}

/// Bits of a float's pattern within a bucket: sign, exponent and two bits of the fraction name the bucket.
const BUCKET_SHIFT: u32 = 21;
const N_BUCKETS: usize = (1.0f32.to_bits() >> BUCKET_SHIFT) as usize + 1;

/// Patterns of floats that are not negative ascend with their values.
#[inline(always)]
fn bucket(weight: f32) -> usize {
    (weight.to_bits() >> BUCKET_SHIFT) as usize
}

/// Keeps the shortest prefix that sums to at least `target`; at least one.
pub(crate) fn cut(candidates: &mut Vec<Candidate>, target: f64) {
    let mut sum = 0.0;
    let reaches = |&(_, weight): &Candidate| {
        sum += f64::from(weight);
        sum >= target
    };
    if let Some(last) = candidates.iter().position(reaches) {
        candidates.truncate(last + 1);
    }
}

/// Sum of the weights, in order.
pub(crate) fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|&(_, weight)| f64::from(weight)).sum()
}

/// Larger values first, then lower ids.
fn descending(a: &Candidate, b: &Candidate) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Replaces `found` by the values above `threshold`, in order of id.
pub(crate) fn collect_above(values: &[f32], threshold: f32, found: &mut Vec<Candidate>) {
    found.clear();
    let (chunks, rest) = values.as_chunks::<32>();
    let mut take = |first: usize, chunk: &[f32]| {
        let ids = first as u32..;
        found.extend(ids.zip(chunk.iter().copied()).filter(|&(_, x)| x > threshold));
    };
    for (idx, chunk) in chunks.iter().enumerate() {
        // Without an early exit this is a few vector instructions.
        if chunk.iter().fold(false, |any, &x| any | (x > threshold)) {
            take(idx * 32, chunk);
        }
    }
    take(values.len() - rest.len(), rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use puna_core::Rng;

    /// Values with many ties, in `[-range, 0]`.
    fn values(n: usize, range: f64, seed: u64) -> Vec<f32> {
        let mut rng = Rng::new(seed, 0);
        (0..n).map(|_| -((rng.next_f64() * 64.0).round() / 64.0 * range) as f32).collect()
    }

    /// The plain version: sort everything.
    fn sorted(values: &[f32]) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = (0..).zip(values.iter().copied()).collect();
        all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
        all
    }

    #[test]
    fn argmax_is_the_first_of_the_largest() {
        for n in [1, 15, 16, 17, 255, 256, 257, 1000] {
            for seed in 0..20 {
                let x = values(n, 3.0, seed);
                assert_eq!(argmax(&x), Ok(sorted(&x)[0]), "{n} values, seed {seed}");
            }
        }
        assert_eq!(argmax(&[0.0, -0.0]), Ok((0, 0.0)));
        assert_eq!(argmax(&[-0.0, 0.0]), Ok((0, 0.0)));
    }

    #[test]
    fn argmax_refuses_what_is_not_a_number() {
        for n in [1, 16, 300] {
            for at in [0, n / 2, n - 1] {
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut x = vec![1.0; n];
                    x[at] = bad;
                    let token = at as u32;
                    assert_eq!(argmax(&x), Err(Failure::NotANumber { token }), "{bad} of {n}");
                }
            }
            assert_eq!(argmax(&vec![f32::NEG_INFINITY; n]), Err(Failure::AllForbidden));
        }
    }

    #[test]
    fn largest_equals_a_full_sort() {
        for range in [0.0, 4.0, 20.0, 100.0] {
            let x = values(500, range, 3);
            let (all, max) = (sorted(&x), argmax(&x).unwrap().1);
            for k in [0, 1, 2, 40, 499, 500, 501] {
                assert_eq!(largest(&x, max, k), all[..k.min(500)], "range {range}, k {k}");
            }
        }
        let x = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 2.0];
        assert_eq!(largest(&x, 2.0, 3), [(3, 2.0), (1, 1.0)]);
    }

    #[test]
    fn nucleus_equals_a_full_sort() {
        for range in [0.0, 4.0, 20.0, 60.0] {
            let w: Vec<f32> = values(500, range, 5).iter().map(|x| x.exp()).collect();
            let all = sorted(&w);
            for p in [0.0, 0.1, 0.5, 0.9, 0.999, 2.0] {
                let target = p * total(&all);
                let mut expected = all.clone();
                cut(&mut expected, target);
                let mut found = nucleus(&w, target);
                found.sort_by(descending);
                assert_eq!(found, expected, "range {range}, p {p}");
            }
        }
    }
}
