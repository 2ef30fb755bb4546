//! The network's tensors, checked against its configuration and ready for products.

use puna_core::{DType, Tensor};
use puna_core::{LayerWeight, ModelConfig, SharedBytes, TensorSource, WeightId};
use puna_kernels::{MatRef, RopeTable, dequantize};

use crate::{ModelError, rope};

/// A matrix of any stored type, `[rows, cols]`, `y = W x`. Its bytes may lie in a memory map.
pub struct Matrix {
    dtype: DType,
    rows: usize,
    cols: usize,
    data: SharedBytes,
}

impl Matrix {
    /// The kernels' view.
    pub fn view(&self) -> MatRef<'_> {
        MatRef::new(self.dtype, self.rows, self.cols, &self.data)
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Stored bytes.
    pub fn n_bytes(&self) -> usize {
        self.data.len()
    }

    /// Number of multiplications in a product with one vector.
    pub fn n_elements(&self) -> usize {
        self.rows * self.cols
    }

    /// The rows of `indices` as `f32`, `[indices, cols]`.
    pub(crate) fn rows<'a>(&self, indices: impl Iterator<Item = &'a u32>, out: &mut [f32]) {
        let row_bytes = self.data.len() / self.rows;
        for (&idx, out) in indices.zip(out.chunks_exact_mut(self.cols)) {
            let bytes = &self.data[idx as usize * row_bytes..][..row_bytes];
            dequantize(self.dtype, bytes, out);
        }
    }
}

/// The tensors of one transformer block.
pub struct Layer {
    /// RMSNorm before attention, `[D]`.
    pub attn_norm: Vec<f32>,
    /// Queries, `[N·H, D]`.
    pub wq: Matrix,
    /// Keys, `[K·H, D]`.
    pub wk: Matrix,
    /// Values, `[K·H, D]`.
    pub wv: Matrix,
    /// Attention output, `[D, N·H]`.
    pub wo: Matrix,
    /// RMSNorm before the feed-forward layer, `[D]`.
    pub ffn_norm: Vec<f32>,
    /// Gate, `[F, D]`.
    pub w_gate: Matrix,
    /// Up, `[F, D]`.
    pub w_up: Matrix,
    /// Down, `[D, F]`.
    pub w_down: Matrix,
}

impl Layer {
    /// Takes the tensors of block `idx` from `source`.
    pub(crate) fn load(
        source: &dyn TensorSource,
        config: &ModelConfig,
        idx: usize,
    ) -> Result<Self, ModelError> {
        let matrix = |weight| load_matrix(source, config, WeightId::Layer(idx, weight));
        let norm = |weight| load_norm(source, config, WeightId::Layer(idx, weight));
        Ok(Self {
            attn_norm: norm(LayerWeight::AttnNorm)?,
            wq: matrix(LayerWeight::Wq)?,
            wk: matrix(LayerWeight::Wk)?,
            wv: matrix(LayerWeight::Wv)?,
            wo: matrix(LayerWeight::Wo)?,
            ffn_norm: norm(LayerWeight::FfnNorm)?,
            w_gate: matrix(LayerWeight::WGate)?,
            w_up: matrix(LayerWeight::WUp)?,
            w_down: matrix(LayerWeight::WDown)?,
        })
    }

    /// The seven matrices, in the order the forward pass uses them.
    pub fn matrices(&self) -> [&Matrix; 7] {
        [&self.wq, &self.wk, &self.wv, &self.wo, &self.w_gate, &self.w_up, &self.w_down]
    }
}

/// A Llama 2 network: immutable, shared by everything that runs it.
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) ctx: usize,
    pub(crate) tok_embeddings: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Vec<f32>,
    /// `None`: tied to the embeddings.
    pub(crate) output: Option<Matrix>,
    pub(crate) rope_table: RopeTable,
}

impl Model {
    /// Takes every tensor from `source` and checks its shape and size. Sequences may be up to `ctx` positions
    /// long; NTK scaling, where the configuration asks for it, is computed for that length.
    ///
    /// # Errors
    /// A tensor is missing, of another shape than the configuration asks for, or a norm is not finite.
    pub fn load(source: &dyn TensorSource, ctx: usize) -> Result<Self, ModelError> {
        let config = source.config().clone();
        config.validate()?;
        let matrix = |id| load_matrix(source, &config, id);
        Ok(Self {
            tok_embeddings: matrix(WeightId::TokEmbeddings)?,
            layers: (0..config.n_layers)
                .map(|idx| Layer::load(source, &config, idx))
                .collect::<Result<_, ModelError>>()?,
            norm: load_norm(source, &config, WeightId::Norm)?,
            output: (!config.tied_output).then(|| matrix(WeightId::Output)).transpose()?,
            rope_table: rope::table(&config, ctx),
            ctx,
            config,
        })
    }

    /// The network's dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The longest sequence, in positions.
    pub fn ctx(&self) -> usize {
        self.ctx
    }

    /// The transformer blocks.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The output matrix, `[V, D]`: the embeddings where they are tied.
    pub fn output(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.tok_embeddings)
    }

    /// Bytes of weights that a decode step reads: all matrices but the embeddings, unless those are the output.
    pub fn bytes_per_token(&self) -> usize {
        let layers = self.layers.iter().flat_map(Layer::matrices);
        layers.chain([self.output()]).map(Matrix::n_bytes).sum()
    }

    /// Multiply-adds of a decode step in matrix products, attention aside.
    pub fn macs_per_token(&self) -> usize {
        let layers = self.layers.iter().flat_map(Layer::matrices);
        layers.chain([self.output()]).map(Matrix::n_elements).sum()
    }
}

fn load_tensor(
    source: &dyn TensorSource,
    config: &ModelConfig,
    id: WeightId,
) -> Result<Tensor, ModelError> {
    let info = source.info(id).ok_or_else(|| ModelError::Missing { tensor: id.to_string() })?;
    let expected = id.shape(config);
    if info.shape != expected {
        return Err(ModelError::Shape { tensor: id.to_string(), expected, found: info.shape });
    }
    let tensor = source.load(id)?;
    if tensor.info != info || info.n_bytes() != Some(tensor.data.len()) {
        return Err(ModelError::Bytes {
            tensor: id.to_string(),
            dtype: info.dtype,
            expected: info.n_bytes().map_or_else(|| "no whole number of".into(), |n| n.to_string()),
            shape: info.shape,
            found: tensor.data.len(),
        });
    }
    Ok(tensor)
}

pub(crate) fn load_matrix(
    source: &dyn TensorSource,
    config: &ModelConfig,
    id: WeightId,
) -> Result<Matrix, ModelError> {
    let Tensor { info, data } = load_tensor(source, config, id)?;
    Ok(Matrix { dtype: info.dtype, rows: info.shape[0], cols: info.shape[1], data })
}

pub(crate) fn load_norm(
    source: &dyn TensorSource,
    config: &ModelConfig,
    id: WeightId,
) -> Result<Vec<f32>, ModelError> {
    let Tensor { info, data } = load_tensor(source, config, id)?;
    let mut norm = vec![0.0; info.shape[0]];
    dequantize(info.dtype, &data, &mut norm);
    match norm.iter().position(|x| !x.is_finite()) {
        None => Ok(norm),
        Some(index) => {
            Err(ModelError::NotFinite { tensor: id.to_string(), index, value: norm[index] })
        }
    }
}
