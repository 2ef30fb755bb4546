//! How the program ends: 0 done; 1 failed; 2 what is asked for cannot be, so nothing was begun: a command line, an
//! environment variable or a configuration that means nothing, or more memory than is free. A file that is missing,
//! damaged or in the way is a failure. A reader that closes our output early is no error; a program stopped by Ctrl-C
//! ends with 130, as shells expect.

use std::fmt;
use std::io;
use std::process::ExitCode;

use puna_data::DataError;
use puna_eval::EvalError;
use puna_formats::FormatError;
use puna_hub::HubError;
use puna_kernels::IsaError;
use puna_recipes::RecipeError;
use puna_tokenizer::TokenizerError;

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
    ExitCode::from(if is_usage(&error) { 2 } else { 1 })
}

/// Whether something was asked for that cannot be.
fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>() || error.chain().any(asks_wrong)
}

/// Whether a library found that what it was asked for cannot be.
fn asks_wrong(cause: &(dyn std::error::Error + 'static)) -> bool {
    let of_hub = match cause.downcast_ref() {
        Some(HubError::Eval(error)) => Some(error),
        _ => cause.downcast_ref(),
    };
    let of_recipes = match cause.downcast_ref() {
        Some(RecipeError::Data(error)) => Some(error),
        _ => cause.downcast_ref(),
    };
    let size = cause.downcast_ref();
    matches!(of_hub, Some(EvalError::Stride { .. } | EvalError::Context { .. }))
        || matches!(of_recipes, Some(DataError::Config { .. }))
        || matches!(
            size,
            Some(TokenizerError::VocabTooLarge { .. } | TokenizerError::VocabTooSmall { .. })
        )
        || cause.is::<IsaError>()
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
    note!("\x1b[1;31merror:\x1b[0m {}", message(error));
}

/// The error with its causes. The libraries' errors tell their cause themselves; such a cause is not told twice.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.ends_with(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
    }
    if error.chain().any(is_existing_target) {
        message.push_str("; --force replaces it");
    }
    message
}

/// Whether a command that has `--force` kept what was there.
fn is_existing_target(cause: &(dyn std::error::Error + 'static)) -> bool {
    let of_formats = match cause.downcast_ref::<HubError>() {
        Some(HubError::Format(error)) => Some(error),
        _ => cause.downcast_ref::<FormatError>(),
    };
    matches!(of_formats, Some(FormatError::Exists { .. }))
}

fn is_closed_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    let io_error = cause.downcast_ref::<io::Error>();
    io_error.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn no_cause_is_told_twice() {
        let source = io::Error::other("the disk is full");
        let error = HubError::Io { path: "a.gguf".into(), source };
        assert_eq!(message(&error.into()), "a.gguf: the disk is full");
        let error = Err::<(), _>(io::Error::other("the disk is full")).context("a.gguf");
        assert_eq!(message(&error.unwrap_err()), "a.gguf: the disk is full");
    }
}
