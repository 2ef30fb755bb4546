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

/// What PEFT puts before the names of the model inside it.
const PREFIX: &str = "base_model.model.";

/// What counts of `adapter_config.json`.
#[derive(Deserialize)]
struct Config {
    peft_type: String,
    r: usize,
    lora_alpha: f32,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
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
}

impl Adapted {
    /// Reads the adapters in `folder` for the model `base`.
    ///
    /// # Errors
    /// No such files, another kind of adapters, or ones of another network.
    pub(crate) fn open(base: Arc<dyn TensorSource>, folder: &Path) -> Result<Self, HubError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| HubError::Io { path, source })
        };
        let path = folder.join("adapter_config.json").display().to_string();
        let config: Config =
            serde_json::from_slice(&read("adapter_config.json")?).map_err(|e| {
                FormatError::malformed(&path, "document", "what PEFT writes for LoRA", e)
            })?;
        for (field, fits, expected) in [
            ("peft_type", config.peft_type == "LORA", "LORA"),
            ("r", config.r > 0, "1 or more"),
            ("use_dora", !config.use_dora, "false"),
            ("fan_in_fan_out", !config.fan_in_fan_out, "false"),
        ] {
            if !fits {
                return Err(FormatError::malformed(&path, field, expected, "another value").into());
            }
        }
        let rank = config.r as f32;
        let scale = config.lora_alpha / if config.use_rslora { rank.sqrt() } else { rank };
        let file = folder.join("adapter_model.safetensors").display().to_string();
        let bytes = read("adapter_model.safetensors")?;
        let arrays = SafeTensors::deserialize(&bytes)
            .map_err(|e| FormatError::malformed(&file, "document", "safetensors", e))?;
        let mut adapters = BTreeMap::new();
        for name in arrays.names() {
            let Some(module) = name.strip_suffix(".lora_A.weight") else { continue };
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
        Ok(Self { base, adapters, scale })
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
