//! Small random checkpoints that live in memory.

use std::collections::BTreeMap;

use puna_core::{
    DType, ModelConfig, Rng, Rope, RopeLayout, RopeScaling, SharedBytes, SourceError, Tensor,
    TensorInfo, TensorSource, WeightId,
};

/// A checkpoint of random weights: matrices of one type, norms in `f32` near 1.
pub struct TinySource {
    config: ModelConfig,
    tensors: BTreeMap<WeightId, Tensor>,
}

/// A configuration small enough for tests, with grouped queries and an untied output; every row
/// length is a multiple of 256, so that every type can store it.
pub fn tiny_config() -> ModelConfig {
    ModelConfig {
        dim: 256,
        hidden_dim: 512,
        n_layers: 2,
        n_heads: 8,
        n_kv_heads: 2,
        head_dim: 32,
        vocab_size: 300,
        max_seq_len: 256,
        norm_eps: 1e-5,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
        tied_output: false,
    }
}

impl TinySource {
    /// Weights drawn from `seed`: the same bytes on every machine.
    pub fn new(config: ModelConfig, dtype: DType, seed: u64) -> Self {
        let tensor = |(stream, id): (usize, WeightId)| {
            let shape = id.shape(&config);
            let mut rng = Rng::new(seed, stream as u64);
            let n = shape.iter().product();
            let (dtype, data) = if shape.len() == 1 {
                let norm =
                    (0..n).flat_map(|_| (1.0 + 0.1 * rng.next_normal() as f32).to_le_bytes());
                (DType::F32, norm.collect())
            } else {
                (dtype, random_blocks(dtype, n, &mut rng))
            };
            (id, Tensor { info: TensorInfo { dtype, shape }, data: SharedBytes::new(data) })
        };
        let tensors = WeightId::all(&config).enumerate().map(tensor).collect();
        Self { config, tensors }
    }

    /// Replaces a tensor, for checkpoints that are wrong on purpose; `None` removes it.
    pub fn set(&mut self, id: WeightId, tensor: Option<Tensor>) {
        match tensor {
            Some(tensor) => self.tensors.insert(id, tensor),
            None => self.tensors.remove(&id),
        };
    }
}

impl TensorSource for TinySource {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn info(&self, id: WeightId) -> Option<TensorInfo> {
        self.tensors.get(&id).map(|t| t.info.clone())
    }

    fn load(&self, id: WeightId) -> Result<Tensor, SourceError> {
        self.tensors.get(&id).cloned().ok_or_else(|| SourceError {
            file: "memory".into(),
            tensor: id.to_string(),
            message: "missing".into(),
        })
    }

    fn copies(&self, _: WeightId) -> bool {
        true
    }
}

/// `n` random elements stored as `dtype`, with magnitudes around 0.1: random quants under a fixed scale.
///
/// # Panics
/// If blocks do not divide `n`.
pub fn random_blocks(dtype: DType, n: usize, rng: &mut Rng) -> Vec<u8> {
    let (block_len, block_bytes) = dtype.block();
    assert!(n.is_multiple_of(block_len), "{n} elements in blocks of {block_len}");
    let mut bytes = Vec::with_capacity(n / block_len * block_bytes);
    for _ in 0..n / block_len {
        match dtype {
            DType::F32 => bytes.extend((0.1 * rng.next_normal() as f32).to_le_bytes()),
            DType::BF16 => {
                let bits = (0.1 * rng.next_normal() as f32).to_bits();
                bytes.extend(((bits >> 16) as u16).to_le_bytes());
            }
            // Random sign and mantissa, exponent of 2⁻⁴.
            DType::F16 => bytes.extend((rng.next_u32() as u16 & 0x83ff | 0x2c00).to_le_bytes()),
            _ => {
                let start = bytes.len();
                bytes.extend((0..block_bytes).map(|_| rng.next_u32() as u8));
                for (offset, scale) in f16_scales(dtype) {
                    bytes[start + offset..][..2].copy_from_slice(&scale.to_le_bytes());
                }
            }
        }
    }
    bytes
}

/// Where the f16 fields of a block lie, and bits that give elements a magnitude around 0.1.
fn f16_scales(dtype: DType) -> Vec<(usize, u16)> {
    // f16 bits of 2⁻ⁿ.
    let pow2 = |n: u16| (15 - n) << 10;
    let negative = |bits: u16| bits | 0x8000;
    match dtype {
        DType::Q4_0 => vec![(0, pow2(6))],
        DType::Q4_1 => vec![(0, pow2(6)), (2, negative(pow2(3)))],
        DType::Q5_0 => vec![(0, pow2(7))],
        DType::Q5_1 => vec![(0, pow2(7)), (2, negative(pow2(2)))],
        DType::Q8_0 => vec![(0, pow2(10))],
        DType::Q2_K => vec![(80, pow2(7)), (82, pow2(7))],
        DType::Q3_K => vec![(108, pow2(10))],
        DType::Q4_K => vec![(0, pow2(12)), (2, pow2(9))],
        DType::Q5_K => vec![(0, pow2(13)), (2, pow2(9))],
        DType::Q6_K => vec![(208, pow2(14))],
        DType::F32 | DType::F16 | DType::BF16 => vec![],
    }
}
