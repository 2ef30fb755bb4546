//! `puna bench`: how fast a model runs here, beside what the machine can do.

mod measure;
mod report;
mod speculate;

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::TypedValueParser;
use puna_core::{KvType, TensorSource};
use puna_kernels::{Cpu, KV_BLOCK_LEN};
use puna_model::{MemoryPlan, Runner};
use serde_json::json;

use crate::args::{ModelArgs, count, default_threads, draft_len, n_threads, whole};
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::runtime::{BATCH_TOKENS, context_len, load_network, open};
use crate::{system, units};
use measure::{Bench, Measured};
use speculate::Speculation;

/// Measure the speed of a model on this machine
#[derive(Args)]
#[command(
    after_help = "Tokens are random and the end of text is ignored. Achieved GB/s and GOP/s stand beside this machine's \
                  peak, measured in the same run.\n\n\
                  With --draft the model continues random tokens: once its choices are replaced by the prompt over \
                  and over, a text that repeats its context; once it takes the likeliest token, which tends to repeat \
                  itself; once it draws at temperature 1, which hardly does. Each is written with drafts and without, \
                  in turn, and the texts are compared.\n\n\
                  Example: puna bench model.gguf --threads 1,2"
)]
pub(crate) struct BenchArgs {
    /// A file, a folder or a name
    model: String,
    /// Tokens of the prompt, 0 for none [default: 512, or what the context holds]
    #[arg(short = 'p', long, value_name = "N", value_parser = count(0))]
    prompt_tokens: Option<usize>,
    /// Tokens of the answer, 0 for none [default: 64, or what the context holds]
    #[arg(short = 'n', long, value_name = "N", value_parser = count(0))]
    n_tokens: Option<usize>,
    /// Positions that are in the cache before either
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count(0))]
    depth: usize,
    /// Numbers of sequences that answer together, a token of each in every pass, such as 8,16: tokens of all are
    /// counted
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = n_seqs())]
    parallel: Vec<usize>,
    /// Measure instead what it brings to read up to N tokens ahead where the text repeats itself
    #[arg(long, value_name = "N", value_parser = draft_len(1), conflicts_with_all = ["depth", "parallel"])]
    draft: Option<usize>,
    /// How often the prompt is read, or with --draft each text is written [default: 3 times, and prompts for 2
    /// seconds]
    #[arg(short = 'r', long, value_name = "N", value_parser = count(1))]
    repetitions: Option<usize>,
    /// Numbers of threads, one run each, such as 1,2,4 [default: all this process may use]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = n_threads(),
          help_heading = "Model")]
    threads: Vec<usize>,
    #[command(flatten)]
    options: ModelArgs,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Sequences that fit into one pass.
fn n_seqs() -> impl TypedValueParser<Value = usize> {
    whole(1, BATCH_TOKENS as u64).map(|n| n as usize)
}

/// Loads the model once and measures it with each number of threads.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let opened = open(&args.model, &args.options)?;
    let source = &*opened.checkpoint.source;
    let ctx = context_len(source.config(), args.options.ctx);
    if let Some(max_draft) = args.draft {
        return run_speculation(args, max_draft, ctx, source);
    }
    let bench = resolve(args, ctx)?;
    let kv_type = args.options.kv_type;
    check_sequences(&bench, source, kv_type)?;
    let model = load_network(&args.model, source, kv_type, ctx)?;
    let threads = threads(args);
    let interrupt = Interrupt::install()?;
    let mut runs: Vec<Measured> = Vec::new();
    for n_threads in threads {
        note!("measuring with {}", units::plural(n_threads, "thread"));
        let cpu = Cpu::new(n_threads).context("PUNA_ISA")?;
        let runner = Runner::new(Arc::clone(&model), cpu, kv_type, bench.n_blocks());
        let Some(measured) = bench.run(runner, &interrupt) else { bail!(Interrupted) };
        runs.push(measured);
    }
    let mut out = io::stdout().lock();
    if args.json {
        let runs: Vec<_> = runs.iter().map(report::to_json).collect();
        let object = json!({
            "model": args.model, "n_params": source.config().n_params(),
            "kv_type": kv_type.name(), "ctx": ctx, "prompt_tokens": bench.n_prompt,
            "answer_tokens": bench.n_answer, "depth": bench.depth, "runs": runs,
        });
        writeln!(out, "{object}")?;
    } else {
        report::write(&mut out, &bench, &runs)?;
    }
    Ok(())
}

/// Measures drafts instead.
fn run_speculation(
    args: &BenchArgs,
    max_draft: usize,
    ctx: usize,
    source: &dyn TensorSource,
) -> anyhow::Result<()> {
    let bench = resolve_speculation(args, max_draft, ctx)?;
    let model = load_network(&args.model, source, args.options.kv_type, ctx)?;
    let interrupt = Interrupt::install()?;
    let found = bench.run(&model, args.options.kv_type, &threads(args), &interrupt)?;
    let mut out = io::stdout().lock();
    if args.json {
        let mut object = bench.to_json(&found);
        object["model"] = json!(args.model);
        object["kv_type"] = json!(args.options.kv_type.name());
        writeln!(out, "{object}")?;
    } else {
        speculate::write(&mut out, &found)?;
    }
    Ok(())
}

/// Those asked for, else all.
fn threads(args: &BenchArgs) -> Vec<usize> {
    if args.threads.is_empty() { vec![default_threads()] } else { args.threads.clone() }
}

/// Fits the defaults into the context; what was asked for must fit as it is.
fn resolve(args: &BenchArgs, ctx: usize) -> anyhow::Result<Bench> {
    let room = ctx.saturating_sub(args.depth);
    let n_prompt = args.prompt_tokens.unwrap_or(512.min(room));
    let n_answer = args.n_tokens.unwrap_or(64.min(room));
    let needed = args.depth + n_prompt.max(n_answer).max(1);
    if needed > ctx {
        bail!(Usage(format!(
            "--depth with -p or -n takes {needed} positions, {} more than the context of {ctx}",
            needed - ctx
        )));
    }
    if n_answer == 0 && (n_prompt == 0 || !args.parallel.is_empty()) {
        let what = if n_prompt == 0 { "-p 0 with -n 0" } else { "--parallel with -n 0" };
        bail!(Usage(format!("{what} leaves nothing to measure")));
    }
    let (n_repeats, parallel) = (args.repetitions, args.parallel.clone());
    Ok(Bench { n_prompt, n_answer, depth: args.depth, n_repeats, parallel })
}

/// The same for drafts.
fn resolve_speculation(
    args: &BenchArgs,
    max_draft: usize,
    ctx: usize,
) -> anyhow::Result<Speculation> {
    let n_prompt = args.prompt_tokens.unwrap_or(32.min(ctx / 2));
    let n_answer = args.n_tokens.unwrap_or(256.min(ctx.saturating_sub(n_prompt)));
    let needed = n_prompt.saturating_add(n_answer);
    if n_prompt == 0 || n_answer < 2 || needed > ctx {
        bail!(Usage(format!(
            "--draft with -p {n_prompt} and -n {n_answer} takes {needed} positions of a context of {ctx}; expected a \
             prompt, at least 2 tokens of answer, and no more than the context"
        )));
    }
    Ok(Speculation { n_prompt, n_answer, max_draft, n_rounds: args.repetitions.unwrap_or(3) })
}

/// Refuses more sequences than the memory that is free now can hold.
fn check_sequences(
    bench: &Bench,
    source: &dyn TensorSource,
    kv_type: KvType,
) -> anyhow::Result<()> {
    let n_positions = bench.n_blocks() * KV_BLOCK_LEN;
    let needed = MemoryPlan::new(source, kv_type, n_positions, BATCH_TOKENS).total();
    match system::available_memory() {
        Some(free) if !bench.parallel.is_empty() && needed > free => bail!(
            "--parallel: all sequences together need {}, {} free",
            units::bytes(needed),
            units::bytes(free)
        ),
        _ => Ok(()),
    }
}
