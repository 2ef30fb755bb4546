//! Adapters in the form of PEFT, added to a model as it is read: `W + lora_alpha/r · B·A`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use puna_core::{
    DType, LayerWeight, ModelConfig, RopeLayout, SharedBytes, SourceError, Tensor, TensorInfo,
    TensorSource, WeightId,
};
use puna_formats::FormatError;
use puna_formats::hf;
use puna_kernels::dequantize;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::HubError;

/// The files of a folder of adapters.
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What PEFT puts before the names of the model inside it.
const PREFIX: &str = "base_model.model.";

/// The row of a network that scores texts, as PEFT names a module that is saved as a whole.
const SCORE: &str = "base_model.model.score.weight";

/// Whether a folder holds adapters, and no model of its own.
pub fn is_adapters(folder: &Path) -> bool {
    folder.join(CONFIG).is_file() && !folder.join("config.json").exists()
}

/// What a network with its adapters does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Predicts tokens.
    Language,
    /// Scores texts: one label.
    Score,
}

impl Task {
    /// PEFT's word for it, which a file of the first kind may lack.
    fn is_named(self, name: Option<&str>) -> bool {
        match self {
            Self::Language => name.is_none_or(|name| name == self.name()),
            Self::Score => name == Some(self.name()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Language => "CAUSAL_LM",
            Self::Score => "SEQ_CLS",
        }
    }
}

/// What counts of `adapter_config.json`.
#[derive(Deserialize)]
struct Config {
    base_model_name_or_path: Option<String>,
    task_type: Option<String>,
    peft_type: String,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f32>>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
}

impl Config {
    /// Reads it in a folder of adapters.
    fn read(folder: &Path) -> Result<Self, HubError> {
        let path = folder.join(CONFIG);
        let file = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|source| HubError::Io { path, source })?;
        let config: Self = serde_json::from_slice(&bytes).map_err(|e| {
            FormatError::malformed(&file, "document", "what PEFT writes for LoRA", e)
        })?;
        let one_alpha = config.alpha_pattern.as_ref().is_none_or(BTreeMap::is_empty);
        for (field, fits, expected) in [
            ("peft_type", config.peft_type == "LORA", "LORA"),
            ("r", config.r > 0, "1 or more"),
            ("alpha_pattern", one_alpha, "none"),
            ("use_dora", !config.use_dora, "false"),
            ("fan_in_fan_out", !config.fan_in_fan_out, "false"),
        ] {
            if !fits {
                return Err(FormatError::malformed(&file, field, expected, "another value").into());
            }
        }
        Ok(config)
    }
}

/// The model that the adapters in `folder` belong to, as `locate` finds what they call it.
pub(crate) fn base_of<T>(
    folder: &Path,
    locate: impl FnOnce(&str) -> Result<T, HubError>,
) -> Result<T, HubError> {
    let wrong = |found: String| {
        let (file, key) = (folder.join(CONFIG), "base_model_name_or_path");
        let expected = "the model that the adapters are added to";
        FormatError::malformed(file.display(), key, expected, found)
    };
    let Some(base) = Config::read(folder)?.base_model_name_or_path else {
        return Err(wrong("none; name it here, or add them to it with --lora".to_owned()).into());
    };
    match locate(&base) {
        Err(HubError::NotFound { .. }) => {
            Err(wrong(format!("{base:?}, and no file, folder or model is called that")).into())
        }
        Err(HubError::TooDeep { most }) => {
            Err(wrong(format!("{base:?}, whose own base is more than {most} folders away")).into())
        }
        found => found,
    }
}

/// One matrix' adapter.
struct Adapter {
    /// `A`, `[rank, cols]`.
    a: Vec<f32>,
    /// `B`, `[rows, rank]`, rows in the order of the model's matrix.
    b: Vec<f32>,
    rank: usize,
}

/// A model with adapters: their matrices are f32, all else is as it was.
pub(crate) struct Adapted {
    base: Arc<dyn TensorSource>,
    adapters: BTreeMap<WeightId, Adapter>,
    scale: f32,
    score: Option<Vec<f32>>,
}

impl Adapted {
    /// Reads the adapters in `folder` for the model `base`.
    ///
    /// # Errors
    /// No such files, another kind of adapters, ones of another task or of another network.
    pub(crate) fn open(
        base: Arc<dyn TensorSource>,
        folder: &Path,
        task: Task,
    ) -> Result<Self, HubError> {
        let config = Config::read(folder)?;
        let found = config.task_type.as_deref();
        if !task.is_named(found) {
            let (file, found) = (folder.join(CONFIG), found.unwrap_or("none"));
            let wrong = FormatError::malformed(file.display(), "task_type", task.name(), found);
            return Err(wrong.into());
        }
        let rank = config.r as f32;
        let scale = config.lora_alpha / if config.use_rslora { rank.sqrt() } else { rank };
        let path = folder.join(WEIGHTS);
        let file = path.display().to_string();
        let bytes = std::fs::read(&path).map_err(|source| HubError::Io { path, source })?;
        let arrays = SafeTensors::deserialize(&bytes)
            .map_err(|e| FormatError::malformed(&file, "document", "safetensors", e))?;
        let mut adapters = BTreeMap::new();
        for name in arrays.names() {
            let Some(module) = name.strip_suffix(".lora_A.weight") else {
                if name.ends_with(".lora_B.weight") || (task == Task::Score && name == SCORE) {
                    continue;
                }
                let (expected, found) = ("no tensor but adapters", "one");
                return Err(FormatError::tensor(&file, name, expected, found).into());
            };
            let id =
                module.strip_prefix(PREFIX).and_then(|module| hf::id(&format!("{module}.weight")));
            let shape = id.and_then(|id| base.info(id)).map(|info| info.shape);
            let (Some(id), Some(&[rows, cols])) = (id, shape.as_deref()) else {
                let expected = "a matrix of the model";
                return Err(FormatError::tensor(&file, name, expected, "none of that name").into());
            };
            let a = floats(&file, &arrays, name, [config.r, cols])?;
            let b = floats(&file, &arrays, &format!("{module}.lora_B.weight"), [rows, config.r])?;
            let b = in_order(base.config(), id, b, config.r);
            adapters.insert(id, Adapter { a, b, rank: config.r });
        }
        if adapters.is_empty() {
            return Err(
                FormatError::malformed(&file, "tensors", "lora_A and lora_B", "none").into()
            );
        }
        let dim = base.config().dim;
        let score =
            (task == Task::Score).then(|| floats(&file, &arrays, SCORE, [1, dim])).transpose()?;
        Ok(Self { base, adapters, scale, score })
    }

    /// The scoring row of a network that scores.
    pub(crate) fn take_score(&mut self) -> Option<Vec<f32>> {
        self.score.take()
    }
}

/// Rows of `B` for queries and keys come in Hugging Face's order, element `i` of a head before `i + H/2`'s partner; in a
/// model that has pairs side by side they change places as its own rows did.
fn in_order(config: &ModelConfig, id: WeightId, b: Vec<f32>, rank: usize) -> Vec<f32> {
    let turned = matches!(id, WeightId::Layer(_, LayerWeight::Wq | LayerWeight::Wk));
    if !turned || config.rope.layout == RopeLayout::Halves {
        return b;
    }
    let (head_dim, half) = (config.head_dim, config.head_dim / 2);
    let from = |row: usize| {
        let (head, i) = (row / head_dim, row % head_dim);
        head * head_dim + i / 2 + if i.is_multiple_of(2) { 0 } else { half }
    };
    (0..b.len() / rank).flat_map(|row| b[from(row) * rank..][..rank].to_vec()).collect()
}

fn floats(
    file: &str,
    arrays: &SafeTensors<'_>,
    name: &str,
    shape: [usize; 2],
) -> Result<Vec<f32>, FormatError> {
    let wrong = |found: String| {
        FormatError::tensor(file, name, format!("floats of shape {shape:?}"), found)
    };
    let array = arrays.tensor(name).map_err(|_| wrong("none".to_owned()))?;
    let dtype = match array.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => return Err(wrong(format!("{other:?}"))),
    };
    if array.shape() != shape {
        return Err(wrong(format!("{:?}", array.shape())));
    }
    let mut values = vec![0.0; shape[0] * shape[1]];
    dequantize(dtype, array.data(), &mut values);
    Ok(values)
}

impl TensorSource for Adapted {
    fn config(&self) -> &ModelConfig {
        self.base.config()
    }

    fn info(&self, id: WeightId) -> Option<TensorInfo> {
        let info = self.base.info(id)?;
        let dtype = if self.adapters.contains_key(&id) { DType::F32 } else { info.dtype };
        Some(TensorInfo { dtype, ..info })
    }

    fn load(&self, id: WeightId) -> Result<Tensor, SourceError> {
        if !self.adapters.contains_key(&id) {
            return self.base.load(id);
        }
        let info = self.info(id).expect("the model has what it was opened with");
        let mut data = Vec::new();
        self.read_rows(id, 0..info.n_rows().unwrap_or(0), &mut data)?;
        Ok(Tensor { info, data: SharedBytes::new(data) })
    }

    fn copies(&self, id: WeightId) -> bool {
        self.adapters.contains_key(&id) || self.base.copies(id)
    }

    fn check_unchanged(&self) -> Result<(), SourceError> {
        self.base.check_unchanged()
    }

    fn read_rows(
        &self,
        id: WeightId,
        rows: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        let (Some(Adapter { a, b, rank }), Some(info)) =
            (self.adapters.get(&id), self.base.info(id))
        else {
            return self.base.read_rows(id, rows, out);
        };
        let (mut stored, cols) = (Vec::new(), info.cols());
        self.base.read_rows(id, rows.clone(), &mut stored)?;
        let mut values = vec![0.0; rows.len() * cols];
        dequantize(info.dtype, &stored, &mut values);
        for (row, values) in rows.zip(values.chunks_exact_mut(cols)) {
            for (factor, a) in b[row * rank..][..*rank].iter().zip(a.chunks_exact(cols)) {
                let factor = factor * self.scale;
                values.iter_mut().zip(a).for_each(|(value, a)| *value += factor * a);
            }
        }
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        Ok(())
    }
}
