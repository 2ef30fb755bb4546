//! `puna bench`: how fast a model runs here, beside what the machine can do.

mod measure;
mod report;

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::TypedValueParser;
use puna_core::{KvType, TensorSource};
use puna_kernels::{Cpu, KV_BLOCK_LEN};
use puna_model::{MemoryPlan, Runner};
use serde_json::json;

use crate::args::{ModelArgs, count, default_threads, n_threads, whole};
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::runtime::{BATCH_TOKENS, context_len, load_network, open};
use crate::{system, units};
use measure::{Bench, Measured};

/// Measure the speed of a model on this machine
#[derive(Args)]
#[command(
    after_help = "Tokens are random and the end of text is ignored. Achieved GB/s and GOP/s stand beside this machine's \
                  peak, measured in the same run.\n\n\
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
    /// How often the prompt is read [default: 3 times, and for 2 seconds]
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
    let bench = resolve(args, ctx)?;
    let kv_type = args.options.kv_type;
    check_sequences(&bench, source, kv_type)?;
    let model = load_network(&args.model, source, kv_type, ctx)?;
    let threads =
        if args.threads.is_empty() { vec![default_threads()] } else { args.threads.clone() };
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
