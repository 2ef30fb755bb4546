//! Adapters in the form of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeSet;
use std::path::Path;

use bytemuck::cast_slice;
use puna_core::{ModelConfig, WeightId};
use puna_formats::hf;
use puna_train::{Layout, Lora, LoraTarget};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::learner::Form;
use super::tensors::{SCORE, floats, parse, rows_as_trained, rows_as_written, write_value_head};
use crate::RecipeError;

pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";

/// What PEFT puts before the names of the model inside it.
const PREFIX: &str = "base_model.model.";

/// The names of an adapter's `A` and `B`.
fn names(id: WeightId) -> [String; 2] {
    let name = hf::name(id);
    let module = name.strip_suffix(".weight").unwrap_or(&name);
    ["A", "B"].map(|factor| format!("{PREFIX}{module}.lora_{factor}.weight"))
}

/// The text of `adapter_config.json` for adapters of the model `base`.
pub(super) fn config_json(lora: &Lora, form: Form, base: &str) -> String {
    let shape = lora.shape();
    let modules: BTreeSet<String> = lora
        .targets()
        .iter()
        .filter_map(|target| hf::name(target.id).rsplit('.').nth(1).map(str::to_owned))
        .collect();
    let (task, saved) = match form {
        Form::Language | Form::Chat => ("CAUSAL_LM", None),
        Form::Score => ("SEQ_CLS", Some(["score"])),
    };
    let value = json!({
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": shape.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": saved,
        "peft_type": "LORA",
        "r": shape.rank,
        "target_modules": modules,
        "task_type": task,
    });
    format!("{value:#}\n")
}

/// Writes adapters. A scoring row is among them in a network that scores, else in a file of its own.
pub(super) fn write(
    folder: &Path,
    layout: &Layout,
    lora: &Lora,
    values: &[f32],
    form: Form,
) -> Result<(), RecipeError> {
    let (config, rank) = (layout.config(), lora.shape().rank);
    let mut arrays = Vec::new();
    for LoraTarget { id, a, b, .. } in lora.targets() {
        let [name_a, name_b] = names(*id);
        let (a, b) = (&values[a.clone()], &values[b.clone()]);
        arrays.push((name_a, vec![rank, a.len() / rank], a.to_vec()));
        let rows = rows_as_written(config, *id, b, rank).concat();
        arrays.push((name_b, vec![b.len() / rank, rank], rows));
    }
    match (form, lora.score()) {
        (Form::Score, Some(row)) => {
            arrays.push((format!("{PREFIX}{SCORE}"), vec![1, config.dim], values[row].to_vec()));
        }
        (_, Some(row)) => write_value_head(folder, &values[row])?,
        (_, None) => {}
    }
    let views = arrays.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), cast_slice(data));
        (name, view.expect("as many bytes as the shape asks for"))
    });
    let file = folder.join(WEIGHTS);
    safetensors::serialize_to_file(views, None, &file)
        .map_err(|e| RecipeError::io(&file)(std::io::Error::other(e)))
}

/// Reads adapters as [`write()`] wrote them. A scoring row is read if the file has one; else it is zeros.
pub(super) fn read(
    file: &Path,
    bytes: &[u8],
    layout: &Layout,
    lora: &Lora,
) -> Result<Vec<f32>, RecipeError> {
    let (config, rank): (&ModelConfig, usize) = (layout.config(), lora.shape().rank);
    let arrays = parse(file, bytes)?;
    let mut values = vec![0.0; lora.len()];
    for LoraTarget { id, a, b, .. } in lora.targets() {
        let [name_a, name_b] = names(*id);
        let found = floats(file, &arrays, &name_a, &[rank, a.len() / rank])?;
        values[a.clone()].copy_from_slice(&found);
        let found = floats(file, &arrays, &name_b, &[b.len() / rank, rank])?;
        rows_as_trained(config, *id, &found, rank, &mut values[b.clone()]);
    }
    let name = format!("{PREFIX}{SCORE}");
    if let (Some(row), Ok(_)) = (lora.score(), arrays.tensor(&name)) {
        values[row].copy_from_slice(&floats(file, &arrays, &name, &[1, config.dim])?);
    }
    Ok(values)
}
