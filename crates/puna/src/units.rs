//! Numbers as people read them.

pub(crate) use puna_hub::disk::bytes_text as bytes;

/// Bytes of a text such as `4GB`, `500 MB` or `1000`, in decimal units.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let upper = text.trim().to_ascii_uppercase();
    let digits = upper.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale: f64 = match &upper[digits.len()..] {
        "" | "B" => 1.0,
        "K" | "KB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "T" | "TB" => 1e12,
        _ => return None,
    };
    let n: f64 = digits.trim_end().parse().ok()?;
    (n.is_finite() && n >= 0.0).then_some((n * scale) as u64)
}

/// A count in words of the field: `6.74B` parameters.
pub(crate) fn params(n: u64) -> String {
    match n {
        1_000_000_000.. => format!("{:.2}B", n as f64 / 1e9),
        1_000_000.. => format!("{:.1}M", n as f64 / 1e6),
        1_000.. => format!("{:.0}K", n as f64 / 1e3),
        _ => n.to_string(),
    }
}

/// Seconds: `3.2 ms`, `1.25 s`.
pub(crate) fn seconds(secs: f64) -> String {
    if secs < 0.1 { format!("{:.1} ms", secs * 1e3) } else { format!("{secs:.2} s") }
}

/// Events a second, with the digits that mean something; a dash when no time was measured.
pub(crate) fn rate(n: usize, secs: f64) -> String {
    if n == 0 || secs <= 0.0 {
        return "-".to_owned();
    }
    let per_sec = n as f64 / secs;
    if per_sec < 100.0 { format!("{per_sec:.1}") } else { format!("{per_sec:.0}") }
}

/// `1 token`, `2 tokens`.
pub(crate) fn plural(n: usize, word: &str) -> String {
    count(n, word, &format!("{word}s"))
}

/// `1 matrix`, `2 matrices`.
pub(crate) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let cases: [(String, &str); 6] = [
            (params(6_738_415_616), "6.74B"),
            (params(260_032), "260K"),
            (seconds(0.0032), "3.2 ms"),
            (seconds(1.25), "1.25 s"),
            (rate(50, 2.0), "25.0"),
            (plural(1, "token"), "1 token"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn sizes_are_read() {
        let cases = [
            ("4GB", Some(4_000_000_000)),
            ("1.5 mb", Some(1_500_000)),
            ("12", Some(12)),
            ("4GiB", None),
            ("GB", None),
            ("-1GB", None),
            ("infTB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_bytes(text), expected, "{text}");
        }
    }
}
