//! The metadata of a GGUF file made from a model of any form: the keys of llama.cpp's own conversion.

use std::collections::BTreeMap;
use std::path::Path;

use puna_core::{DType, ModelConfig, RopeScaling, SamplingHints, TensorInfo, WeightId};
use puna_formats::Form;
use puna_formats::gguf::{self, Value};

use super::{ConvertError, notices, plan, vocabulary};
use crate::{HubError, Opened};

/// Keys about tensors that are made anew.
const STALE: [&str; 3] = [crate::quantize::PROOF_PREFIX, "quantize.imatrix.", plan::NORM_TYPES];

/// Metadata, and what could not be said in it.
pub(super) struct Metadata {
    pub(super) entries: Vec<(String, Value)>,
    pub(super) notes: Vec<String>,
}

/// The metadata for `source` with its tensors stored as `tensors` say. A GGUF file keeps its own.
pub(super) fn metadata(
    source: &Opened,
    tensors: &[(WeightId, TensorInfo)],
) -> Result<Metadata, HubError> {
    let mut made = Metadata { entries: Vec::new(), notes: Vec::new() };
    let checkpoint = &source.checkpoint;
    if checkpoint.form == Form::Gguf {
        let kept = checkpoint.gguf_metadata.iter();
        let kept = kept.filter(|(key, _)| !key.starts_with("split."));
        made.entries.extend(kept.cloned());
        let stored = |id: WeightId| checkpoint.source.info(id);
        if tensors.iter().any(|(id, info)| stored(*id).as_ref() != Some(info)) {
            made.set("general.file_type", Value::U32(file_type(tensors)));
            // What was proven of the old blocks says nothing of the new ones.
            made.drop_stale();
        }
    } else {
        made.general(source, tensors);
        made.network(checkpoint.source.config());
        made.sampling(&checkpoint.sampling);
        if let Some(types) = plan::norm_types(&*checkpoint.source, tensors) {
            made.set(plan::NORM_TYPES, types);
        }
    }
    if checkpoint.vocab.is_none() || !source.own_tokenizer {
        made.vocabulary(source)?;
    }
    made.files(source)?;
    Ok(made)
}

impl Metadata {
    /// Adds an entry or replaces the one of this name.
    pub(super) fn set(&mut self, key: &str, value: Value) {
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// Drops what the source says of how its blocks were made.
    pub(super) fn drop_stale(&mut self) {
        self.entries.retain(|(key, _)| !STALE.iter().any(|prefix| key.starts_with(prefix)));
    }

    fn general(&mut self, source: &Opened, tensors: &[(WeightId, TensorInfo)]) {
        let text = |text: &str| Value::String(text.to_owned());
        self.set("general.architecture", text("llama"));
        self.set("general.type", text("model"));
        self.set("general.name", text(&model_name(source)));
        if let Some(licence) = notices::licence_name(source) {
            self.set("general.license", Value::String(licence));
        }
        self.set("general.file_type", Value::U32(file_type(tensors)));
        self.set("general.quantization_version", Value::U32(2));
    }

    fn network(&mut self, c: &ModelConfig) {
        for (key, n) in [
            ("llama.vocab_size", c.vocab_size),
            ("llama.context_length", c.max_seq_len),
            ("llama.embedding_length", c.dim),
            ("llama.block_count", c.n_layers),
            ("llama.feed_forward_length", c.hidden_dim),
            ("llama.attention.head_count", c.n_heads),
            ("llama.attention.head_count_kv", c.n_kv_heads),
            ("llama.rope.dimension_count", c.head_dim),
        ] {
            self.set(key, count(n));
        }
        if c.head_dim * c.n_heads != c.dim {
            self.set("llama.attention.key_length", count(c.head_dim));
            self.set("llama.attention.value_length", count(c.head_dim));
        }
        self.set("llama.attention.layer_norm_rms_epsilon", Value::F32(c.norm_eps));
        self.set("llama.rope.freq_base", Value::F32(c.rope.theta));
        self.rope_scaling(c);
    }

    /// How tokens should be drawn.
    fn sampling(&mut self, hints: &SamplingHints) {
        let SamplingHints { temperature, top_k, top_p, min_p, repetition_penalty } = *hints;
        let top_k = top_k.map(|k| Value::I32(k.try_into().unwrap_or(i32::MAX)));
        let [temperature, top_p, min_p, repetition_penalty] =
            [temperature, top_p, min_p, repetition_penalty].map(|x| x.map(Value::F32));
        let values = [temperature, top_k, top_p, min_p, repetition_penalty];
        for (key, value) in gguf::SAMPLING.into_iter().zip(values) {
            if let Some(value) = value {
                self.set(key, value);
            }
        }
    }

    fn rope_scaling(&mut self, c: &ModelConfig) {
        let mut scaling = |kind: &str, factor: f32| {
            self.set("llama.rope.scaling.type", Value::String(kind.to_owned()));
            self.set("llama.rope.scaling.factor", Value::F32(factor));
        };
        match c.rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => scaling("linear", factor),
            RopeScaling::Ntk { original_max_seq_len, .. } => self.notes.push(format!(
                "GGUF has no dynamic NTK scaling of RoPE: it is left out, which changes nothing up to \
                 {original_max_seq_len} tokens and makes longer contexts worse"
            )),
            RopeScaling::Yarn { factor, original_max_seq_len, beta_fast, beta_slow, attn_factor } => {
                scaling("yarn", factor);
                let key = "llama.rope.scaling.original_context_length";
                self.set(key, count(original_max_seq_len));
                self.set("llama.rope.scaling.yarn_beta_fast", Value::F32(beta_fast));
                self.set("llama.rope.scaling.yarn_beta_slow", Value::F32(beta_slow));
                if let Some(attn_factor) = attn_factor {
                    let relative = relative_attn_factor(attn_factor, factor);
                    self.set("llama.rope.scaling.attn_factor", Value::F32(relative));
                }
            }
        }
    }

    /// The tokenizer. Scores of one that is read from `tokenizer.json` follow from its merges, even where a
    /// `tokenizer.model` with scores of its own lies beside it: the ids of every text are the same.
    fn vocabulary(&mut self, source: &Opened) -> Result<(), ConvertError> {
        let tokenizer = &source.tokenizer;
        tokenizer.check_ranked_by_score()?;
        if tokenizer.has_metaspace() {
            self.notes.push(
                "GGUF always puts a space before a text; this tokenizer.json does not where the text begins with one"
                    .to_owned(),
            );
        }
        if tokenizer.settings().remove_extra_whitespaces {
            self.notes.push(
                "this tokenizer shortens runs of spaces to one; llama.cpp keeps them all"
                    .to_owned(),
            );
        }
        let n_rows = source.checkpoint.source.config().vocab_size;
        let n_pieces = tokenizer.vocab_size();
        if n_pieces < n_rows {
            self.notes.push(format!(
                "{} rows of the embedding have no piece; they are called [PAD{n_pieces}] and so on, unused",
                n_rows - n_pieces
            ));
        }
        let pieces = vocabulary::padded(tokenizer.pieces(), n_rows);
        let mut settings = tokenizer.settings().clone();
        if let [first, others @ ..] = &source.checkpoint.eos_ids[..] {
            settings.eos_id = Some(*first);
            if !others.is_empty() {
                self.notes.push(format!(
                    "GGUF holds one token that ends a text: {first} is kept, {others:?} are not"
                ));
            }
        }
        let add_bos = source.bos_id.is_some();
        let entries = vocabulary::entries(&pieces, &settings, add_bos, source.add_eos());
        self.entries.retain(|(key, _)| !key.starts_with("tokenizer.ggml."));
        self.entries.extend(entries);
        if let Some(template) = &source.checkpoint.chat_template {
            self.set("tokenizer.chat_template", Value::String(template.clone()));
        }
        Ok(())
    }

    /// Licence and notice files, as text.
    fn files(&mut self, source: &Opened) -> Result<(), HubError> {
        let notices = notices::files(source)?;
        self.notes.extend(notices.notes);
        for (name, bytes) in notices.files {
            match String::from_utf8(bytes) {
                Ok(text) => self.set(&notices::key(&name), Value::String(text)),
                Err(_) => self.notes.push(format!("{name} is no text: GGUF cannot hold it")),
            }
        }
        Ok(())
    }
}

fn count(n: usize) -> Value {
    Value::U32(u32::try_from(n).expect("a validated configuration has small dimensions"))
}

/// What to call the model: the name of its folder or file.
fn model_name(source: &Opened) -> String {
    let path =
        Path::new(&source.name).canonicalize().unwrap_or_else(|_| source.name.clone().into());
    let name = if path.is_file() { path.file_stem() } else { path.file_name() };
    name.map_or_else(|| source.name.clone(), |name| name.to_string_lossy().into_owned())
}

/// The factor by which a GGUF file multiplies YaRN's own, such that the product is `attn_factor` to the bit where
/// there is such a number.
fn relative_attn_factor(attn_factor: f32, factor: f32) -> f32 {
    let own = 0.1 * factor.ln() + 1.0;
    let quotient = attn_factor / own;
    let near = [quotient, quotient.next_up(), quotient.next_down()];
    near.into_iter().find(|relative| relative * own == attn_factor).unwrap_or(quotient)
}

/// `general.file_type`: llama.cpp's number (`llama_ftype`) for the type of most weights.
fn file_type(tensors: &[(WeightId, TensorInfo)]) -> u32 {
    let mut counts = BTreeMap::<DType, usize>::new();
    for (_, info) in tensors.iter().filter(|(_, info)| info.shape.len() > 1) {
        *counts.entry(info.dtype).or_default() += info.n_elements().unwrap_or(0);
    }
    match counts.into_iter().max_by_key(|&(_, n)| n).map_or(DType::F32, |(dtype, _)| dtype) {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q2_K => 10,
        DType::Q3_K => 11,
        DType::Q4_K => 14,
        DType::Q5_K => 16,
        DType::Q6_K => 18,
        DType::BF16 => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attention_factor_survives() {
        for (attn_factor, factor) in [(1.1, 4.0), (1.0, 8.0), (0.7, 2.5), (1.375, 40.0)] {
            let own = 0.1 * f32::ln(factor) + 1.0;
            assert_eq!(relative_attn_factor(attn_factor, factor) * own, attn_factor);
        }
    }
}
