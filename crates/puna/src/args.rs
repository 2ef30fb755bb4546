//! The command line as typed. Each subcommand's own arguments stand in its file under `commands`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use puna_core::KvType;
use puna_engine::{EngineConfig, MAX_DRAFT};

use crate::commands::{
    align, answer, bench, chat, completions, convert, data, distill, dpo, gatt, generate, imatrix,
    inspect, list, perplexity, ppo, pretrain, pull, quantize, reject, report, reward, rm, serve,
    sft, synth, tokenize, tokenizer,
};

/// Run Llama 2 from any published form of its weights
#[derive(Parser)]
#[command(name = "puna", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One variant a subcommand.
#[derive(Subcommand)]
pub(crate) enum Command {
    Generate(generate::GenerateArgs),
    Chat(chat::ChatArgs),
    Serve(serve::ServeArgs),
    Answer(answer::AnswerArgs),
    Inspect(inspect::InspectArgs),
    Tokenize(tokenize::TokenizeArgs),
    Tokenizer(tokenizer::TokenizerArgs),
    Convert(convert::ConvertArgs),
    Synth(synth::SynthArgs),
    Quantize(quantize::QuantizeArgs),
    Imatrix(imatrix::ImatrixArgs),
    Perplexity(perplexity::PerplexityArgs),
    Pull(pull::PullArgs),
    List(list::ListArgs),
    Rm(rm::RmArgs),
    Data(data::DataArgs),
    Pretrain(pretrain::PretrainArgs),
    Sft(sft::SftArgs),
    Gatt(gatt::GattArgs),
    Reward(reward::RewardArgs),
    Reject(reject::RejectArgs),
    Ppo(ppo::PpoArgs),
    Distill(distill::DistillArgs),
    Dpo(dpo::DpoArgs),
    Align(align::AlignArgs),
    Report(report::ReportArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
}

/// Which subcommands the short help lists together.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Text", &["generate", "chat", "serve", "answer"]),
    ("Models", &["inspect", "tokenize", "convert", "quantize", "synth"]),
    ("Quality", &["imatrix", "perplexity"]),
    ("Training", &["tokenizer", "data", "pretrain", "report"]),
    ("Alignment", &["sft", "gatt", "reward", "reject", "ppo", "distill", "dpo", "align"]),
    ("Store", &["pull", "list", "rm"]),
    ("Machine and shell", &["bench", "completions"]),
];

/// The `clap` command with the grouped help in place.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    let mut help = String::from("{about}\n\n{usage-heading} puna COMMAND [OPTIONS]\n");
    for (title, names) in GROUPS {
        help.push_str(&format!("\n{title}:\n"));
        for name in names {
            let sub = command.find_subcommand(name).expect("GROUPS names existing subcommands");
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            help.push_str(&format!("  {name:<13}{about}\n"));
        }
    }
    help.push_str("\nOptions:\n{options}\n\n");
    help.push_str("MODEL is a file, a folder or a name. `puna COMMAND --help` tells more.\n");
    help.push_str(
        "Exit codes: 0 done; 1 failed; 2 asked for what cannot be, on the command line, in a\n",
    );
    help.push_str("configuration, or of memory; 130 stopped by Ctrl-C.\n");
    command.help_template(help).mut_subcommands(|sub| {
        sub.mut_args(take_negative_numbers)
            .mut_subcommands(|sub| sub.mut_args(take_negative_numbers))
    })
}

/// `--seed -1` is a wrong seed, not an unknown option `-1`.
fn take_negative_numbers(arg: clap::Arg) -> clap::Arg {
    let takes = !arg.is_positional() && arg.get_action().takes_values();
    if takes { arg.allow_negative_numbers(true) } else { arg }
}

/// Options of every command that runs or describes a model, except threads.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Read the tokenizer from FILE instead of looking for it
    #[arg(long, value_name = "FILE")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Add the adapters in DIR, as PEFT and puna sft write them
    #[arg(long, value_name = "DIR")]
    pub(crate) lora: Option<PathBuf>,
    /// Context length in tokens [default: the model's]
    #[arg(long, value_name = "N", value_parser = count(1))]
    pub(crate) ctx: Option<usize>,
    /// How keys and values are stored
    #[arg(long, value_name = "TYPE", default_value = "f16", ignore_case = true,
          value_parser = kv_type())]
    pub(crate) kv_type: KvType,
}

/// `--threads N`.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model")]
pub(crate) struct ThreadsArg {
    /// Threads to compute with [default: all this process may use]
    #[arg(long, value_name = "N", value_parser = n_threads())]
    threads: Option<usize>,
}

impl ThreadsArg {
    /// The number given, else the number of CPUs this process may use: the affinity mask and the CPU
    /// quota of its cgroups are respected by the standard library.
    pub(crate) fn n_threads(&self) -> usize {
        self.threads.unwrap_or_else(default_threads)
    }
}

/// `--draft N`.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model")]
pub(crate) struct DraftArg {
    /// Read up to N tokens ahead where the text repeats itself; the text is the same, only faster; 0 for none
    #[arg(long, value_name = "N", default_value_t = EngineConfig::default().max_draft,
          value_parser = draft_len(0))]
    pub(crate) draft: usize,
}

/// See [`ThreadsArg::n_threads`].
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Upper bound on counts given by hand; enough for any context, far from overflow.
const MAX_COUNT: u64 = 1 << 24;

/// Most threads that are started: a pool beyond that fails in the middle of its start, and helps nobody.
const MAX_THREADS: u64 = 1024;

/// Parses a whole number from `min` on.
pub(crate) fn count(min: u64) -> impl TypedValueParser<Value = usize> {
    whole(min, MAX_COUNT).map(|n| n as usize)
}

/// Parses a number of threads.
pub(crate) fn n_threads() -> impl TypedValueParser<Value = usize> {
    whole(1, MAX_THREADS).map(|n| n as usize)
}

/// Parses a number of tokens to draft, from `min` on.
pub(crate) fn draft_len(min: u64) -> impl TypedValueParser<Value = usize> {
    whole(min, MAX_DRAFT as u64).map(|n| n as usize)
}

/// Parses a whole number in `[low, high]`.
pub(crate) fn whole(low: u64, high: u64) -> impl TypedValueParser<Value = u64> {
    StringValueParser::new().try_map(move |text| {
        text.parse::<u64>()
            .ok()
            .filter(|value| (low..=high).contains(value))
            .ok_or_else(|| format!("expected a whole number, {low} to {high}"))
    })
}

/// Parses a finite number in `[low, high]`.
pub(crate) fn number(low: f32, high: f32) -> impl TypedValueParser<Value = f32> {
    StringValueParser::new().try_map(move |text| {
        let range = if high == f32::MAX {
            format!("{low} or more")
        } else if low == f32::MIN {
            "any number".to_owned()
        } else {
            format!("{low} to {high}")
        };
        text.parse::<f32>()
            .ok()
            .filter(|value| (low..=high).contains(value))
            .ok_or_else(|| format!("expected a number, {range}"))
    })
}

/// Parses a size in bytes with an optional decimal unit.
pub(crate) fn size() -> impl TypedValueParser<Value = u64> {
    StringValueParser::new().try_map(|text| {
        crate::units::parse_bytes(&text)
            .filter(|&n| n >= 1000)
            .ok_or_else(|| "expected a size of 1KB or more, such as 4GB or 500MB".to_owned())
    })
}

/// Parses a storage type of keys and values.
pub(crate) fn kv_type() -> impl TypedValueParser<Value = KvType> {
    PossibleValuesParser::new(KvType::ALL.map(KvType::name)).try_map(|name| name.parse::<KvType>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_subcommand_is_in_one_group() {
        let mut grouped: Vec<&str> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let command = command();
        let mut all: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        grouped.sort_unstable();
        all.sort_unstable();
        assert_eq!(grouped, all);
    }
}
