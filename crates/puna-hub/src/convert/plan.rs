//! Which type each tensor gets.

use puna_core::{DType, TensorInfo, TensorSource, WeightId};
use puna_formats::gguf::Value;
use puna_formats::{Checkpoint, Form};
use puna_kernels::{Cpu, dequantize, quantize};

use crate::HubError;

/// The metadata entry of a GGUF file for the types that the norms, there F32, had where the model came from: their
/// names, in the order of the network. It is there if the types of the matrices, which are kept, do not tell.
pub(super) const NORM_TYPES: &str = "puna.norm_types";

/// Tensors in the order of the file, and what there is to say about their types.
pub(super) struct Types {
    pub(super) tensors: Vec<(WeightId, TensorInfo)>,
    pub(super) notes: Vec<String>,
}

/// Types for a GGUF file: `dtype_of` chooses those of matrices; norms are F32, as llama.cpp asks for.
pub(super) fn for_gguf(
    source: &dyn TensorSource,
    dtype_of: &dyn Fn(WeightId, &TensorInfo) -> DType,
) -> Vec<(WeightId, TensorInfo)> {
    tensors(source, |id, info| if info.shape.len() == 1 { DType::F32 } else { dtype_of(id, info) })
}

/// Types for a Hugging Face folder: matrices are stored as `dtype`, else as they are, else (blocks, which that form
/// does not have) as F32. Norms take the type of the matrices, or the one that [`NORM_TYPES`] tells, where that keeps
/// every value.
pub(super) fn for_folder(
    checkpoint: &Checkpoint,
    dtype: Option<DType>,
    cpu: &Cpu,
) -> Result<Types, HubError> {
    let source = &*checkpoint.source;
    let matrix = |info: &TensorInfo| match dtype {
        Some(dtype) => dtype,
        None if info.dtype.is_float() => info.dtype,
        None => DType::F32,
    };
    let mut notes = Vec::new();
    let stored = tensors(source, |_, info| info.dtype);
    if dtype.is_none() && stored.iter().any(|(_, info)| !info.dtype.is_float()) {
        let note = "quantised matrices become f32, which holds their values exactly; --dtype f16 halves that";
        notes.push(note.to_owned());
    }
    let common = common_type(&stored, matrix);
    // Forms in which norms have a type of their own choice keep it.
    let keeps_norms = dtype.is_none() && checkpoint.form != Form::Gguf;
    let recorded = if dtype.is_none() { recorded_norm_types(checkpoint) } else { Vec::new() };
    let mut recorded = recorded.into_iter();
    let (mut targets, mut n_wide) = (Vec::with_capacity(stored.len()), 0);
    for (id, info) in stored {
        let dtype = if info.shape.len() > 1 {
            matrix(&info)
        } else if keeps_norms {
            info.dtype
        } else {
            let wanted = recorded.next().unwrap_or(common);
            let is_exact = is_exact(source, id, &info, wanted, cpu)?;
            n_wide += usize::from(!is_exact);
            if is_exact { wanted } else { DType::F32 }
        };
        targets.push((id, TensorInfo { dtype, shape: info.shape }));
    }
    if n_wide > 0 {
        notes.push(format!("{n_wide} norms stay f32: their values do not fit into {common}"));
    }
    // Wider types first, so that every tensor begins at a multiple of its elements' size.
    targets.sort_by_key(|(_, info)| std::cmp::Reverse(info.dtype.block().1));
    Ok(Types { tensors: targets, notes })
}

/// What to record as [`NORM_TYPES`] of a model that becomes GGUF with its tensors stored as `targets` say: nothing
/// where a matrix gets another type, or where the norms had that of all matrices.
pub(super) fn norm_types(
    source: &dyn TensorSource,
    targets: &[(WeightId, TensorInfo)],
) -> Option<Value> {
    let stored = tensors(source, |_, info| info.dtype);
    let (norms, matrices): (Vec<_>, Vec<_>) =
        stored.iter().cloned().partition(|(_, info)| info.shape.len() == 1);
    let kept = matrices.iter().all(|tensor| targets.contains(tensor));
    let common = common_type(&stored, |info| info.dtype);
    let told = norms.iter().all(|(_, info)| info.dtype == common);
    (kept && !told).then(|| Value::strings(norms.iter().map(|(_, info)| info.dtype.name())))
}

/// The types of [`NORM_TYPES`]; none where the entry is missing or not as it should be.
fn recorded_norm_types(checkpoint: &Checkpoint) -> Vec<DType> {
    let entry = checkpoint.gguf_metadata.iter().find(|(key, _)| key == NORM_TYPES);
    let names = entry.and_then(|(_, value)| value.as_array()?.strings());
    let types = names.into_iter().flatten().map(|name| {
        let name = std::str::from_utf8(name).ok()?;
        name.parse::<DType>().ok().filter(|dtype| dtype.is_float())
    });
    types.collect::<Option<_>>().unwrap_or_default()
}

/// The type that `dtype_of` gives all matrices; F32, which holds the values of all, where it gives several.
fn common_type(
    stored: &[(WeightId, TensorInfo)],
    dtype_of: impl Fn(&TensorInfo) -> DType,
) -> DType {
    let mut matrices = stored.iter().filter(|(_, info)| info.shape.len() > 1);
    let first = matrices.next().map_or(DType::F32, |(_, info)| dtype_of(info));
    if matrices.all(|(_, info)| dtype_of(info) == first) { first } else { DType::F32 }
}

/// Every tensor of the network with the type that `dtype_of` gives it.
fn tensors(
    source: &dyn TensorSource,
    dtype_of: impl Fn(WeightId, &TensorInfo) -> DType,
) -> Vec<(WeightId, TensorInfo)> {
    let with_type = |id| {
        let info = source.info(id)?;
        let dtype = dtype_of(id, &info);
        Some((id, TensorInfo { dtype, shape: info.shape }))
    };
    WeightId::all(source.config()).filter_map(with_type).collect()
}

/// Whether `dtype` holds every value of a small tensor exactly.
fn is_exact(
    source: &dyn TensorSource,
    id: WeightId,
    info: &TensorInfo,
    dtype: DType,
    cpu: &Cpu,
) -> Result<bool, HubError> {
    if dtype == info.dtype || dtype == DType::F32 {
        return Ok(true);
    }
    let tensor = source.load(id)?;
    let n = info.cols();
    let (mut values, mut back) = (vec![0f32; n], vec![0f32; n]);
    let mut bytes = vec![0; dtype.row_bytes(n).unwrap_or(0)];
    dequantize(info.dtype, &tensor.data, &mut values);
    quantize(cpu, dtype, n, &values, None, &mut bytes);
    dequantize(dtype, &bytes, &mut back);
    Ok(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()))
}
