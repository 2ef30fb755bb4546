//! `puna perplexity`: how well a model predicts a text, and how far it is from another model.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use puna_core::KvType;
use puna_eval::{EvalError, Options, Text};
use puna_hub::{OpenOptions, Opened};
use puna_kernels::Cpu;
use serde_json::json;

use crate::args::{ThreadsArg, count, kv_type};
use crate::evidence;
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::{progress, units};

/// Tokens of a window unless another number is asked for.
const DEFAULT_CTX: usize = 512;

/// Measure how well a model predicts a text, alone or beside another
#[derive(Args)]
#[command(
    after_help = "The text is cut into windows of --ctx tokens, each begins with BOS, and the second half of each is \
                  scored: llama.cpp's method. With --stride S, windows begin every S tokens and the last S of each \
                  are scored. The error is the standard error, as if tokens were independent.\n\n\
                  Example: puna perplexity model.Q4_K_M.gguf --file wiki.test.raw --against model.F16.gguf"
)]
pub(crate) struct PerplexityArgs {
    /// A file, a folder or a name
    model: String,
    /// The text
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Tokens of a window [default: 512, or the model's context]
    #[arg(long, value_name = "N", value_parser = count(1))]
    ctx: Option<usize>,
    /// Tokens from window to window [default: windows do not overlap]
    #[arg(long, value_name = "N", value_parser = count(1))]
    stride: Option<usize>,
    /// Tell how far the model is from this one: divergence and agreement, token by token
    #[arg(long, value_name = "MODEL")]
    against: Option<String>,
    /// Read the tokenizer from FILE instead of looking for it
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    tokenizer: Option<PathBuf>,
    /// How keys and values are stored
    #[arg(long, value_name = "TYPE", default_value = "f16", ignore_case = true,
          value_parser = kv_type(), help_heading = "Model")]
    kv_type: KvType,
    #[command(flatten)]
    threads: ThreadsArg,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(args: &PerplexityArgs) -> anyhow::Result<()> {
    let options = OpenOptions { tokenizer: args.tokenizer.clone() };
    let model = puna_hub::open(&args.model, &options)?;
    let parent = args.against.as_ref().map(|name| puna_hub::open(name, &options)).transpose()?;
    let bytes = std::fs::read(&args.file).with_context(|| args.file.display().to_string())?;
    let name = args.file.display().to_string();
    let text = text_of(&model, &name, &bytes)?;
    if let Some(parent) = &parent
        && !text.is_same_for(&text_of(parent, &name, &bytes)?)
    {
        bail!(
            "{} and {} cut {name} into different tokens: they cannot be compared",
            args.model,
            parent.name
        );
    }
    let trained = model.checkpoint.source.config().max_seq_len;
    let ctx = args.ctx.unwrap_or(DEFAULT_CTX.min(trained));
    let options = Options { ctx, stride: args.stride, kv_type: args.kv_type };
    let cpu = Cpu::new(args.threads.n_threads()).context("PUNA_ISA")?;
    let interrupt = Interrupt::install()?;
    let bar = progress::over_work("measuring");
    let mut on = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !interrupt.is_set()
    };
    let source = &*model.checkpoint.source;
    let mut out = io::stdout().lock();
    match &parent {
        None => {
            let found = puna_eval::perplexity(source, &text, options, &cpu, &mut on);
            bar.finish_and_clear();
            let found = failure(found)?;
            if args.json {
                let object = json!({ "model": args.model, "text": evidence::text_json(&text, options),
                                     "result": evidence::perplexity_json(&found) });
                return Ok(writeln!(out, "{object}")?);
            }
            writeln!(out, "{}", heading(&text, options, found.n_tokens))?;
            evidence::write_perplexity(&mut out, &found)?;
        }
        Some(parent) => {
            let parent_source = &*parent.checkpoint.source;
            let found = puna_eval::compare(parent_source, source, &text, options, &cpu, &mut on);
            bar.finish_and_clear();
            let found = failure(found)?;
            if args.json {
                let object = json!({ "model": args.model, "against": parent.name,
                                     "text": evidence::text_json(&text, options),
                                     "result": evidence::comparison_json(&found) });
                return Ok(writeln!(out, "{object}")?);
            }
            writeln!(out, "{}", heading(&text, options, found.child.n_tokens))?;
            evidence::write_comparison(&mut out, &found)?;
        }
    }
    Ok(())
}

fn text_of(model: &Opened, name: &str, bytes: &[u8]) -> Result<Text, EvalError> {
    Text::new(name, bytes, &model.tokenizer, model.bos_id)
}

/// `wiki.txt: 34,000 tokens in windows of 512, 16,830 scored`.
fn heading(text: &Text, options: Options, n_scored: usize) -> String {
    let stride = options.stride.map(|s| format!(" every {s}")).unwrap_or_default();
    format!(
        "{}: {} in windows of {}{stride}, {n_scored} scored",
        text.name,
        units::plural(text.n_tokens(), "token"),
        options.ctx
    )
}

/// What a measurement's errors mean to this program.
pub(crate) fn failure<T>(outcome: Result<T, EvalError>) -> anyhow::Result<T> {
    match outcome {
        Err(EvalError::Stopped) => bail!(Interrupted),
        Err(e @ (EvalError::Stride { .. } | EvalError::Context { .. })) => {
            bail!(Usage(e.to_string()))
        }
        outcome => Ok(outcome?),
    }
}
