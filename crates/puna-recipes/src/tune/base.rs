//! The model that a stage begins with.

use std::path::Path;

use bytemuck::cast_slice;
use puna_core::{LayerWeight, ModelConfig, RopeLayout, TensorSource, WeightId};
use puna_data::Sha256;
use puna_hub::{OpenOptions, Opened};
use puna_kernels::dequantize;
use puna_tokenizer::Tokenizer;
use puna_train::Layout;

use crate::RecipeError;

/// A model's weights in the layout of training, and its tokenizer.
#[derive(Debug)]
pub(crate) struct Base {
    /// What it was asked for by.
    pub name: String,
    /// What finds it from any folder: an absolute path, or a name.
    pub origin: String,
    /// With pairs of RoPE interleaved, as training has them.
    pub config: ModelConfig,
    /// In the order of [`Layout::new`]; behind them may stand zeros for a row that a stage adds.
    pub weights: Vec<f32>,
    pub tokenizer: Tokenizer,
    /// `tokenizer.model`
    pub tokenizer_file: Vec<u8>,
    pub bos_id: u32,
    pub eos_id: u32,
    /// What its licence says of training on what it writes, where it restricts that.
    pub notice: Option<&'static str>,
}

/// In our words; the licence's own decide.
const LLAMA2_NOTICE: &str = "the Llama 2 licence, section 1.b.v, forbids improving other language models with what the \
                             model writes, except Llama 2 and what is derived from it";

impl Base {
    /// Opens a model, decoding what is quantised.
    ///
    /// # Errors
    /// It cannot be opened or read, or its tokenizer has no BOS or EOS, which training needs.
    pub(crate) fn open(name: &str, options: &OpenOptions) -> Result<Self, RecipeError> {
        let Opened { checkpoint, tokenizer, .. } = puna_hub::open(name, options)?;
        let licence =
            puna_hub::licence_of(name, &checkpoint, options)?.and_then(|licence| licence.id);
        let is_llama2 = licence
            .is_some_and(|id| id.to_lowercase().replace(['-', ' '], "").starts_with("llama2"));
        let notice = is_llama2.then_some(LLAMA2_NOTICE);
        let (layout, weights) = dense_weights(name, &*checkpoint.source, Layout::new)?;
        let path = &*puna_hub::result_of(Path::new(name));
        let origin = match path.exists() {
            true => std::path::absolute(path).map_err(RecipeError::io(path))?.display().to_string(),
            false => name.to_owned(),
        };
        let piece = |id: Option<u32>, what: &str| {
            id.ok_or_else(|| {
                RecipeError::Check(format!("{name}: its tokenizer has no {what} piece"))
            })
        };
        let (bos_id, eos_id) =
            (piece(tokenizer.bos_id(), "BOS")?, piece(tokenizer.eos_id(), "EOS")?);
        let tokenizer_file = tokenizer
            .to_sentencepiece()
            .map_err(|e| RecipeError::Check(format!("{name}: tokenizer: {e}")))?;
        Ok(Self {
            name: name.to_owned(),
            origin,
            config: layout.config().clone(),
            weights,
            tokenizer,
            tokenizer_file,
            bos_id,
            eos_id,
            notice,
        })
    }

    /// Where tensors lie in `weights`.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.config)
    }

    /// SHA-256 of the weights.
    pub(crate) fn hash(&self) -> Sha256 {
        Sha256::of(cast_slice(&self.weights[..self.layout().len()]))
    }
}

/// The tensors of a layout as f32, with pairs of RoPE interleaved; a scoring row is zeros. All must be finite numbers: with
/// others, nothing could be learned.
pub(crate) fn dense_weights(
    name: &str,
    source: &dyn TensorSource,
    layout: impl FnOnce(&ModelConfig) -> Layout,
) -> Result<(Layout, Vec<f32>), RecipeError> {
    let halves = source.config().rope.layout == RopeLayout::Halves;
    let mut config = source.config().clone();
    config.rope.layout = RopeLayout::Interleaved;
    let layout = layout(&config);
    let mut weights = vec![0.0; layout.len()];
    for (id, span) in layout.spans() {
        let tensor = source.load(*id).map_err(|e| RecipeError::Check(e.to_string()))?;
        let weights = &mut weights[span.clone()];
        dequantize(tensor.info.dtype, &tensor.data, weights);
        if let Some(x) = weights.iter().find(|x| !x.is_finite()) {
            return Err(RecipeError::Check(format!(
                "{name}: {id}: expected finite numbers, found {x}"
            )));
        }
        if halves && matches!(id, WeightId::Layer(_, LayerWeight::Wq | LayerWeight::Wk)) {
            interleave(weights, config.head_dim, config.dim);
        }
    }
    Ok((layout, weights))
}

/// Row `i` of a head and row `i + H/2` become rows `2i` and `2i + 1`.
fn interleave(rows: &mut [f32], head_dim: usize, dim: usize) {
    let half = head_dim / 2;
    for head in rows.chunks_exact_mut(head_dim * dim) {
        let found = head.to_vec();
        for (i, row) in head.chunks_exact_mut(dim).enumerate() {
            let from = i / 2 + if i % 2 == 0 { 0 } else { half };
            row.copy_from_slice(&found[from * dim..(from + 1) * dim]);
        }
    }
}
