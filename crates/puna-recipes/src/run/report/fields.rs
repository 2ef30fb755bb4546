//! Fields that are known by name: how they are called, and how their curves are drawn.

use super::axis::Scale;

/// How a field is drawn.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// The chart's title.
    pub title: String,
    /// What its numbers count, in a few words; may be empty.
    pub unit: &'static str,
    /// How its axis divides.
    pub scale: Scale,
    /// Whether the mean of neighbours is drawn over faint points.
    pub is_noisy: bool,
    /// What its numbers are multiplied by.
    pub factor: f64,
    /// Whether the smallest number is what a run is after.
    pub is_lowest_best: bool,
}

/// Key, title, unit, scale, noisy, factor, lowest is best: in the order of the page.
type Row = (&'static str, &'static str, &'static str, Scale, bool, f64, bool);

#[rustfmt::skip]
const KNOWN: [Row; 6] = [
    ("loss", "Training loss", "nats a token", Scale::Log, true, 1.0, true),
    ("bits_per_byte", "Held-out bits per byte", "by source", Scale::Linear, false, 1.0, true),
    ("lr", "Learning rate", "", Scale::FromZero, false, 1.0, false),
    ("grad_norm", "Gradient norm", "before clipping", Scale::Log, true, 1.0, false),
    ("tokens_per_sec", "Tokens a second", "", Scale::FromZero, true, 1.0, false),
    ("peak_share", "Share of the machine's peak", "%", Scale::FromZero, true, 100.0, false),
];

/// Where a field stands on the page: known ones first, the others by name.
pub(super) fn rank(key: &str) -> (usize, &str) {
    (KNOWN.iter().position(|row| row.0 == key).unwrap_or(KNOWN.len()), key)
}

/// How a field is drawn; one that is not known under its own name.
pub(super) fn field(key: &str) -> Field {
    match KNOWN.into_iter().find(|row| row.0 == key) {
        Some((_, title, unit, scale, is_noisy, factor, is_lowest_best)) => {
            Field { title: title.to_owned(), unit, scale, is_noisy, factor, is_lowest_best }
        }
        None => Field {
            title: key.replace('_', " "),
            unit: "",
            scale: Scale::Linear,
            is_noisy: true,
            factor: 1.0,
            is_lowest_best: false,
        },
    }
}
