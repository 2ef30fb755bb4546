//! Notes for the user, on stderr.

/// Writes a line to stderr. Unlike `eprintln!` it does not panic where stderr is closed or full: a note that nobody
/// can read is no reason to stop.
macro_rules! note {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stderr().lock(), $($text)*);
    }};
}
