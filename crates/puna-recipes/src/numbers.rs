//! Numbers as people read them.

use std::fmt;

/// A large number in words people use.
pub(crate) struct Count(pub(crate) f64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scales = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
        match scales.iter().find(|(scale, _)| self.0 >= *scale) {
            Some((scale, unit)) => write!(f, "{:.2}{unit}", self.0 / scale),
            None => write!(f, "{:.0}", self.0),
        }
    }
}

/// A length of time, in seconds; told in the two largest units that matter.
#[derive(Clone, Copy, Debug)]
pub struct TimeSpan(pub f64);

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.round() as u64;
        let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{secs} s"),
            (0, 0, _) => write!(f, "{minutes} min {} s", secs % 60),
            (0, ..) => write!(f, "{hours} h {minutes} min"),
            _ => write!(f, "{days} days {hours} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(Count(7_154_784.0).to_string(), "7.15M");
        assert_eq!(Count(12.0).to_string(), "12");
        assert_eq!(TimeSpan(5000.0).to_string(), "1 h 23 min");
        assert_eq!(TimeSpan(59.6).to_string(), "1 min 0 s");
    }
}
