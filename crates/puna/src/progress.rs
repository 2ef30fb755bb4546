//! Progress bars on stderr, drawn only when that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `n_bytes` of work.
pub(crate) fn over_bytes(what: &'static str, n_bytes: u64) -> ProgressBar {
    let template = "{msg:>10} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    ProgressBar::new(n_bytes).with_style(style.progress_chars("=> ")).with_message(what)
}
