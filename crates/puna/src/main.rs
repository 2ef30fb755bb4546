//! The `puna` program: flags become a checked configuration, that becomes a library call.
//!
//! Generated text and other data go to stdout, all else to stderr. On Windows no console setting is needed for
//! UTF-8: the standard library writes to a console in its own encoding.

#[macro_use]
mod note;

mod args;
mod claim;
mod commands;
mod environment;
mod evidence;
mod failure;
mod interrupt;
mod measuring;
mod memory;
mod progress;
mod runtime;
mod sampling;
mod system;
mod typed;
mod units;

use std::process::ExitCode;

use clap::FromArgMatches;

use crate::args::{Cli, Command};
use crate::commands::{
    align, answer, bench, chat, completions, convert, data, distill, dpo, gatt, generate, imatrix,
    inspect, list, perplexity, ppo, pretrain, pull, quantize, reject, report, reward, rm, serve,
    sft, synth, tokenize, tokenizer,
};

fn main() -> ExitCode {
    system::report_lost_files();
    let matches = args::command().get_matches_from(typed::split_attached(std::env::args_os()));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    failure::report(match &cli.command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Answer(args) => answer::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Tokenizer(args) => tokenizer::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Imatrix(args) => imatrix::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Pull(args) => pull::run(args),
        Command::List(args) => list::run(args),
        Command::Rm(args) => rm::run(args),
        Command::Data(args) => data::run(args),
        Command::Pretrain(args) => pretrain::run(args),
        Command::Sft(args) => sft::run(args),
        Command::Gatt(args) => gatt::run(args),
        Command::Reward(args) => reward::run(args),
        Command::Reject(args) => reject::run(args),
        Command::Ppo(args) => ppo::run(args),
        Command::Distill(args) => distill::run(args),
        Command::Dpo(args) => dpo::run(args),
        Command::Align(args) => align::run(args),
        Command::Report(args) => report::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => completions::run(args),
    })
}
