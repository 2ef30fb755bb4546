//! Ctrl-C as a flag that long work looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// Set by Ctrl-C. A second Ctrl-C, while the first has not been answered, ends the program.
#[derive(Clone)]
pub(crate) struct Interrupt {
    flag: Arc<AtomicBool>,
    /// What must be done before the program ends at once.
    before_exit: Arc<dyn Fn() + Send + Sync>,
}

impl Interrupt {
    /// Takes over Ctrl-C for this process. Called once, by the command that wants it.
    pub(crate) fn install() -> anyhow::Result<Self> {
        Self::install_with(|| {})
    }

    /// The same, where something must be done before a second Ctrl-C ends the program.
    pub(crate) fn install_with(
        before_exit: impl Fn() + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let interrupt = Self { flag: Arc::default(), before_exit: Arc::new(before_exit) };
        let pressed = interrupt.clone();
        ctrlc::set_handler(move || pressed.press()).context("cannot listen for Ctrl-C")?;
        Ok(interrupt)
    }

    /// One that no signal reaches.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        Self { flag: Arc::default(), before_exit: Arc::new(|| {}) }
    }

    /// What Ctrl-C does, for those who read it as a key.
    pub(crate) fn press(&self) {
        if self.flag.swap(true, Ordering::SeqCst) {
            (self.before_exit)();
            std::process::exit(130);
        }
    }

    /// Asks for an end as Ctrl-C does, but however often it is asked, never for one at once.
    pub(crate) fn set(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Whether Ctrl-C was pressed since the last [`Interrupt::clear`].
    pub(crate) fn is_set(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    /// Forgets it, when it has been answered.
    pub(crate) fn clear(&self) {
        self.flag.store(false, Ordering::SeqCst);
    }
}
