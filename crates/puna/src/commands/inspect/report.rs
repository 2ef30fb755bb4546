//! What `inspect` found, as text and as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use puna_core::{DType, KvType, ModelConfig, RopeScaling};
use puna_formats::{Checkpoint, Form};
use puna_hub::licence::Licence;
use puna_hub::quantize::Evidence;
use puna_hub::{Finding, HubError};
use puna_model::MemoryPlan;
use puna_tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::{files_size, tensors};
use crate::{evidence, system, units};

/// Everything there is to tell.
pub(super) struct Report<'a> {
    pub(super) model: &'a str,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) tokenizer: &'a Result<(Tokenizer, String), HubError>,
    /// `None` if nothing says what it is.
    pub(super) licence: Option<&'a Licence>,
    pub(super) ctx: usize,
    pub(super) kv_type: KvType,
    pub(super) plan: MemoryPlan,
    pub(super) with_tensors: bool,
    /// `None` if the weights were not looked at.
    pub(super) findings: Option<&'a [Finding]>,
}

impl Report<'_> {
    fn config(&self) -> &ModelConfig {
        self.checkpoint.source.config()
    }

    /// Writes the text form.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let c = self.config();
        let mut line = |title: &str, text: String| writeln!(out, "{title:<11} {text}");
        line("model", self.model.to_owned())?;
        line("form", self.form_line())?;
        line("parameters", format!("{} ({})", units::params(c.n_params()), c.n_params()))?;
        line(
            "network",
            format!(
                "dim {}, hidden {}, {}, {} heads of {}, {} for keys and values, vocabulary {}{}",
                c.dim,
                c.hidden_dim,
                units::plural(c.n_layers, "layer"),
                c.n_heads,
                c.head_dim,
                c.n_kv_heads,
                c.vocab_size,
                if c.tied_output { ", output tied to the embeddings" } else { "" }
            ),
        )?;
        line("context", format!("{} tokens, {}", c.max_seq_len, rope_text(c)))?;
        line("types", self.types_line())?;
        line("tokenizer", self.tokenizer_line())?;
        let chat = if self.checkpoint.chat_template.is_some() {
            "the model's template"
        } else {
            "Llama 2"
        };
        line("chat form", chat.to_owned())?;
        let drawing: Vec<_> = self
            .checkpoint
            .sampling
            .stated()
            .map(|(name, x)| format!("{} {x}", name.replace('_', " ")))
            .collect();
        if !drawing.is_empty() {
            line("drawing", drawing.join(", "))?;
        }
        if let Some(proof) = Evidence::of(self.checkpoint) {
            line("proof", proof_line(proof))?;
        }
        line("licence", self.licence_line())?;
        line("memory", self.memory_line())?;
        if self.with_tensors {
            self.write_tensors(out)?;
        }
        self.findings.map_or(Ok(()), |findings| write_findings(out, findings))
    }

    fn form_line(&self) -> String {
        let form = form_name(self.checkpoint.form);
        match files_size(self.checkpoint) {
            Some((n, size)) => {
                format!("{form}, {}, {}", units::plural(n, "file"), units::bytes(size))
            }
            None => format!("{form}, part of this program"),
        }
    }

    /// Tensors and bytes of each type.
    fn types(&self) -> BTreeMap<DType, (usize, u64)> {
        let mut types = BTreeMap::new();
        for (_, info) in tensors(&*self.checkpoint.source) {
            let entry: &mut (usize, u64) = types.entry(info.dtype).or_default();
            entry.0 += 1;
            entry.1 += info.n_bytes().unwrap_or(0) as u64;
        }
        types
    }

    fn types_line(&self) -> String {
        let types = self.types().into_iter();
        let texts = types.map(|(dtype, (n, size))| {
            format!("{} {dtype} ({})", units::plural(n, "tensor"), units::bytes(size))
        });
        texts.collect::<Vec<_>>().join(", ")
    }

    fn tokenizer_line(&self) -> String {
        match self.tokenizer {
            Ok((tokenizer, origin)) => {
                let (n, expected) = (tokenizer.vocab_size(), self.config().vocab_size);
                let mismatch = if n == expected { "" } else { ": does not fit this model" };
                format!("{n} pieces, from {origin}{mismatch}")
            }
            Err(HubError::NoTokenizer { .. }) => {
                "not found; give it with --tokenizer FILE".to_owned()
            }
            Err(e) => format!("cannot be read: {e}"),
        }
    }

    fn licence_line(&self) -> String {
        let Some(licence) = self.licence else { return "not stated".to_owned() };
        let Licence { id, sha256, accepted, source } = licence;
        let id = id.as_deref().unwrap_or("not named");
        let sha256 = sha256.as_ref().map(|sum| format!(", SHA-256 {sum}")).unwrap_or_default();
        match accepted {
            Some(date) => format!("{id}, accepted {date}{sha256}"),
            None => format!("{id}, from {source}{sha256}"),
        }
    }

    fn memory_line(&self) -> String {
        let plan = &self.plan;
        let free = system::available_memory()
            .map(|free| format!("; {} free", units::bytes(free)))
            .unwrap_or_default();
        format!(
            "{} with --ctx {} --kv-type {}: weights {}, cache {}, work {}{free}",
            units::bytes(plan.total()),
            self.ctx,
            self.kv_type,
            units::bytes(plan.mapped + plan.copied),
            units::bytes(plan.kv_cache),
            units::bytes(plan.scratch),
        )
    }

    fn write_tensors(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\n{:<24} {:<6} {:>16} {:>10}", "tensor", "type", "shape", "size")?;
        for (id, info) in tensors(&*self.checkpoint.source) {
            let shape: Vec<String> = info.shape.iter().map(ToString::to_string).collect();
            let size = units::bytes(info.n_bytes().unwrap_or(0) as u64);
            writeln!(out, "{id:<24} {:<6} {:>16} {size:>10}", info.dtype, shape.join(" x "))?;
        }
        Ok(())
    }

    /// The JSON form: the same facts, sizes in bytes.
    pub(super) fn to_json(&self) -> Value {
        let c = self.config();
        let checkpoint = self.checkpoint;
        let types = self.types().into_iter();
        let types = types.map(|(dtype, (n_tensors, n_bytes))| {
            (dtype.name().to_owned(), json!({ "n_tensors": n_tensors, "n_bytes": n_bytes }))
        });
        let tokenizer = match self.tokenizer {
            Ok((tokenizer, origin)) => json!({
                "found": origin, "n_pieces": tokenizer.vocab_size(),
                "bos_id": tokenizer.bos_id(), "eos_id": tokenizer.eos_id(),
            }),
            Err(e) => json!({ "found": null, "error": e.to_string() }),
        };
        let mut object = json!({
            "model": self.model,
            "form": form_name(checkpoint.form),
            "files": checkpoint.files.iter().map(|f| f.to_string_lossy()).collect::<Vec<_>>(),
            "n_params": c.n_params(),
            "config": {
                "dim": c.dim, "hidden_dim": c.hidden_dim, "n_layers": c.n_layers,
                "n_heads": c.n_heads, "n_kv_heads": c.n_kv_heads, "head_dim": c.head_dim,
                "vocab_size": c.vocab_size, "max_seq_len": c.max_seq_len,
                "norm_eps": c.norm_eps, "rope_theta": c.rope.theta,
                "rope_scaling": scaling_text(c), "tied_output": c.tied_output,
            },
            "types": types.collect::<serde_json::Map<_, _>>(),
            "tokenizer": tokenizer,
            "chat_template": checkpoint.chat_template,
            "sampling": self.checkpoint.sampling.stated().map(|(name, x)| (name.to_owned(), json!(x))).collect::<serde_json::Map<_, _>>(),
            "licence": self.licence.map(|licence| json!({
                "id": licence.id, "sha256": licence.sha256, "accepted": licence.accepted,
                "source": licence.source,
            })),
            "memory": {
                "ctx": self.ctx, "kv_type": self.kv_type.name(),
                "weights_mapped": self.plan.mapped, "weights_copied": self.plan.copied,
                "kv_cache": self.plan.kv_cache, "work": self.plan.scratch,
                "total": self.plan.total(), "free": system::available_memory(),
            },
            "proof": Evidence::of(checkpoint).map(proof_json),
            "metadata": checkpoint.metadata.iter().cloned().collect::<BTreeMap<_, _>>(),
            "ignored_tensors": checkpoint.ignored,
        });
        if self.with_tensors {
            object["tensors"] = tensors(&*checkpoint.source)
                .map(|(id, info)| {
                    json!({ "name": id.to_string(), "type": info.dtype.name(), "shape": info.shape,
                            "n_bytes": info.n_bytes() })
                })
                .collect();
        }
        if let Some(findings) = self.findings {
            object["check"] = findings.iter().map(finding_json).collect();
        }
        object
    }
}

fn write_findings(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    if findings.is_empty() {
        return writeln!(out, "{:<11} no NaN, no infinities, no tensor of zeros", "check");
    }
    for f in findings {
        let mut faults = Vec::new();
        if f.n_nan > 0 {
            faults.push(format!("{} NaN", f.n_nan));
        }
        if f.n_infinite > 0 {
            faults.push(format!("{} infinite", f.n_infinite));
        }
        if f.all_zero {
            faults.push("all zero".to_owned());
        }
        let first = f.first_bad.map(|idx| format!(", the first at {idx}")).unwrap_or_default();
        writeln!(out, "{:<11} {}: {}{first}", "check", f.id, faults.join(", "))?;
    }
    Ok(())
}

fn finding_json(f: &Finding) -> Value {
    json!({ "tensor": f.id.to_string(), "n_nan": f.n_nan, "n_infinite": f.n_infinite,
            "all_zero": f.all_zero, "first_bad": f.first_bad })
}

/// What was proven of a quantised model, or why nothing was.
fn proof_line(proof: Result<Evidence, String>) -> String {
    match proof {
        Err(reason) => reason,
        Ok(e) => format!(
            "KL divergence {} nats (99 % {}) and top-1 agreement {:.2} % with {}, perplexity {} (parent {}), on {} of {}",
            evidence::with_error(e.kl),
            evidence::short(e.kl_p99),
            100.0 * e.same_top.mean,
            e.parent,
            evidence::with_error(e.perplexity),
            evidence::with_error(e.parent_perplexity),
            units::plural(e.n_tokens as usize, "token"),
            e.text,
        ),
    }
}

fn proof_json(proof: Result<Evidence, String>) -> Value {
    match proof {
        Err(reason) => json!({ "status": reason }),
        Ok(e) => json!({
            "status": "measured", "parent": e.parent, "text": e.text, "text_sha256": e.text_sha256,
            "ctx": e.ctx, "kv_type": e.kv_type, "n_tokens": e.n_tokens,
            "ln_ratio": evidence::estimate(e.ln_ratio),
            "parent_perplexity": evidence::estimate(e.parent_perplexity),
            "perplexity": evidence::estimate(e.perplexity),
            "kl": evidence::estimate(e.kl), "kl_p99": e.kl_p99, "kl_max": e.kl_max,
            "top_1_agreement": evidence::estimate(e.same_top),
        }),
    }
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::Meta => "Meta",
        Form::HuggingFace => "Hugging Face",
        Form::Gguf => "GGUF",
        Form::Llama2c => "llama2.c",
    }
}

fn rope_text(c: &ModelConfig) -> String {
    let scaling = scaling_text(c).map(|text| format!(", {text}")).unwrap_or_default();
    format!("RoPE base {}{scaling}", c.rope.theta)
}

fn scaling_text(c: &ModelConfig) -> Option<String> {
    match c.rope.scaling {
        RopeScaling::None => None,
        RopeScaling::Linear { factor } => Some(format!("linear scaling by {factor}")),
        RopeScaling::Ntk { factor, .. } => Some(format!("NTK scaling by {factor}")),
        RopeScaling::Yarn { factor, .. } => Some(format!("YaRN scaling by {factor}")),
    }
}
