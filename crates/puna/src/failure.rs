//! How the program ends: 0 done, 1 failed, 2 wrong usage. A reader that closes our output early is no
//! error; a program stopped by Ctrl-C ends with 130, as shells expect.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The user asked for something that cannot be meant; ends the program with 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Stopped by Ctrl-C.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Tells the user what went wrong, in one message on stderr, and gives the exit code.
pub(crate) fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if error.chain().any(is_closed_pipe) {
        return ExitCode::SUCCESS;
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(130);
    }
    eprint_error(&error);
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

/// Tells the user what went wrong with one step of a conversation that goes on, unless nobody listens any more.
pub(crate) fn warn_or_give_up(error: anyhow::Error) -> anyhow::Result<()> {
    if error.chain().any(is_closed_pipe) {
        return Err(error);
    }
    eprint_error(&error);
    Ok(())
}

fn eprint_error(error: &anyhow::Error) {
    anstream::eprintln!("\x1b[1;31merror:\x1b[0m {error:#}");
}

fn is_closed_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    let io_error = cause.downcast_ref::<io::Error>();
    io_error.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
