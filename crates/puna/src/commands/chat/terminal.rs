//! A conversation at a terminal: line editor, history, commands.

use std::borrow::Cow;

use anyhow::Context;
use puna_engine::FinishReason;
use reedline::{
    EditCommand, Emacs, FileBackedHistory, KeyCode, KeyModifiers, Prompt, PromptEditMode,
    PromptHistorySearch, Reedline, ReedlineEvent, Signal, ValidationResult, Validator,
    default_emacs_keybindings,
};

use super::command::{self, Command, HELP};
use super::conversation::Conversation;
use super::{note_full_context, print};
use crate::environment;
use crate::failure;
use crate::interrupt::Interrupt;

/// Lines kept in the history.
const HISTORY_LEN: usize = 1000;

/// Reads and answers until `/quit` or Ctrl-D.
pub(super) fn run(conversation: &mut Conversation, interrupt: &Interrupt) -> anyhow::Result<()> {
    note!("{}\n/help lists the commands.", conversation.model());
    let mut editor = editor()?;
    loop {
        let line = match editor.read_line(&TurnPrompt).context("cannot read from the terminal")? {
            Signal::Success(line) => line,
            Signal::CtrlD => return Ok(()),
            Signal::CtrlC => {
                note!("(/quit or Ctrl-D to leave)");
                continue;
            }
            _ => continue,
        };
        let line = line.replace("\\\n", "\n");
        if line.trim().is_empty() {
            continue;
        }
        let outcome = match command::parse(&line) {
            Some(Ok(Command::Quit)) => return Ok(()),
            Some(Ok(command)) => obey(command, conversation),
            Some(Err(message)) => Err(anyhow::anyhow!(message)),
            None => answer(line.trim(), conversation, interrupt),
        };
        if let Err(error) = outcome {
            failure::warn_or_give_up(error)?;
        }
    }
}

fn answer(
    text: &str,
    conversation: &mut Conversation,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let answer = conversation.ask(text, interrupt, print)?;
    print("\n")?;
    if answer.reason == FinishReason::Cancelled {
        interrupt.clear();
        note!("(stopped)");
    }
    note_full_context(conversation, &answer.reason);
    Ok(())
}

fn obey(command: Command, conversation: &mut Conversation) -> anyhow::Result<()> {
    match command {
        Command::Help => note!("{HELP}"),
        Command::Reset => {
            conversation.reset();
            note!("new conversation");
        }
        Command::System(Some(text)) => {
            conversation.set_system(text);
            note!("instructions set");
        }
        Command::System(None) => {
            note!("{}", conversation.system().unwrap_or("no instructions"));
        }
        Command::Save(path) => {
            conversation.save(&path)?;
            note!("saved to {}", path.display());
        }
        Command::Load(path) => {
            let n_turns = conversation.load(&path)?;
            note!("{}", crate::units::plural(n_turns, "turn"));
        }
        Command::Stats => note!("{}", conversation.stats()),
        Command::Quit => unreachable!("handled by the caller"),
    }
    Ok(())
}

fn editor() -> anyhow::Result<Reedline> {
    let mut keys = default_emacs_keybindings();
    keys.add_binding(
        KeyModifiers::ALT,
        KeyCode::Enter,
        ReedlineEvent::Edit(vec![EditCommand::InsertNewline]),
    );
    let history = match environment::state_dir() {
        Some(folder) => FileBackedHistory::with_file(HISTORY_LEN, folder.join("chat_history"))
            .or_else(|_| FileBackedHistory::new(HISTORY_LEN)),
        None => FileBackedHistory::new(HISTORY_LEN),
    };
    Ok(Reedline::create()
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_history(Box::new(history.context("cannot keep a history")?))
        .with_validator(Box::new(Continuation))
        .use_bracketed_paste(true))
}

/// A line that ends in `\` goes on.
struct Continuation;

impl Validator for Continuation {
    fn validate(&self, line: &str) -> ValidationResult {
        if line.ends_with('\\') { ValidationResult::Incomplete } else { ValidationResult::Complete }
    }
}

/// `> `, and `. ` before further lines of a turn.
struct TurnPrompt;

impl Prompt for TurnPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed(". ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(search: {}) ", search.term))
    }
}
