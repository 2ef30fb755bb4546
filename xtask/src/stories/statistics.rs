//! Intervals by the bootstrap over prompts (Efron, "Bootstrap methods: another look at the jackknife", 1979), and
//! agreement of two judges beyond chance (Cohen, "A coefficient of agreement for nominal scales", 1960).

use super::request::Random;

const RESAMPLES: usize = 2_000;
const SEED: u64 = 11;

/// A mean and the middle 95 % of the means of resamples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Interval {
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of one value for each prompt; `None` of none. Differences of two files' values make it the paired bootstrap.
pub(super) fn interval(values: &[f64]) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let mut random = Random::new(SEED);
    let resample =
        |_| (0..values.len()).map(|_| random.pick(values)).sum::<f64>() / values.len() as f64;
    let mut means: Vec<f64> = (0..RESAMPLES).map(resample).collect();
    means.sort_by(f64::total_cmp);
    let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize];
    Some(Interval { mean: mean(values), low: at(0.025), high: at(0.975) })
}

/// Agreement beyond chance: 1 where both always agree, 0 where no more than by chance; `None` where chance is all.
pub(super) fn kappa(pairs: &[(bool, bool)]) -> Option<f64> {
    let share = |holds: &dyn Fn(&(bool, bool)) -> bool| {
        pairs.iter().filter(|pair| holds(pair)).count() as f64 / pairs.len() as f64
    };
    let (agree, a, b) = (share(&|p| p.0 == p.1), share(&|p| p.0), share(&|p| p.1));
    let chance = a * b + (1.0 - a) * (1.0 - b);
    (chance < 1.0).then(|| (agree - chance) / (1.0 - chance))
}

#[cfg(test)]
mod tests {
    use super::{interval, kappa};

    #[test]
    fn an_interval_is_about_two_standard_errors() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 4 == 0)).collect();
        let found = interval(&values).unwrap();
        let standard_error = (0.25 * 0.75 / 400.0f64).sqrt();
        assert_eq!(found.mean, 0.25);
        assert!((found.high - found.mean - 1.96 * standard_error).abs() < 0.006, "{found:?}");
        assert!((found.mean - found.low - 1.96 * standard_error).abs() < 0.006, "{found:?}");
        assert_eq!(interval(&[]), None);
    }

    #[test]
    fn kappa_of_a_table_by_hand() {
        // 20 both, 15 neither, 5 and 10 one of them: agreement 0.7, chance 0.5.
        let counts =
            [((true, true), 20), ((true, false), 5), ((false, true), 10), ((false, false), 15)];
        let pairs: Vec<_> = counts.iter().flat_map(|&(pair, n)| vec![pair; n]).collect();
        assert!((kappa(&pairs).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(kappa(&[(true, true); 3]), None);
    }
}
