//! `puna tokenize`: text to ids and back.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use puna_tokenizer::Tokenizer;
use serde_json::json;

use crate::args::{ModelArgs, ThreadsArg};
use crate::environment;
use crate::failure::Usage;

/// Turn text into token ids, or ids into text
#[derive(Args)]
#[command(
    override_usage = "puna tokenize --model MODEL (--encode TEXT | --decode IDS | --file FILE) [--bos] [--json]",
    after_help = "Example: puna tokenize --model stories260K --encode \"Once upon a time\""
)]
pub(crate) struct TokenizeArgs {
    /// The model whose tokenizer to use, or a tokenizer's own file
    #[arg(short, long, value_name = "MODEL", required_unless_present = "tokenizer")]
    model: Option<String>,
    #[command(flatten)]
    action: Action,
    /// Put the token that begins a text first
    #[arg(long, conflicts_with = "decode")]
    bos: bool,
    /// Print {"ids": [...], "pieces": [...]}
    #[arg(long)]
    json: bool,
    // Taken as by every command with a MODEL; of these only the tokenizer matters here.
    #[command(flatten)]
    options: ModelArgs,
    #[command(flatten)]
    _threads: ThreadsArg,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Action {
    /// Encode TEXT
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    encode: Option<String>,
    /// Decode IDS, separated by spaces or commas
    #[arg(long, value_name = "IDS")]
    decode: Option<String>,
    /// Encode the text of FILE
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Opens the tokenizer, never the weights, and prints.
pub(crate) fn run(args: &TokenizeArgs) -> anyhow::Result<()> {
    let tokenizer = open(args)?;
    let ids = match &args.action {
        Action { decode: Some(ids), .. } => {
            let ids = parse_ids(ids, tokenizer.vocab_size())?;
            if !args.json {
                return print_text(&tokenizer, &ids);
            }
            ids
        }
        Action { encode: Some(text), .. } => encode(&tokenizer, text, args.bos)?,
        Action { file: Some(path), .. } => {
            let bytes = fs::read(path).with_context(|| path.display().to_string())?;
            let text = std::str::from_utf8(&bytes)
                .with_context(|| format!("{}: expected UTF-8 text", path.display()))?;
            encode(&tokenizer, text, args.bos)?
        }
        _ => unreachable!("clap asks for one of the three"),
    };
    print_ids(&tokenizer, &ids, args.json)
}

fn open(args: &TokenizeArgs) -> anyhow::Result<Tokenizer> {
    let options =
        environment::open_options(args.options.tokenizer.as_ref(), args.options.lora.as_ref());
    let model = match (&args.model, &args.options.tokenizer) {
        (Some(model), _) => model.clone(),
        // The tokenizer's own file stands for the model.
        (None, Some(file)) => file.to_string_lossy().into_owned(),
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    Ok(puna_hub::open_tokenizer(&model, &options)?.0)
}

fn encode(tokenizer: &Tokenizer, text: &str, bos: bool) -> anyhow::Result<Vec<u32>> {
    let mut ids = Vec::new();
    if bos {
        ids.push(
            tokenizer.bos_id().context("--bos: this tokenizer has no token that begins a text")?,
        );
    }
    tokenizer.encode_into(text, &mut ids);
    Ok(ids)
}

fn parse_ids(text: &str, vocab_size: usize) -> anyhow::Result<Vec<u32>> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    words
        .map(|word| match word.parse::<u32>() {
            Ok(id) if (id as usize) < vocab_size => Ok(id),
            _ => bail!(Usage(format!(
                "--decode: expected ids from 0 to {}, found {word:?}",
                vocab_size.saturating_sub(1)
            ))),
        })
        .collect()
}

/// Writes the decoded text alone; bytes that are not UTF-8 read as U+FFFD.
fn print_text(tokenizer: &Tokenizer, ids: &[u32]) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{}", tokenizer.decode(ids))?;
    Ok(())
}

fn print_ids(tokenizer: &Tokenizer, ids: &[u32], as_json: bool) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    if as_json {
        let pieces: Vec<&str> = ids
            .iter()
            .map(|&id| tokenizer.piece(id).map_or("", |piece| piece.text.as_str()))
            .collect();
        writeln!(out, "{}", json!({ "ids": ids, "pieces": pieces }))?;
    } else {
        for (idx, id) in ids.iter().enumerate() {
            write!(out, "{}{id}", if idx == 0 { "" } else { " " })?;
        }
        writeln!(out)?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_with_spaces_and_commas() {
        assert_eq!(parse_ids("1, 2,3  4", 10).unwrap(), [1, 2, 3, 4]);
        assert!(parse_ids("", 10).unwrap().is_empty());
        for bad in ["10", "-1", "x", "1;2"] {
            assert!(parse_ids(bad, 10).unwrap_err().is::<Usage>(), "{bad}");
        }
    }
}
