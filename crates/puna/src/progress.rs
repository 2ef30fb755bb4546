//! Progress bars on stderr, drawn only when that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use puna_core::{ModelConfig, SourceError, Tensor, TensorInfo, TensorSource, WeightId};

/// A bar over `n_bytes` of work.
pub(crate) fn over_bytes(what: &'static str, n_bytes: u64) -> ProgressBar {
    let template = "{msg:>10} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    ProgressBar::new(n_bytes).with_style(style.progress_chars("=> ")).with_message(what)
}

/// A bar over work whose amount is told later, in a unit that means nothing to the user.
pub(crate) fn over_work(what: &'static str) -> ProgressBar {
    let template = "{msg:>10} [{bar:30}] {percent} % {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    ProgressBar::new(1).with_style(style.progress_chars("=> ")).with_message(what)
}

/// A source that moves a bar as tensors are loaded.
pub(crate) struct Watched<'a> {
    source: &'a dyn TensorSource,
    bar: ProgressBar,
}

impl<'a> Watched<'a> {
    /// Watches `source`, whose tensors have `n_bytes` together.
    pub(crate) fn new(source: &'a dyn TensorSource, n_bytes: u64) -> Self {
        Self { source, bar: over_bytes("loading", n_bytes) }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl TensorSource for Watched<'_> {
    fn config(&self) -> &ModelConfig {
        self.source.config()
    }

    fn info(&self, id: WeightId) -> Option<TensorInfo> {
        self.source.info(id)
    }

    fn load(&self, id: WeightId) -> Result<Tensor, SourceError> {
        let tensor = self.source.load(id)?;
        self.bar.inc(tensor.data.len() as u64);
        Ok(tensor)
    }

    fn copies(&self, id: WeightId) -> bool {
        self.source.copies(id)
    }

    fn check_unchanged(&self) -> Result<(), SourceError> {
        self.source.check_unchanged()
    }
}
