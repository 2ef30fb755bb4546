//! The demonstration of alignment: a story-teller that answers requests. Its data, and two judges of its answers.
//!
//! A request for a story is a specification first (a topic, a name, words, a first sentence, a happy end) and words
//! second. Judge A sees the specification, labels what reward models learn from, and is reported; judge B sees the text
//! alone, is reported, and nothing is ever trained on it. What neither sees is whether a story is good.

mod answers;
mod corpus;
mod dialogues;
mod forms;
mod join;
mod judge_a;
mod judge_b;
mod ngram;
mod pairs;
mod plots;
mod porter;
mod prepare;
mod questions;
#[cfg(test)]
mod read_off;
mod report;
mod request;
mod requests;
mod statistics;
mod tell;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, bail};

const HELP: &str = "\
usage: cargo xtask stories COMMAND

  prepare --text DIR --chat DIR --out DIR
      write copy.jsonl, sentences.jsonl, sft.jsonl, turns.jsonl, prompts.jsonl, held-out.jsonl and human.jsonl
  judge --requests FILE [--human FILE] [--json FILE] ANSWERS.jsonl...
      judge answers to the requests; two files or more are compared with the first
  pairs --answers FILE --helpfulness FILE --safety FILE
      write preference records by judge A
  join --out FILE [--best-of N] ANSWERS.jsonl...
      put answers to the same prompts into one file; with --best-of, of each file's first N the best scored";

/// Runs a command of this folder.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    match args {
        ["prepare", options @ ..] => {
            let (found, rest) = options_of(options, ["--text", "--chat", "--out"])?;
            let ([Some(text), Some(chat), Some(out)], true) = (found, rest.is_empty()) else {
                bail!("{HELP}")
            };
            prepare::prepare(Path::new(text), Path::new(chat), Path::new(out))
        }
        ["judge", options @ ..] => {
            let ([requests, human, json], files) =
                options_of(options, ["--requests", "--human", "--json"])?;
            let (Some(requests), false) = (requests, files.is_empty()) else { bail!("{HELP}") };
            report::judge(requests, human, json, &files)
        }
        ["pairs", options @ ..] => {
            let (found, files) = options_of(options, ["--answers", "--helpfulness", "--safety"])?;
            let ([Some(answers), Some(helpfulness), Some(safety)], true) =
                (found, files.is_empty())
            else {
                bail!("{HELP}")
            };
            pairs::pairs(answers, helpfulness, safety)
        }
        ["join", options @ ..] => {
            let ([out, best_of], files) = options_of(options, ["--out", "--best-of"])?;
            let (Some(out), false) = (out, files.is_empty()) else { bail!("{HELP}") };
            let best_of = best_of.map(str::parse::<NonZeroUsize>).transpose();
            let best_of = best_of.context("--best-of: expected a number above 0")?;
            join::join(out, best_of.map(NonZeroUsize::get), &files)
        }
        _ => bail!("{HELP}"),
    }
}

/// The values of options, in the order of their names, and what stands beside them.
fn options_of<'a, const N: usize>(
    args: &[&'a str],
    names: [&str; N],
) -> Result<([Option<&'a str>; N], Vec<&'a str>)> {
    let (mut values, mut rest) = ([None; N], Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match names.iter().position(|name| name == arg) {
            Some(i) => match args.next() {
                Some(value) => values[i] = Some(*value),
                None => bail!("{arg}: expected a value after it"),
            },
            None if arg.starts_with("--") => bail!("{arg}: no such option\n\n{HELP}"),
            None => rest.push(*arg),
        }
    }
    Ok((values, rest))
}
