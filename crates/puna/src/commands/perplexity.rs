//! `puna perplexity`: how well a model predicts a text, and how far it is from another model.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::args::count;
use crate::evidence;
use crate::interrupt::Interrupt;
use crate::measuring::{MeasuringArgs, read_text, watched};

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
    /// Tokens from window to window [default: windows do not overlap]
    #[arg(long, value_name = "N", value_parser = count(1))]
    stride: Option<usize>,
    /// Tell how far the model is from this one: divergence and agreement, token by token
    #[arg(long, value_name = "MODEL")]
    against: Option<String>,
    #[command(flatten)]
    measuring: MeasuringArgs,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(args: &PerplexityArgs) -> anyhow::Result<()> {
    let model = args.measuring.open(&args.model)?;
    let parent = args.against.as_ref().map(|name| args.measuring.open(name)).transpose()?;
    let text = read_text(&model, &args.file)?;
    if let Some(parent) = &parent
        && !text.is_same_for(&read_text(parent, &args.file)?)
    {
        let (model, parent) = (&args.model, &parent.name);
        bail!(
            "{model} and {parent} cut {} into different tokens: they cannot be compared",
            text.name
        );
    }
    let options = args.measuring.options(&model, args.stride);
    let cpu = args.measuring.cpu()?;
    let interrupt = Interrupt::install()?;
    let source = &*model.checkpoint.source;
    let mut out = io::stdout().lock();
    match &parent {
        None => {
            let found = watched("measuring", &interrupt, |on| {
                puna_eval::perplexity(source, &text, options, &cpu, on)
            })?;
            if args.json {
                let result = evidence::perplexity_json(&found);
                let text = evidence::text_json(&text, options);
                let object = json!({ "model": args.model, "text": text, "result": result });
                return Ok(writeln!(out, "{object}")?);
            }
            writeln!(out, "{}", evidence::heading(&text, options, found.n_tokens))?;
            evidence::write_perplexity(&mut out, &found)?;
        }
        Some(parent) => {
            let parent_source = &*parent.checkpoint.source;
            let found = watched("measuring", &interrupt, |on| {
                puna_eval::compare(parent_source, source, &text, options, &cpu, on)
            })?;
            if args.json {
                let result = evidence::comparison_json(&found);
                let text = evidence::text_json(&text, options);
                let object = json!({ "model": args.model, "against": parent.name, "text": text,
                                     "result": result });
                return Ok(writeln!(out, "{object}")?);
            }
            writeln!(out, "{}", evidence::heading(&text, options, found.child.n_tokens))?;
            evidence::write_comparison(&mut out, &found)?;
        }
    }
    Ok(())
}
