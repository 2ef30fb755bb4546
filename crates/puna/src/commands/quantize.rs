//! `puna quantize`: a smaller model, and how far it is from its parent.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use puna_core::{LayerWeight, WeightId};
use puna_eval::{Comparison, Text, built_in_text};
use puna_formats::gguf::WriteOptions;
use puna_formats::{Existing, Imatrix};
use puna_hub::convert::Written;
use puna_hub::quantize::{Fallback, Mix, NamedImatrix, Proof, Quantization};
use puna_hub::{HubError, Opened};
use serde_json::json;

use crate::args::size;
use crate::failure::Interrupted;
use crate::interrupt::Interrupt;
use crate::measuring::{self, MeasuringArgs, read_text, watched};
use crate::{evidence, progress, units};

/// Make a model smaller, and prove what it lost
#[derive(Args)]
#[command(
    after_help = "Matrices get the types that llama.cpp gives them in the mix of this name; norms stay f32. The new file is \
                  compared with its parent on a text before it appears: perplexity of both, KL divergence, and how often \
                  they agree on the most likely token. The figures stand in the file, and puna inspect tells them.\n\n\
                  Example: puna quantize Llama-2-7b/ 7b.Q4_K_M.gguf --type q4_k_m --proof wiki.test.raw --max-kl 0.05"
)]
pub(crate) struct QuantizeArgs {
    /// The model to start from: a file, a folder or a name
    #[arg(value_name = "IN")]
    model: String,
    /// The GGUF file to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// How matrices are stored
    #[arg(long = "type", value_name = "TYPE", ignore_case = true, value_parser = mix())]
    mix: Mix,
    /// Weigh errors by this importance matrix, as puna imatrix or llama.cpp writes it
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Compare with the parent on this text instead of a small built-in one
    #[arg(long, value_name = "TEXT", conflicts_with = "no_proof")]
    proof: Option<PathBuf>,
    /// Compare with nothing, and say so in the file
    #[arg(long)]
    no_proof: bool,
    /// Fail, and leave no file, if the mean KL divergence from the parent is above X nats
    #[arg(long, value_name = "X", value_parser = nats(), conflicts_with = "no_proof")]
    max_kl: Option<f64>,
    /// Split into files of at most SIZE of weights, such as 4GB or 500MB [default: one file]
    #[arg(long, value_name = "SIZE", value_parser = size())]
    split_size: Option<u64>,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    measuring: MeasuringArgs,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,
}

fn mix() -> impl TypedValueParser<Value = Mix> {
    PossibleValuesParser::new(Mix::ALL.map(Mix::name)).try_map(|name| name.parse::<Mix>())
}

/// Parses a divergence.
fn nats() -> impl TypedValueParser<Value = f64> {
    StringValueParser::new().try_map(|text| match text.parse::<f64>() {
        Ok(nats) if nats.is_finite() && nats >= 0.0 => Ok(nats),
        _ => Err("expected a number, 0 or more"),
    })
}

/// Quantises, compares, and puts the file in its place. Ctrl-C leaves nothing behind.
pub(crate) fn run(args: &QuantizeArgs) -> anyhow::Result<()> {
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    existing.check_writable(&args.out)?;
    let model = args.measuring.open(&args.model)?;
    let cpu = args.measuring.cpu()?;
    let imatrix = args.imatrix.as_ref().map(|path| {
        let imatrix = Imatrix::open(path)?;
        Ok::<_, anyhow::Error>(NamedImatrix { name: path.display().to_string(), imatrix })
    });
    let imatrix = imatrix.transpose()?;
    let text = if args.no_proof { None } else { Some(proof_text(args, &model)?) };
    let proof = text.as_ref().map(|text| Proof {
        text,
        options: args.measuring.options(&model, None),
        max_kl: args.max_kl,
    });
    let job = Quantization::new(&model, args.mix, imatrix.as_ref(), proof, &cpu)?;
    tell_plan(&model, &job);

    let interrupt = Interrupt::install()?;
    let started = Instant::now();
    let bar = progress::over_bytes("quantising", job.n_bytes());
    let max_file_bytes = args.split_size.unwrap_or(u64::MAX);
    let options = WriteOptions { existing, max_file_bytes };
    let quantized = job.write(&args.out, &options, &mut |written| {
        bar.set_position(written);
        !interrupt.is_set()
    });
    bar.finish_and_clear();
    let mut quantized = match quantized {
        Err(HubError::Stopped) => bail!(Interrupted),
        quantized => quantized?,
    };
    let write_secs = started.elapsed().as_secs_f64();
    let found = match &proof {
        Some(_) => Some(watched("comparing", &interrupt, |on| quantized.prove(on))?),
        None => None,
    };
    let written = quantized.commit()?;
    for text in &written.notes {
        note!("note: {text}");
    }
    report(args, &job, &written, write_secs, proof.as_ref().zip(found.as_ref()))
}

/// The text to compare on: the one named, or the built-in one.
fn proof_text(args: &QuantizeArgs, model: &Opened) -> anyhow::Result<Text> {
    match &args.proof {
        Some(path) => read_text(model, path),
        None => {
            let (name, text) = built_in_text();
            note!("note: comparing on {name}, which is small; --proof TEXT names another");
            Ok(measuring::text_of(model, name, text.as_bytes())?)
        }
    }
}

/// What is not as one might think.
fn tell_plan(model: &Opened, job: &Quantization<'_>) {
    let source = &*model.checkpoint.source;
    let ids = WeightId::all(source.config());
    let mut stored = ids.filter_map(|id| Some(source.info(id)?.dtype));
    if let Some(dtype) = stored.find(|dtype| !dtype.is_float()) {
        note!(
            "note: {} is quantised already ({dtype}): its errors stay, and the proof is beside it",
            model.name
        );
    }
    let mut groups: BTreeMap<_, Vec<WeightId>> = BTreeMap::new();
    for Fallback { id, cols, wanted, stored } in job.fallbacks() {
        groups.entry((*cols, *wanted, *stored)).or_default().push(*id);
    }
    for ((cols, wanted, stored), ids) in groups {
        note!(
            "note: rows of {cols} are no multiple of {}, the block of {wanted}: {stored} is used instead for {}",
            wanted.block_len(),
            names(&ids)
        );
    }
}

/// Tensors by name, those of neighbouring layers together: `tok_embeddings, layers.0-3,5.w_down`.
fn names(ids: &[WeightId]) -> String {
    let mut by_weight: BTreeMap<LayerWeight, Vec<usize>> = BTreeMap::new();
    let mut names = Vec::new();
    for id in ids {
        match id {
            WeightId::Layer(idx, weight) => by_weight.entry(*weight).or_default().push(*idx),
            other => names.push(other.to_string()),
        }
    }
    for (weight, layers) in by_weight {
        let runs = layers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [one] => one.to_string(),
            run => format!("{}-{}", run[0], run[run.len() - 1]),
        });
        let runs = runs.collect::<Vec<_>>().join(",");
        names.push(WeightId::Layer(0, weight).to_string().replacen('0', &runs, 1));
    }
    names.join(", ")
}

fn report(
    args: &QuantizeArgs,
    job: &Quantization<'_>,
    written: &Written,
    write_secs: f64,
    proof: Option<(&Proof<'_>, &Comparison)>,
) -> anyhow::Result<()> {
    let types = job.types();
    let mut out = io::stdout().lock();
    if args.json {
        let types = types.into_iter().map(|(dtype, (n_tensors, n_bytes))| {
            (dtype.name().to_owned(), json!({ "n_tensors": n_tensors, "n_bytes": n_bytes }))
        });
        let fallbacks = job.fallbacks().iter().map(|f| {
            json!({ "tensor": f.id.to_string(), "wanted": f.wanted.name(), "stored": f.stored.name() })
        });
        let proof = proof.map(|(proof, found)| {
            json!({ "text": evidence::text_json(proof.text, proof.options),
                    "result": evidence::comparison_json(found) })
        });
        let files = written.files.iter().map(|file| file.to_string_lossy());
        let object = json!({
            "model": args.model, "files": files.collect::<Vec<_>>(), "type": args.mix.name(),
            "n_bytes": written.n_bytes, "write_secs": write_secs, "proof": proof,
            "types": types.collect::<serde_json::Map<_, _>>(),
            "fallbacks": fallbacks.collect::<Vec<_>>(),
        });
        return Ok(writeln!(out, "{object}")?);
    }
    let types = types.into_iter().map(|(dtype, (n, _))| format!("{n} {dtype}"));
    writeln!(
        out,
        "wrote {}: {} ({}) in {}",
        args.out.display(),
        units::bytes(written.n_bytes),
        types.collect::<Vec<_>>().join(", "),
        units::seconds(write_secs)
    )?;
    if let Some((proof, found)) = proof {
        writeln!(out, "{}", evidence::heading(proof.text, proof.options, found.child.n_tokens))?;
        evidence::write_comparison(&mut out, found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_layers_stand_together() {
        let down = |idx| WeightId::Layer(idx, LayerWeight::WDown);
        let ids = [WeightId::TokEmbeddings, down(0), down(1), down(2), down(5), down(10)];
        assert_eq!(names(&ids), "tok_embeddings, layers.0-2,5,10.w_down");
        assert_eq!(names(&ids[1..2]), "layers.0.w_down");
    }
}
