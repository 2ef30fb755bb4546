//! The terminal while a dashboard has it, and its way back.

use std::io::{self, Stdout, stdout};
use std::panic;
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

/// The terminal, from [`Screen::open`] to [`Screen::close`].
#[derive(Default)]
pub(in super::super) struct Screen(Mutex<Option<Terminal<CrosstermBackend<Stdout>>>>);

impl Screen {
    /// Takes the terminal; a panic anywhere gives it back before it is told.
    pub(super) fn open(this: &Arc<Self>) -> anyhow::Result<()> {
        let terminal = take().inspect_err(|_| give_back()).context("the terminal")?;
        *this.0.lock().expect("nobody has drawn yet") = Some(terminal);
        let (screen, before) = (Arc::clone(this), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            screen.close();
            before(info);
        }));
        Ok(())
    }

    /// Draws a picture; `false` if the terminal is not there any more.
    pub(super) fn draw(&self, picture: impl FnOnce(&mut Frame<'_>)) -> bool {
        let Ok(mut terminal) = self.0.lock() else { return false };
        terminal.as_mut().is_some_and(|terminal| terminal.draw(picture).is_ok())
    }

    /// Gives the terminal back, if it was not yet.
    pub(in super::super) fn close(&self) {
        // Whoever draws is done soon, unless it is this very thread, which panicked.
        for _ in 0..50 {
            let mut terminal = match self.0.try_lock() {
                Ok(terminal) => terminal,
                Err(TryLockError::Poisoned(e)) => e.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    sleep(Duration::from_millis(5));
                    continue;
                }
            };
            if terminal.take().is_some() {
                give_back();
            }
            return;
        }
        give_back();
    }
}

fn take() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen)?;
    Terminal::new(CrosstermBackend::new(stdout()))
}

/// All of it, also if a part fails: then there is no terminal left to care for.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}
