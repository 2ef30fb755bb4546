//! The folder to a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_core::{SamplingHints, WeightId};
use serde_json::Value;

use super::config::{MAX_CONFIG_BYTES, config};
use super::names;
use crate::json::{Fields, brief};
use crate::listed::{Index, Parse, Shard, open_index};
use crate::map::read_small;
use crate::weights::{Bytes, Collection, Weights};
use crate::{Checkpoint, Form, FormatError, safetensors, torch};

/// The file that makes a folder one of this form.
pub(crate) const CONFIG: &str = "config.json";

/// Where weights are looked for, first match wins, as in `transformers`.
const WEIGHTS: [(&str, Parse); 4] = [
    ("model.safetensors", safetensors::parse),
    ("model.safetensors.index.json", safetensors::parse),
    ("pytorch_model.bin", torch::parse),
    ("pytorch_model.bin.index.json", torch::parse),
];

/// How `generation_config.json` calls what tokens should be drawn by.
const SAMPLING: [&str; 5] = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"];

/// Whether a folder holds weights of this form.
pub(crate) fn has_weights(folder: &Path) -> bool {
    WEIGHTS.iter().any(|(name, _)| folder.join(name).exists())
}

/// Opens a folder. `weights` is a file in it that was asked for by name; it counts alone unless an index
/// lists it.
pub(crate) fn open(
    folder: &Path,
    weights: Option<(&Path, Parse)>,
) -> Result<Checkpoint, FormatError> {
    let config_path = folder.join(CONFIG);
    let config_name = config_path.display().to_string();
    let json = read_small(&config_path, MAX_CONFIG_BYTES)?;
    let fields = Fields::parse(&config_name, &json)?;
    let config = config(&fields)?;
    let shards = match weights {
        Some((path, parse)) => open_named(folder, path, parse)?,
        None => open_found(folder)?,
    };
    let files = shards.iter().map(|shard| shard.path.clone()).collect();
    let (mut tensors, ignored) = collect(shards)?;
    if config.tied_output {
        drop_tied(&mut tensors)?;
    }
    let generation = SmallJson::read(folder, "generation_config.json")?;
    let generation = generation.fields()?;
    let tokenizer = SmallJson::read(folder, "tokenizer_config.json")?;
    let tokenizer = tokenizer.fields()?;
    let flag = |field| tokenizer.as_ref().map_or(Ok(None), |fields| fields.flag(field));
    let ids = |field, default| token_ids([generation.as_ref(), Some(&fields)], field, default);
    let sampling = generation.as_ref().map_or(Ok(SamplingHints::default()), sampling)?;
    Ok(Checkpoint {
        form: Form::HuggingFace,
        files,
        vocab: None,
        chat_template: chat_template(folder)?,
        metadata: fields.iter().map(|(field, value)| (field.clone(), brief(value))).collect(),
        gguf_metadata: Vec::new(),
        bos_id: ids("bos_token_id", 1)?.first().copied(),
        eos_ids: ids("eos_token_id", 2)?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        sampling,
        ignored,
        source: Arc::new(Weights::new(&config_name, config, tensors, names::name)?),
    })
}

/// What `generation_config.json` says of drawing tokens; `do_sample` false is greedy, whatever stands beside it.
fn sampling(fields: &Fields<'_>) -> Result<SamplingHints, FormatError> {
    let hints = SamplingHints::read(
        SAMPLING,
        |name| fields.float(name),
        |name, expected, found| fields.malformed(name, expected, &found.to_string()),
    )?;
    let greedy = (fields.flag("do_sample")? == Some(false)).then_some(0.0);
    Ok(SamplingHints { temperature: greedy.or(hints.temperature), ..hints })
}

fn open_found(folder: &Path) -> Result<Vec<Shard>, FormatError> {
    for (name, parse) in WEIGHTS {
        let path = folder.join(name);
        if path.exists() {
            return open_path(path, parse);
        }
    }
    let reason = "so are model.safetensors.index.json, pytorch_model.bin and pytorch_model.bin.index.json; \
                  one of the four is needed";
    Err(FormatError::missing(folder.display(), WEIGHTS[0].0, reason))
}

fn open_path(path: PathBuf, parse: Parse) -> Result<Vec<Shard>, FormatError> {
    if path.extension().is_some_and(|e| e == "json") {
        return open_index(&path, parse);
    }
    Ok(vec![Shard::open(path, parse)?])
}

fn open_named(folder: &Path, path: &Path, parse: Parse) -> Result<Vec<Shard>, FormatError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    for (index, parse) in WEIGHTS.into_iter().filter(|(name, _)| name.ends_with(".json")) {
        let index = folder.join(index);
        if index.exists() && Index::open(&index)?.lists(name) {
            return open_index(&index, parse);
        }
    }
    open_path(path.to_owned(), parse)
}

/// Every tensor under its identity, and the names of those that follow from the configuration.
fn collect(shards: Vec<Shard>) -> Result<(Collection, Vec<String>), FormatError> {
    let mut tensors = Collection::default();
    let mut ignored = Vec::new();
    for Shard { file, tensors: listed, .. } in shards {
        for tensor in listed {
            match names::id(&tensor.name) {
                Some(id) => tensors.add(id, tensor.into_piece(&file)?.into_stored())?,
                None if names::is_derived(&tensor.name) => ignored.push(tensor.name),
                None => {
                    let expected = "a tensor of a Llama 2 network";
                    return Err(FormatError::tensor(&file.name, tensor.name, expected, "this one"));
                }
            }
        }
    }
    Ok((tensors, ignored))
}

/// Bytes that are compared at a time.
const STRETCH_BYTES: usize = 1 << 24;

/// Drops an output matrix that was saved although it is the embedding; it has to be that indeed.
fn drop_tied(tensors: &mut Collection) -> Result<(), FormatError> {
    let Some(output) = tensors.remove(WeightId::Output) else { return Ok(()) };
    let same = tensors.get(WeightId::TokEmbeddings).is_some_and(|embeddings| {
        match (&embeddings.bytes, &output.bytes) {
            (Bytes::View(a), Bytes::View(b)) => {
                // In stretches, so that two large tensors do not stay in memory because of a look at them.
                let stretches = a.chunks(STRETCH_BYTES).zip(b.chunks(STRETCH_BYTES));
                embeddings.info == output.info
                    && stretches.into_iter().all(|(x, y)| {
                        let same = x == y;
                        embeddings.file.release(x);
                        output.file.release(y);
                        same
                    })
            }
            _ => false,
        }
    });
    if same {
        return Ok(());
    }
    let expected = "the embedding's values, as tie_word_embeddings is true";
    Err(FormatError::tensor(&output.file.name, &output.name, expected, "others"))
}

/// Token ids from the first place that has the field, where null is none; the default of `LlamaConfig` if none
/// has it.
fn token_ids(
    places: [Option<&Fields<'_>>; 2],
    field: &str,
    default: u32,
) -> Result<Vec<u32>, FormatError> {
    match places.into_iter().flatten().find(|fields| fields.has(field)) {
        Some(fields) => Ok(fields.ids(field)?.unwrap_or_default()),
        None => Ok(vec![default]),
    }
}

/// A JSON file that may be absent.
struct SmallJson {
    name: String,
    bytes: Option<Vec<u8>>,
}

impl SmallJson {
    fn read(folder: &Path, name: &str) -> Result<Self, FormatError> {
        let path = folder.join(name);
        let bytes = path.exists().then(|| read_small(&path, MAX_CONFIG_BYTES)).transpose()?;
        Ok(Self { name: path.display().to_string(), bytes })
    }

    fn fields(&self) -> Result<Option<Fields<'_>>, FormatError> {
        self.bytes.as_ref().map(|bytes| Fields::parse(&self.name, bytes)).transpose()
    }
}

/// The template of `chat_template.jinja`, else of `tokenizer_config.json`: a string, or a list of named ones
/// of which `default` counts.
fn chat_template(folder: &Path) -> Result<Option<String>, FormatError> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        let bytes = read_small(&path, MAX_CONFIG_BYTES)?;
        let text = String::from_utf8(bytes)
            .map_err(|e| FormatError::malformed(path.display(), "template", "UTF-8", e))?;
        return Ok(Some(text));
    }
    let json = SmallJson::read(folder, "tokenizer_config.json")?;
    let Some(fields) = json.fields()? else { return Ok(None) };
    let expected = "a string, or a list of objects with name and template";
    fields.optional("chat_template", expected, |value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default")?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    })
}
