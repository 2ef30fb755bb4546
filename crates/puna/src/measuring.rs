//! What the commands share that run a text through a model.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use puna_core::KvType;
use puna_eval::{EvalError, Options, Text};
use puna_hub::{HubError, OpenOptions, Opened};
use puna_kernels::Cpu;

use crate::args::{ThreadsArg, count, kv_type};
use crate::failure::Interrupted;
use crate::interrupt::Interrupt;
use crate::{environment, progress};

/// Tokens of a window unless another number is asked for.
const DEFAULT_CTX: usize = 512;

/// How a text is run through a model.
#[derive(Args)]
pub(crate) struct MeasuringArgs {
    /// Tokens of a window [default: 512, or the model's context]
    #[arg(long, value_name = "N", value_parser = count(1))]
    ctx: Option<usize>,
    /// Read the tokenizer from FILE instead of looking for it
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    tokenizer: Option<PathBuf>,
    /// Add the adapters in DIR, as PEFT and puna sft write them
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    lora: Option<PathBuf>,
    /// How keys and values are stored
    #[arg(long, value_name = "TYPE", default_value = "f16", ignore_case = true,
          value_parser = kv_type(), help_heading = "Model")]
    kv_type: KvType,
    #[command(flatten)]
    threads: ThreadsArg,
}

impl MeasuringArgs {
    /// Opens a model with its tokenizer.
    pub(crate) fn open(&self, model: &str) -> anyhow::Result<Opened> {
        let options = environment::open_options(self.tokenizer.as_ref(), self.lora.as_ref());
        let options = OpenOptions { padded: true, ..options };
        Ok(puna_hub::open(model, &options)?)
    }

    /// How to measure `model`.
    pub(crate) fn options(&self, model: &Opened, stride: Option<usize>) -> Options {
        let trained = model.checkpoint.source.config().max_seq_len;
        let ctx = self.ctx.unwrap_or(DEFAULT_CTX.min(trained));
        if ctx > trained {
            note!(
                "\x1b[1;33mwarning:\x1b[0m --ctx {ctx} is longer than this model's {trained}: the figures are not those \
                 of the model as it is meant to be used"
            );
        }
        Options { ctx, stride, kv_type: self.kv_type }
    }

    /// Where to compute.
    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        Cpu::new(self.threads.n_threads()).context("PUNA_ISA")
    }
}

/// Reads a text for `model`.
pub(crate) fn read_text(model: &Opened, path: &Path) -> anyhow::Result<Text> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| name.clone())?;
    Ok(text_of(model, &name, &bytes)?)
}

/// The text as `model`'s tokens.
pub(crate) fn text_of(model: &Opened, name: &str, bytes: &[u8]) -> Result<Text, EvalError> {
    Text::new(name, bytes, &model.tokenizer, model.bos_id)
}

/// Runs `work` with a progress bar and an ear for Ctrl-C.
pub(crate) fn watched<T, E: Into<HubError>>(
    what: &'static str,
    interrupt: &Interrupt,
    work: impl FnOnce(&mut dyn FnMut(u64, u64) -> bool) -> Result<T, E>,
) -> anyhow::Result<T> {
    let bar = progress::over_work(what);
    let outcome = work(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !interrupt.is_set()
    });
    bar.finish_and_clear();
    match outcome.map_err(Into::into) {
        Err(HubError::Stopped | HubError::Eval(EvalError::Stopped)) => bail!(Interrupted),
        outcome => Ok(outcome?),
    }
}
