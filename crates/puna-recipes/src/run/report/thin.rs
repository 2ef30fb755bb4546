//! Fewer points that look the same, and the smoothed line through noisy ones.

use super::history::Point;

/// At most four points for each of `n_buckets` stretches of steps of the same length: the first, the last and the
/// extremes, so that nothing that stands out is lost.
pub(super) fn thin(points: &[Point], n_buckets: u64) -> Vec<Point> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    if points.len() as u64 <= 4 * n_buckets {
        return points.to_vec();
    }
    let width = (last.0 - first.0) / n_buckets + 1;
    let mut kept = Vec::new();
    for bucket in points.chunk_by(|a, b| (a.0 - first.0) / width == (b.0 - first.0) / width) {
        let by_value = |a: &usize, b: &usize| bucket[*a].1.total_cmp(&bucket[*b].1);
        let low = (0..bucket.len()).min_by(by_value).unwrap_or(0);
        let high = (0..bucket.len()).max_by(by_value).unwrap_or(0);
        let mut indices = [0, low, high, bucket.len() - 1];
        indices.sort_unstable();
        let mut previous = None;
        for index in indices.into_iter().filter(|&index| previous.replace(index) != Some(index)) {
            kept.push(bucket[index]);
        }
    }
    kept
}

/// `n` points at most, at equal distances, with the first and the last.
pub(super) fn spread<T: Clone>(items: &[T], n: usize) -> Vec<T> {
    match (items.len(), n) {
        (len, n) if len <= n => items.to_vec(),
        (len, n) => (0..n).map(|i| items[i * (len - 1) / (n.max(2) - 1)].clone()).collect(),
    }
}

/// The mean of each point and its neighbours, a fiftieth of all points to either side. Near the beginning, where curves
/// are steep, as few on the right as there are on the left.
pub(super) fn smooth(points: &[Point]) -> Vec<Point> {
    let reach = points.len() / 50;
    let mut sums = vec![0.0];
    sums.extend(points.iter().scan(0.0, |sum, point| {
        *sum += point.1;
        Some(*sum)
    }));
    let mean = |i: usize| {
        let left = reach.min(i);
        let end = (i + left + 1).min(points.len());
        (sums[end] - sums[i - left]) / (end + left - i) as f64
    };
    points.iter().enumerate().map(|(i, &(step, _))| (step, mean(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_survive_thinning() {
        let mut points: Vec<Point> = (1..=100_000).map(|step| (step, 1.0)).collect();
        points[54_321].1 = 99.0;
        points[77_777].1 = -99.0;
        let thinned = thin(&points, 300);
        assert!(thinned.len() <= 1200, "{}", thinned.len());
        assert!(thinned.is_sorted_by_key(|point| point.0));
        for i in [0, 54_321, 77_777, 99_999] {
            assert!(thinned.contains(&points[i]), "{i}");
        }
        assert_eq!(thin(&points[..1200], 300), &points[..1200]);
        assert_eq!(thin(&[], 300), []);
    }

    #[test]
    fn a_smoothed_line_neither_lags_nor_bends() {
        let straight: Vec<Point> = (0..1000).map(|step| (step, step as f64)).collect();
        for (i, (step, mean)) in smooth(&straight).into_iter().enumerate() {
            let lag = (mean - step as f64).abs();
            assert!(if i < 980 { lag < 1e-9 } else { lag <= 10.0 }, "step {step}: {mean}");
        }
        let noisy: Vec<Point> = (0..1000).map(|step| (step, (step % 2) as f64)).collect();
        assert!(smooth(&noisy)[10..].iter().all(|(_, mean)| (mean - 0.5).abs() < 0.05));
        assert_eq!(smooth(&noisy[..49]), &noisy[..49]);
    }

    #[test]
    fn spread_keeps_both_ends() {
        let all: Vec<u32> = (0..100).collect();
        assert_eq!(spread(&all, 4), [0, 33, 66, 99]);
        assert_eq!(spread(&all[..3], 4), [0, 1, 2]);
        assert_eq!(spread(&all, 1), [0]);
    }
}
