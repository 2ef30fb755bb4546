//! Choice among samples of one prompt, and what more samples would bring.

/// Which of K samples has the highest score; of equals the earliest. `None` of none.
///
/// # Panics
/// A score that is not a number.
#[must_use]
pub fn best_of(scores: &[f64]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (i, score) in scores.iter().enumerate() {
        assert!(!score.is_nan(), "score {i} of {} is not a number", scores.len());
        if best.is_none_or(|best| *score > scores[best]) {
            best = Some(i);
        }
    }
    best
}

/// The highest and the median score that `n` samples have on average, from K ≥ n: the mean over all subsets of size
/// `n`, which estimates both without bias. arXiv 2307.09288, figure 7, shows them over `n`; their distance is what
/// rejection sampling can gain. The median of an even number is the mean of the two in the middle.
///
/// # Panics
/// `n` is 0 or above K, or a score is not a number.
#[must_use]
pub fn max_and_median(scores: &[f64], n: usize) -> (f64, f64) {
    assert!((1..=scores.len()).contains(&n), "{n} samples of {}", scores.len());
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("a score that is a number"));
    let max = mean_of_rank(&sorted, n, n);
    let (low, high) = (n.div_ceil(2), n / 2 + 1);
    let median = 0.5 * (mean_of_rank(&sorted, n, low) + mean_of_rank(&sorted, n, high));
    (max, median)
}

/// The mean, over all subsets of size `n`, of the value whose rank in the subset is `rank`, counted from 1 and from the
/// smallest. The i-th of K sorted values has that rank in `C(i − 1, rank − 1) · C(K − i, n − rank)` subsets.
fn mean_of_rank(sorted: &[f64], n: usize, rank: usize) -> f64 {
    let k = sorted.len();
    let ln_factorials: Vec<f64> = (0..=k)
        .scan(0.0, |sum, i| {
            *sum += (i.max(1) as f64).ln();
            Some(*sum)
        })
        .collect();
    let ln_choose = |n: usize, m: usize| ln_factorials[n] - ln_factorials[m] - ln_factorials[n - m];
    let ln_all = ln_choose(k, n);
    let (mut sum, mut weights) = (0.0, 0.0);
    for i in rank..=k - (n - rank) {
        let weight = (ln_choose(i - 1, rank - 1) + ln_choose(k - i, n - rank) - ln_all).exp();
        sum += weight * sorted[i - 1];
        weights += weight;
    }
    // The weights add up to 1 but for rounding.
    sum / weights
}
