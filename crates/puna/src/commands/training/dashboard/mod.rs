//! A run on the whole terminal: curves, figures, what the model wrote last.
//!
//! A thread of its own draws and listens to keys, so that a step of a minute does not make it deaf; training only tells
//! it what happened. However the program ends, the terminal becomes what it was.

mod draw;
mod screen;
mod view;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use puna_recipes::Report;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::line::kept;
use crate::interrupt::Interrupt;
pub(super) use screen::Screen;
pub(super) use view::View;

/// How long a change may wait until it is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Lines of the run that are printed when the terminal is as it was.
const N_LAST_LINES: usize = 16;

/// The dashboard of a run, while the run goes on.
pub(super) struct Dashboard {
    view: Arc<Mutex<View>>,
    screen: Arc<Screen>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    last_lines: VecDeque<String>,
}

impl Dashboard {
    /// Takes the terminal over.
    pub(super) fn open(
        view: View,
        screen: Arc<Screen>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        Screen::open(&screen)?;
        let view = Arc::new(Mutex::new(view));
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (view, screen) = (Arc::clone(&view), Arc::clone(&screen));
            let (is_over, interrupt) = (Arc::clone(&is_over), interrupt.clone());
            move || {
                while !is_over.load(Ordering::SeqCst) && show(&view, &screen, &interrupt) {
                    listen(&interrupt);
                }
                screen.close();
            }
        });
        Ok(Self { view, screen, is_over, thread: Some(thread), last_lines: VecDeque::new() })
    }

    /// What happened, for the next picture.
    pub(super) fn tell(&mut self, report: &Report<'_>) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).tell(report);
        self.last_lines.extend(kept(report));
        let n_old = self.last_lines.len().saturating_sub(N_LAST_LINES);
        self.last_lines.drain(..n_old);
    }
}

impl Drop for Dashboard {
    /// Gives the terminal back and prints the last lines of the run.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // If it panicked, that was told, and the terminal was given back.
        let _ = self.thread.take().map(JoinHandle::join);
        self.screen.close();
        for line in &self.last_lines {
            note!("{line}");
        }
    }
}

/// Draws; whether there is still something to draw on.
fn show(view: &Mutex<View>, screen: &Screen, interrupt: &Interrupt) -> bool {
    let view = view.lock().unwrap_or_else(PoisonError::into_inner);
    screen.draw(|frame| draw::draw(frame, &view, interrupt.is_set()))
}

/// Waits for the time of a picture, or until something is pressed.
fn listen(interrupt: &Interrupt) {
    match event::poll(FRAME) {
        Ok(false) => {}
        Ok(true) => match event::read() {
            Ok(Event::Key(key)) => press(key, interrupt),
            // What is drawn next fits the new size.
            Ok(_) => {}
            Err(_) => sleep(FRAME),
        },
        // Where no keys can be read, Ctrl-C from elsewhere still can.
        Err(_) => sleep(FRAME),
    }
}

fn press(key: KeyEvent, interrupt: &Interrupt) {
    if key.kind != KeyEventKind::Press {
        return;
    }
    match key.code {
        // The terminal does not turn it into a signal while the dashboard is there.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => interrupt.press(),
        KeyCode::Char('q') => interrupt.set(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ask_the_run_to_end() {
        let interrupt = Interrupt::of_nobody();
        press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::NONE), &interrupt);
        press(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE), &interrupt);
        assert!(!interrupt.is_set());
        press(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE), &interrupt);
        // Once more is no harm: only Ctrl-C a second time ends the program at once.
        press(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE), &interrupt);
        assert!(interrupt.is_set());
        interrupt.clear();
        press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &interrupt);
        assert!(interrupt.is_set());
    }
}
