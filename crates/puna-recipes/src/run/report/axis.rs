//! Where numbers lie on an axis, and how they are written.

/// How far apart the ends of a scale are said to be at most: far from overflow.
const LIMIT: f64 = 1e150;

/// What is as good as zero.
const TINY: f64 = 1e-100;

/// Ticks that an axis has about.
const N_TICKS: f64 = 5.0;

/// How an axis divides its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly, as far as there are numbers.
    Linear,
    /// Evenly, from zero on.
    FromZero,
    /// By ratio, where all numbers are above zero; else evenly.
    Log,
}

/// An axis that numbers fit on.
#[derive(Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    /// Whether by ratio.
    pub is_log: bool,
    /// Where lines and labels stand.
    pub ticks: Vec<f64>,
    /// From one tick to the next; of the labels' digits.
    gap: f64,
}

impl Axis {
    /// An axis for all of `numbers`, which are finite; for none of them, from 0 to 1.
    pub(super) fn new(numbers: impl Iterator<Item = f64>, scale: Scale) -> Self {
        let ends = numbers.map(bounded).fold(None, |ends, n| match ends {
            None => Some((n, n)),
            Some((low, high)) => Some((n.min(low), n.max(high))),
        });
        let (low, high) = ends.unwrap_or((0.0, 1.0));
        match scale {
            Scale::Log if low > TINY && high / low > 1.0 + 1e-6 => Self::by_ratio(low, high),
            Scale::FromZero => Self::even(low.min(0.0), high.max(0.0)),
            Scale::Log | Scale::Linear => Self::even(low, high),
        }
    }

    /// Ends at ticks.
    fn even(low: f64, high: f64) -> Self {
        let (low, high) = apart(low, high);
        let gap = round_gap((high - low) / N_TICKS);
        let (first, last) = ((low / gap).floor(), (high / gap).ceil());
        Self {
            low: first * gap,
            high: last * gap,
            is_log: false,
            ticks: multiples(gap, first, last),
            gap,
        }
    }

    /// Ends a little beyond the numbers. Ticks are at even numbers within a decade, else at 1, 2 and 5, or powers of 10.
    fn by_ratio(low: f64, high: f64) -> Self {
        let margin = (high / low).powf(0.03);
        let (low, high) = (low / margin, high * margin);
        if high / low < 10.0 {
            let gap = round_gap((high - low) / N_TICKS);
            let ticks = multiples(gap, (low / gap).ceil(), (high / gap).floor());
            return Self { low, high, is_log: true, ticks, gap };
        }
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let n_decades = (high / low).log10();
        let every = (n_decades / N_TICKS).ceil().max(1.0) as i32;
        let digits: &[f64] = if n_decades < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = decades.filter(|decade| decade.rem_euclid(every) == 0);
        let ticks: Vec<f64> = decades
            .flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)))
            .filter(|tick| (low..=high).contains(tick))
            .collect();
        Self { low, high, is_log: true, ticks, gap: low }
    }

    /// An axis of steps, from end to end.
    pub(super) fn of_steps((first, last): (u64, u64)) -> Self {
        let (low, high) = apart(first as f64, last as f64);
        let gap = round_gap((high - low) / N_TICKS).max(1.0);
        let mut ticks = multiples(gap, (low / gap).ceil(), (high / gap).floor());
        ticks.retain(|&tick| tick >= first as f64 && tick <= last as f64);
        Self { low, high, is_log: false, ticks, gap }
    }

    /// Where a number lies, from 0 at the low end to 1.
    pub(super) fn place(&self, number: f64) -> f64 {
        let number = bounded(number);
        let place = match self.is_log {
            true => (number.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (number - self.low) / (self.high - self.low),
        };
        place.clamp(0.0, 1.0)
    }

    /// A tick in words.
    pub(super) fn label(&self, tick: f64) -> String {
        let largest = self.low.abs().max(self.high.abs());
        // Over decades each tick has digits of its own.
        let gap = if self.is_log && self.high / self.low >= 10.0 { tick } else { self.gap };
        let decimals = -(gap.log10() + 1e-9).floor();
        if largest >= 1e16 || decimals > 3.0 {
            return scientific(tick, 1);
        }
        for (scale, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
            if largest >= 10.0 * scale && tick != 0.0 {
                let decimals = (decimals + scale.log10()).clamp(0.0, 3.0) as usize;
                return format!("{:.decimals$}{unit}", tick / scale);
            }
        }
        format!("{tick:.*}", decimals.max(0.0) as usize)
    }
}

/// A number with four digits that count.
pub(super) fn number(n: f64) -> String {
    let size = n.abs();
    if n == 0.0 {
        return "0".to_owned();
    }
    if !(1e-2..1e7).contains(&size) {
        return scientific(n, 3);
    }
    let decimals = (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
    if decimals > 0 {
        return format!("{n:.decimals$}");
    }
    let whole = grouped(size.round() as u64);
    if n < 0.0 { format!("-{whole}") } else { whole }
}

/// A count with its thousands apart: `12,345`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1.5e-3`, without zeros that tell nothing.
fn scientific(n: f64, decimals: usize) -> String {
    let text = format!("{n:.decimals$e}");
    match text.split_once('e') {
        Some((digits, "0")) if n == 0.0 => digits.trim_end_matches(['0', '.']).to_owned() + "0",
        Some((digits, power)) => {
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        None => text,
    }
}

/// Multiples of `gap` from the `first` to the `last`, a few.
fn multiples(gap: f64, first: f64, last: f64) -> Vec<f64> {
    let n = (last - first).clamp(-1.0, 4.0 * N_TICKS) as i32;
    (0..=n).map(|i| (first + f64::from(i)) * gap).collect()
}

/// 1, 2 or 5 times a power of ten, about `gap`.
fn round_gap(gap: f64) -> f64 {
    let power = 10f64.powi(gap.log10().floor() as i32);
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| gap <= digit * power * 1.001);
    digit.unwrap_or(10.0) * power
}

fn bounded(n: f64) -> f64 {
    n.clamp(-LIMIT, LIMIT)
}

/// Ends that are far enough apart to be told apart.
fn apart(low: f64, high: f64) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    if high - low > 1e-9 * size && high - low > TINY {
        return (low, high);
    }
    let margin = if size > TINY { 0.1 * size } else { 1.0 };
    (low - margin, high + margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(numbers: &[f64], scale: Scale) -> String {
        let axis = Axis::new(numbers.iter().copied(), scale);
        let labels: Vec<String> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
        labels.join(" ")
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (numbers, scale, expected) in [
            (&[0.3, 1.9][..], Scale::Linear, "0.0 0.5 1.0 1.5 2.0"),
            (&[0.3, 1.9], Scale::FromZero, "0.0 0.5 1.0 1.5 2.0"),
            (&[1e-4, 2e-3], Scale::FromZero, "0 5e-4 1e-3 1.5e-3 2e-3"),
            (&[1200.0, 18_000.0], Scale::FromZero, "0 5k 10k 15k 20k"),
            (&[-3.0, 4.0], Scale::FromZero, "-4 -2 0 2 4"),
            (&[1.6, 8.4], Scale::Log, "2 4 6 8"),
            (&[0.2, 55.0], Scale::Log, "0.2 0.5 1 2 5 10 20 50"),
            (&[-1.0, 1.0], Scale::Log, "-1.0 -0.5 0.0 0.5 1.0"),
            (&[5.0], Scale::Linear, "4.4 4.6 4.8 5.0 5.2 5.4 5.6"),
            (&[], Scale::Log, "0.0 0.2 0.4 0.6 0.8 1.0"),
        ] {
            assert_eq!(labels(numbers, scale), expected, "{numbers:?} {scale:?}");
        }
    }

    #[test]
    fn no_numbers_are_too_much() {
        let odd = [0.0, -0.0, 5e-324, 1e-300, 1.0, 1.0 + f64::EPSILON, 1e300, f64::MAX, -f64::MAX];
        for scale in [Scale::Linear, Scale::FromZero, Scale::Log] {
            for a in odd {
                for b in odd {
                    let axis = Axis::new([a, b].into_iter(), scale);
                    assert!(axis.ticks.len() < 20, "{a} {b} {scale:?}: {:?}", axis.ticks);
                    for n in odd {
                        assert!((0.0..=1.0).contains(&axis.place(n)), "{n} in {a} {b} {scale:?}");
                    }
                    axis.ticks.iter().for_each(|&tick| assert!(axis.label(tick).len() < 12));
                }
            }
        }
        assert_eq!(Axis::of_steps((7, 7)).ticks, [7.0]);
        assert_eq!(Axis::of_steps((1, 366)).ticks, [100.0, 200.0, 300.0]);
        for steps in [(0, 0), (7, 7), (1, 2), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            let axis = Axis::of_steps(steps);
            assert!(axis.ticks.len() < 20 && axis.place(steps.1 as f64).is_finite(), "{steps:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (n, expected) in [
            (0.0, "0"),
            (1.23456, "1.235"),
            (-12.3456, "-12.35"),
            (12_345.6, "12,346"),
            (-1234.4, "-1,234"),
            (0.002, "2e-3"),
            (0.0234, "0.02340"),
            (0.0003, "3e-4"),
            (3.21e-9, "3.21e-9"),
            (1e20, "1e20"),
        ] {
            assert_eq!(number(n), expected);
        }
        assert_eq!((grouped(999), grouped(1_234_567)), ("999".into(), "1,234,567".into()));
    }
}
