//! `puna tokenizer train`: a vocabulary of Llama 2's kind from text.

use std::cell::Cell;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use puna_formats::Existing;
use puna_tokenizer::TokenizerError;
use puna_tokenizer::train::{TrainConfig, Trained};
use serde_json::json;

use super::text::{Blocks, InvalidUtf8};
use crate::args::{ThreadsArg, count, number};
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::{progress, units};

/// Train a vocabulary with Llama 2's settings, from text
#[derive(Args)]
#[command(
    after_help = "Byte-pair encoding as SentencePiece does it: numbers split into digits, rare characters left to bytes, text \
                  taken as it is. Every line counts as a text of its own. The same text gives the same file, for any \
                  number of threads, and other programs read it as a tokenizer.model.\n\n\
                  Example: puna tokenizer train --vocab 32000 --input books.txt.zst more.txt --out my.model"
)]
pub(crate) struct TrainArgs {
    /// Number of pieces, all kinds together
    #[arg(long, value_name = "N", value_parser = count(1))]
    vocab: usize,
    /// The text, plain or compressed (.gz, .zst)
    #[arg(long, value_name = "FILES", num_args = 1.., required = true)]
    input: Vec<PathBuf>,
    /// Lines that are no text: marks between documents
    #[arg(long, value_name = "LINES", num_args = 1..)]
    marker: Vec<String>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Make characters pieces, the frequent first, until they are this share of the text
    #[arg(long, value_name = "X", default_value_t = 0.99995, value_parser = number(0.5, 1.0))]
    character_coverage: f32,
    /// Pieces that are always taken whole
    #[arg(long, value_name = "PIECES", num_args = 1..)]
    user_defined: Vec<String>,
    /// What to do with bytes that are not UTF-8: fail, or replace and count them
    #[arg(long, value_name = "HOW", default_value = "fail", ignore_case = true)]
    invalid_utf8: InvalidUtf8,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: ThreadsArg,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Reads, trains and writes. Ctrl-C leaves nothing behind.
pub(super) fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    existing.check_writable(&args.out)?;
    let interrupt = Interrupt::install()?;
    let go_on = || if interrupt.is_set() { bail!(Interrupted) } else { Ok(()) };
    let reading = progress::over_bytes("reading", 0);
    let merging = progress::over_work("merging");
    let n_invalid = Cell::new(0);
    let blocks = Blocks::new(&args.input, args.invalid_utf8, &reading, &n_invalid)?;
    let config = TrainConfig {
        vocab_size: args.vocab,
        character_coverage: args.character_coverage,
        user_defined: args.user_defined.clone(),
    };
    let trained = puna_tokenizer::train::train(
        blocks.map(|block| go_on().and(block).map(|block| without(block, &args.marker))),
        &config,
        args.threads.n_threads(),
        |n_merges| {
            reading.finish_and_clear();
            merging.set_length(args.vocab as u64);
            merging.set_position(n_merges as u64);
            go_on()
        },
    );
    reading.finish_and_clear();
    merging.finish_and_clear();
    let trained = trained.map_err(|error| match error.downcast_ref() {
        // What training makes itself is no such piece.
        Some(TokenizerError::DuplicatePiece { .. } | TokenizerError::BadPiece { .. }) => {
            Usage(format!("--user-defined: {error}")).into()
        }
        _ => error,
    })?;
    existing.write(&args.out, &trained.model)?;
    report(args, &trained, n_invalid.get(), started.elapsed().as_secs_f64())
}

/// Whole lines without those that are markers.
fn without(block: String, markers: &[String]) -> String {
    if markers.is_empty() {
        return block;
    }
    let is_text = |line: &&str| !markers.iter().any(|marker| line.trim_end() == marker);
    block.split_inclusive('\n').filter(is_text).collect()
}

fn report(args: &TrainArgs, trained: &Trained, n_invalid: u64, secs: f64) -> anyhow::Result<()> {
    let n_pieces = trained.tokenizer.vocab_size();
    let per_byte = trained.n_tokens as f64 / trained.n_bytes as f64;
    let mut out = io::stdout().lock();
    if args.json {
        let object = json!({
            "file": args.out.to_string_lossy(), "n_pieces": n_pieces, "n_merges": trained.n_merges,
            "n_chars": trained.n_chars, "n_user_defined": args.user_defined.len(),
            "text": { "n_bytes": trained.n_bytes, "n_lines": trained.n_lines, "n_words": trained.n_words,
                      "n_invalid_utf8": n_invalid, "n_tokens": trained.n_tokens },
            "tokens_per_byte": per_byte, "secs": secs,
        });
        return Ok(writeln!(out, "{object}")?);
    }
    if n_invalid > 0 {
        note!(
            "\x1b[1;33mwarning:\x1b[0m {} of bytes that are not UTF-8 became U+FFFD",
            units::plural(n_invalid as usize, "sequence")
        );
    }
    writeln!(
        out,
        "wrote {}: {n_pieces} pieces ({} merges, {} characters) in {}",
        args.out.display(),
        trained.n_merges,
        trained.n_chars,
        units::seconds(secs)
    )?;
    writeln!(
        out,
        "text: {} in {}, {} different words; {} tokens, {per_byte:.4} a byte",
        units::bytes(trained.n_bytes),
        units::plural(trained.n_lines as usize, "line"),
        trained.n_words,
        trained.n_tokens
    )?;
    Ok(())
}
