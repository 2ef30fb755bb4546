//! Weights in the layout of training and in Hugging Face's safetensors.

use std::path::Path;

use bytemuck::cast_slice;
use puna_core::{DType, LayerWeight, ModelConfig, TensorInfo, WeightId};
use puna_formats::{hf, safetensors as files};
use puna_train::Layout;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::learner::Form;
use crate::RecipeError;

/// The file of a value head: what stands beside a language model and is none of its tensors.
pub(super) const VALUE_HEAD: &str = "value_head.safetensors";

/// The scoring row's name in `LlamaForSequenceClassification`.
pub(super) const SCORE: &str = "score.weight";

/// Writes the weights; a scoring row is among them in a network that scores, else in a file of its own.
pub(super) fn write(
    folder: &Path,
    layout: &Layout,
    weights: &[f32],
    form: Form,
) -> Result<(), RecipeError> {
    let config = layout.config();
    let mut infos: Vec<(String, TensorInfo)> = WeightId::all(config)
        .map(|id| (hf::name(id), TensorInfo { dtype: DType::F32, shape: id.shape(config) }))
        .collect();
    let score = layout.score().map(|row| &weights[row]);
    if form == Form::Score {
        infos
            .push((SCORE.to_owned(), TensorInfo { dtype: DType::F32, shape: vec![1, config.dim] }));
    }
    let mut writer = files::Writer::create(folder, &infos, u64::MAX)?;
    for (id, span) in layout.spans() {
        let (name, weights) = (hf::name(*id), &weights[span.clone()]);
        for rows in rows_as_written(config, *id, weights, config.dim) {
            writer.write_part(&name, cast_slice(rows))?;
        }
    }
    match (form, score) {
        (Form::Score, Some(score)) => writer.write_part(SCORE, cast_slice(score))?,
        (_, Some(score)) => write_value_head(folder, score)?,
        (_, None) => {}
    }
    writer.finish()?;
    Ok(())
}

/// Writes the scoring row of a language model.
pub(super) fn write_value_head(folder: &Path, score: &[f32]) -> Result<(), RecipeError> {
    let file = folder.join(VALUE_HEAD);
    let view = TensorView::new(Dtype::F32, vec![1, score.len()], cast_slice(score));
    let view = view.expect("as many bytes as the shape asks for");
    safetensors::serialize_to_file([(SCORE, view)], None, &file)
        .map_err(|e| RecipeError::io(&file)(std::io::Error::other(e)))
}

/// Rows of `width` elements in the order of Hugging Face's form, in as few pieces as they lie in.
pub(super) fn rows_as_written<'a>(
    config: &ModelConfig,
    id: WeightId,
    rows: &'a [f32],
    width: usize,
) -> Vec<&'a [f32]> {
    match rotated_rows(config, id) {
        None => vec![rows],
        Some(order) => order.map(|row| &rows[row * width..(row + 1) * width]).collect(),
    }
}

/// Puts rows as [`rows_as_written`] has them back in the order of training.
pub(super) fn rows_as_trained(
    config: &ModelConfig,
    id: WeightId,
    found: &[f32],
    width: usize,
    rows: &mut [f32],
) {
    match rotated_rows(config, id) {
        None => rows.copy_from_slice(found),
        Some(order) => {
            for (row, found) in order.zip(found.chunks_exact(width)) {
                rows[row * width..(row + 1) * width].copy_from_slice(found);
            }
        }
    }
}

/// The order in which Hugging Face's form has the rows of `wq` and `wk`: it pairs element `i` of a head with `i + H/2`,
/// training `2i` with `2i + 1`. `None` for other tensors.
fn rotated_rows(config: &ModelConfig, id: WeightId) -> Option<impl Iterator<Item = usize> + use<>> {
    let WeightId::Layer(_, LayerWeight::Wq | LayerWeight::Wk) = id else { return None };
    let (head_dim, n_rows) = (config.head_dim, id.shape(config)[0]);
    Some((0..n_rows).map(move |row| {
        let (head, i) = (row / head_dim, row % head_dim);
        let half = head_dim / 2;
        head * head_dim + if i < half { 2 * i } else { 2 * (i - half) + 1 }
    }))
}

/// Reads the weights of a layout. A scoring row is read if the file has one; else it is zeros.
pub(super) fn read(file: &Path, bytes: &[u8], layout: &Layout) -> Result<Vec<f32>, RecipeError> {
    let config = layout.config();
    let arrays = parse(file, bytes)?;
    let mut weights = vec![0.0; layout.len()];
    for (id, span) in layout.spans() {
        let found = floats(file, &arrays, &hf::name(*id), &id.shape(config))?;
        rows_as_trained(config, *id, &found, config.dim, &mut weights[span.clone()]);
    }
    if let (Some(row), Ok(_)) = (layout.score(), arrays.tensor(SCORE)) {
        weights[row].copy_from_slice(&floats(file, &arrays, SCORE, &[1, config.dim])?);
    }
    Ok(weights)
}

/// Reads the weights of a network that scores texts, and its row, which must be there.
pub(crate) fn read_scoring_network(file: &Path, layout: &Layout) -> Result<Vec<f32>, RecipeError> {
    let bytes = std::fs::read(file).map_err(RecipeError::io(file))?;
    let mut weights = read(file, &bytes, layout)?;
    if let Some(row) = layout.score() {
        weights[row].copy_from_slice(&read_score(file, &bytes, layout)?);
    }
    Ok(weights)
}

/// Reads the scoring row alone.
pub(super) fn read_score(
    file: &Path,
    bytes: &[u8],
    layout: &Layout,
) -> Result<Vec<f32>, RecipeError> {
    floats(file, &parse(file, bytes)?, SCORE, &[1, layout.config().dim])
}

pub(super) fn parse<'a>(file: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, RecipeError> {
    let wrong = |e| RecipeError::run(file, "content", "safetensors", e);
    SafeTensors::deserialize(bytes).map_err(wrong)
}

/// Reads a tensor, all of whose numbers are finite: training lets no other come about.
pub(super) fn floats(
    file: &Path,
    arrays: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, RecipeError> {
    let wrong = |found: String| RecipeError::run(file, name, format!("F32 {shape:?}"), found);
    let array = arrays.tensor(name).map_err(|_| wrong("none".to_owned()))?;
    if array.dtype() != Dtype::F32 || array.shape() != shape {
        return Err(wrong(format!("{:?} {:?}", array.dtype(), array.shape())));
    }
    let numbers = array.data().as_chunks::<4>().0.iter();
    let numbers: Vec<f32> = numbers.map(|&bytes| f32::from_le_bytes(bytes)).collect();
    match numbers.iter().find(|x| !x.is_finite()) {
        Some(x) => Err(RecipeError::run(file, name, "finite numbers", x)),
        None => Ok(numbers),
    }
}
