//! `puna chat`: talk with a model.

mod command;
mod conversation;
mod terminal;

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use clap::Args;
use puna_engine::FinishReason;
use puna_hub::default_chat_model;

use crate::args::{DraftArg, ModelArgs, ThreadsArg, count};
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::runtime::Runtime;
use crate::sampling::SamplingArgs;
use conversation::Conversation;

/// Talk with a chat model
#[derive(Args)]
#[command(
    after_help = "Without MODEL the built-in stories7m-chat is used, which tells short stories. Type /help inside for its commands. With stdin not a terminal, each line is one turn and only the \
                  answers are printed.\n\n\
                  Example: puna chat llama-2-7b-chat.Q4_0.gguf --system \"Answer in one sentence.\""
)]
pub(crate) struct ChatArgs {
    /// A file, a folder or a name
    model: Option<String>,
    /// Instructions for the whole conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Stop each answer after N tokens [default: at its end]
    #[arg(short = 'n', long, value_name = "N", value_parser = count(1))]
    n_tokens: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    options: ModelArgs,
    #[command(flatten)]
    threads: ThreadsArg,
    #[command(flatten)]
    draft: DraftArg,
}

const NO_MODEL: &str = "MODEL is missing, and no chat model was there when this program was built\n\n\
    Give one that you have:\n\
    \x20 puna chat llama-2-7b-chat/               the folder of Meta's download\n\
    \x20 puna chat Llama-2-7b-chat-hf/            the folder of a Hugging Face download\n\
    \x20 puna chat llama-2-7b-chat.Q4_0.gguf      a GGUF file\n\n\
    Llama 2 chat models are at https://www.llama.com/llama-downloads and, in the other forms,\n\
    at https://huggingface.co/meta-llama; their licence is Meta's.";

/// Loads the model and talks, with a line editor if there is a terminal.
pub(crate) fn run(args: &ChatArgs) -> anyhow::Result<()> {
    let Some(model) = args.model.as_deref().or_else(|| default_chat_model()) else {
        bail!(Usage(NO_MODEL.to_owned()))
    };
    let runtime = Runtime::load(model, &args.options, args.threads.n_threads(), args.draft.draft)?;
    let sampling = args.sampling.resolve(&runtime.sampling);
    let mut conversation = Conversation::new(runtime, sampling, args.n_tokens, args.system.clone());
    let interrupt = Interrupt::install()?;
    if io::stdin().is_terminal() {
        terminal::run(&mut conversation, &interrupt)
    } else {
        run_lines(&mut conversation, &interrupt)
    }
}

/// One user turn a line; prints the answers alone. An answer that could not be given ends the program.
fn run_lines(conversation: &mut Conversation, interrupt: &Interrupt) -> anyhow::Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line.context("stdin")?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = conversation.ask(&line, interrupt, print)?;
        writeln!(io::stdout())?;
        if answer.reason == FinishReason::Cancelled {
            bail!(Interrupted);
        }
        note_full_context(conversation, &answer.reason);
    }
    Ok(())
}

/// Writes a part of an answer at once.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn note_full_context(conversation: &Conversation, reason: &FinishReason) {
    if *reason == FinishReason::Context {
        note!("stopped: the context of {} tokens is full", conversation.ctx());
    }
}
