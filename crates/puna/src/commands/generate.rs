//! `puna generate`: continue a prompt.

use std::io::{self, Write};
use std::path::Path;

use anyhow::bail;
use clap::Args;
use puna_engine::{FinishReason, Logprobs, Request};
use serde_json::{Value, json};

use crate::args::{DraftArg, ModelArgs, ThreadsArg, count};
use crate::environment;
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::runtime::{Answer, Runtime};
use crate::sampling::SamplingArgs;
use crate::typed::reject_unknown_options;

/// Continue a prompt
#[derive(Args)]
#[command(
    override_usage = "puna generate [OPTIONS] [MODEL] PROMPT",
    after_help = "Without MODEL the built-in stories7m is used. The text goes to stdout, all else to stderr.\n\
                  Put -- before a prompt that looks like an option.\n\n\
                  Example: puna generate \"Once upon a time\""
)]
pub(crate) struct GenerateArgs {
    /// A file, a folder or a name; left out, the single argument is the prompt
    #[arg(value_name = "MODEL", allow_hyphen_values = true)]
    first: Option<String>,
    /// The text to continue
    #[arg(value_name = "PROMPT", allow_hyphen_values = true)]
    second: Option<String>,
    /// Stop after N tokens [default: at the end of text, or when the context is full]
    #[arg(short = 'n', long, value_name = "N", value_parser = count(1))]
    n_tokens: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    threads: ThreadsArg,
    #[command(flatten)]
    draft: DraftArg,
    /// Print one JSON object at the end instead of the text as it comes
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Report the log-probabilities of each token and of the N likeliest in its place (with --json)
    #[arg(long, value_name = "N", requires = "json", value_parser = count(0), help_heading = "Output")]
    logprobs: Option<usize>,
}

/// Loads the model, streams the text, tells what it took.
pub(crate) fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    reject_unknown_options("generate", [args.first.as_ref(), args.second.as_ref()])?;
    let (model, prompt) = model_and_prompt(args.first.as_deref(), args.second.as_deref())?;
    let mut runtime =
        Runtime::load(model, &args.model, args.threads.n_threads(), args.draft.draft)?;
    let tokenizer = &runtime.tokenizer;
    let mut ids: Vec<u32> = runtime.bos_id.into_iter().collect();
    tokenizer.encode_into(prompt, &mut ids);
    if ids.is_empty() {
        bail!(Usage("PROMPT is empty, and this model has no token that begins a text".into()));
    }
    let sampling = args.sampling.resolve(&runtime.sampling);
    let seed = sampling.seed;
    let request = Request {
        prompt: ids,
        max_new_tokens: args.n_tokens,
        sampling,
        stop_ids: runtime.stop_ids.clone(),
        n_logprobs: args.logprobs,
    };
    let interrupt = Interrupt::install()?;
    let mut out = io::stdout().lock();
    let answer = runtime.answer(request, &interrupt, |text| {
        if args.json {
            return Ok(());
        }
        out.write_all(text.as_bytes())?;
        out.flush()
    })?;
    if args.json {
        let mut object = to_json(&runtime, &answer);
        object["seed"] = json!(seed);
        writeln!(out, "{object}")?;
    } else {
        writeln!(out)?;
    }
    eprint_stats(&runtime, &answer)?;
    if answer.reason == FinishReason::Cancelled { Err(Interrupted.into()) } else { Ok(()) }
}

/// A single argument is the prompt; but a path or the name of a pulled model alone is more likely a model without a
/// prompt.
fn model_and_prompt<'a>(
    first: Option<&'a str>,
    second: Option<&'a str>,
) -> anyhow::Result<(&'a str, &'a str)> {
    let missing = |why: String| {
        Usage(format!(
            "the prompt is missing{why}\n\nUsage: puna generate [OPTIONS] [MODEL] PROMPT"
        ))
    };
    match (first, second) {
        (Some(model), Some(prompt)) => Ok((model, prompt)),
        (Some(path), None) if Path::new(path).exists() => {
            bail!(missing(format!(": {path} exists, so it is taken for the model")))
        }
        (Some(name), None) if is_pulled(name) => {
            bail!(missing(format!(": {name} is a model that was pulled")))
        }
        (Some(prompt), None) => Ok((puna_hub::default_model(), prompt)),
        (None, _) => bail!(missing(String::new())),
    }
}

fn is_pulled(name: &str) -> bool {
    environment::store().is_some_and(|store| store.find(name).is_ok())
}

fn eprint_stats(runtime: &Runtime, answer: &Answer) -> io::Result<()> {
    let mut err = anstream::stderr().lock();
    if answer.reason == FinishReason::Context {
        writeln!(err, "stopped: the context of {} tokens is full", runtime.ctx)?;
    }
    writeln!(err, "\x1b[2m{} · {}\x1b[0m", runtime.load_line(), answer.stats_line())
}

fn to_json(runtime: &Runtime, answer: &Answer) -> Value {
    let mut object = json!({
        "model": runtime.name,
        "text": answer.text,
        "ids": answer.tokens.iter().map(|&(id, _)| id).collect::<Vec<_>>(),
        "finish_reason": answer.reason_name(),
        "usage": answer.usage_json(),
        "timings": answer.timings_json(runtime.load_secs),
    });
    let with_logprobs: Option<Vec<Value>> = answer
        .tokens
        .iter()
        .map(|(id, logprobs)| Some(logprobs_json(runtime, *id, logprobs.as_ref()?)))
        .collect();
    if let Some(list) = with_logprobs {
        object["logprobs"] = list.into();
    }
    object
}

fn logprobs_json(runtime: &Runtime, id: u32, logprobs: &Logprobs) -> Value {
    let entry = |id: u32, logprob: f32| {
        let piece = runtime.tokenizer.piece(id).map(|piece| piece.text.as_str());
        json!({ "id": id, "piece": piece, "logprob": logprob })
    };
    let mut object = entry(id, logprobs.chosen);
    object["top"] = logprobs.top.iter().map(|&(id, logprob)| entry(id, logprob)).collect();
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_argument_is_the_prompt() {
        assert_eq!(
            model_and_prompt(Some("hello"), None).unwrap(),
            (puna_hub::default_model(), "hello")
        );
        assert_eq!(model_and_prompt(Some("m"), Some("-p")).unwrap(), ("m", "-p"));
        for path_or_nothing in [Some("."), None] {
            let error = model_and_prompt(path_or_nothing, None).unwrap_err();
            assert!(error.is::<Usage>(), "{error}");
        }
    }
}
