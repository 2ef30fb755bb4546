//! Which type each matrix gets: the mixes of llama.cpp (`llama_tensor_get_type` in its `llama-quant.cpp`), for the
//! networks of this family.

use std::fmt;
use std::str::FromStr;

use puna_core::{DType, LayerWeight, ModelConfig, UnknownType, WeightId};

/// A named way to store a model's matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the names that users know")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Mix {
    Q8_0,
    Q6_K,
    Q5_K_M,
    Q5_K_S,
    Q4_K_M,
    Q4_K_S,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q3_K_L,
    Q3_K_M,
    Q3_K_S,
    Q2_K,
}

impl Mix {
    /// Every mix, in the order commands list them.
    pub const ALL: [Mix; 14] = [
        Mix::Q8_0,
        Mix::Q6_K,
        Mix::Q5_K_M,
        Mix::Q5_K_S,
        Mix::Q4_K_M,
        Mix::Q4_K_S,
        Mix::Q4_0,
        Mix::Q4_1,
        Mix::Q5_0,
        Mix::Q5_1,
        Mix::Q3_K_L,
        Mix::Q3_K_M,
        Mix::Q3_K_S,
        Mix::Q2_K,
    ];

    /// Name, type of most matrices, and number in `general.file_type` (`llama_ftype` of llama.h).
    const fn facts(self) -> (&'static str, DType, u32) {
        match self {
            Mix::Q8_0 => ("q8_0", DType::Q8_0, 7),
            Mix::Q6_K => ("q6_k", DType::Q6_K, 18),
            Mix::Q5_K_M => ("q5_k_m", DType::Q5_K, 17),
            Mix::Q5_K_S => ("q5_k_s", DType::Q5_K, 16),
            Mix::Q4_K_M => ("q4_k_m", DType::Q4_K, 15),
            Mix::Q4_K_S => ("q4_k_s", DType::Q4_K, 14),
            Mix::Q4_0 => ("q4_0", DType::Q4_0, 2),
            Mix::Q4_1 => ("q4_1", DType::Q4_1, 3),
            Mix::Q5_0 => ("q5_0", DType::Q5_0, 8),
            Mix::Q5_1 => ("q5_1", DType::Q5_1, 9),
            Mix::Q3_K_L => ("q3_k_l", DType::Q3_K, 13),
            Mix::Q3_K_M => ("q3_k_m", DType::Q3_K, 12),
            Mix::Q3_K_S => ("q3_k_s", DType::Q3_K, 11),
            Mix::Q2_K => ("q2_k", DType::Q2_K, 10),
        }
    }

    /// The name in lower case, as commands take it.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// The number in `general.file_type`.
    pub const fn file_type(self) -> u32 {
        self.facts().2
    }

    /// The type of most matrices.
    pub const fn base(self) -> DType {
        self.facts().1
    }

    /// The type that the mix wants for a tensor of this network, whether or not its blocks divide the rows. Norms stay
    /// F32. `with_imatrix`: whether there is an importance matrix.
    pub fn wanted(self, id: WeightId, config: &ModelConfig, with_imatrix: bool) -> DType {
        let base = self.base();
        match id {
            WeightId::Norm | WeightId::Layer(_, LayerWeight::AttnNorm | LayerWeight::FfnNorm) => {
                DType::F32
            }
            WeightId::Output => self.output(config),
            WeightId::TokEmbeddings if config.tied_output => self.output(config),
            WeightId::TokEmbeddings => base,
            WeightId::Layer(idx, LayerWeight::Wv) => self.values(idx, config),
            WeightId::Layer(_, LayerWeight::Wo) => match self {
                Mix::Q2_K => DType::Q3_K,
                Mix::Q3_K_M => DType::Q4_K,
                Mix::Q3_K_L => DType::Q5_K,
                _ => base,
            },
            WeightId::Layer(idx, LayerWeight::WDown) => self.down(idx, config, with_imatrix),
            WeightId::Layer(..) => base,
        }
    }

    /// The output matrix, or the embeddings where they are the output: a little better than the rest.
    fn output(self, config: &ModelConfig) -> DType {
        let base = self.base();
        if base == DType::Q8_0 || !config.dim.is_multiple_of(base.block_len()) {
            DType::Q8_0
        } else {
            DType::Q6_K
        }
    }

    /// `wv`: small where queries are grouped, and every query head of its group depends on it.
    fn values(self, idx: usize, config: &ModelConfig) -> DType {
        let n_grouped = config.n_heads / config.n_kv_heads;
        let dtype = match self {
            Mix::Q2_K if n_grouped >= 4 => DType::Q4_K,
            Mix::Q2_K => DType::Q3_K,
            Mix::Q3_K_M if idx < 2 => DType::Q5_K,
            Mix::Q3_K_M => DType::Q4_K,
            Mix::Q3_K_L => DType::Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if deserves_more(idx, config.n_layers) => DType::Q6_K,
            Mix::Q4_K_S if idx < 4 => DType::Q5_K,
            _ => self.base(),
        };
        // Llama 2 70B, told by its depth as llama.cpp tells it.
        let is_70b = config.n_layers == 80 && config.n_heads != config.n_kv_heads;
        match dtype {
            DType::Q3_K | DType::Q4_K if is_70b => DType::Q5_K,
            dtype => dtype,
        }
    }

    /// `w_down`: more bits in the first and last eighth of the layers, and in every third between.
    fn down(self, idx: usize, config: &ModelConfig, with_imatrix: bool) -> DType {
        let n_layers = config.n_layers;
        match self {
            Mix::Q2_K => DType::Q3_K,
            Mix::Q3_K_M if idx < n_layers / 16 => DType::Q5_K,
            Mix::Q3_K_M => DType::Q4_K,
            Mix::Q3_K_L => DType::Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if deserves_more(idx, n_layers) => DType::Q6_K,
            Mix::Q4_K_S if idx < n_layers / 8 => DType::Q5_K,
            Mix::Q4_0 if with_imatrix && idx < n_layers / 8 => DType::Q4_1,
            Mix::Q5_0 if with_imatrix && idx < n_layers / 8 => DType::Q5_1,
            _ => self.base(),
        }
    }
}

/// The layers that the `_M` mixes treat better.
fn deserves_more(idx: usize, n_layers: usize) -> bool {
    let eighth = n_layers / 8;
    idx < eighth || idx >= 7 * n_layers / 8 || (idx - eighth) % 3 == 2
}

/// The type a matrix with rows of `cols` elements gets when `wanted` was asked for: itself, or, where its
/// blocks do not divide the row, the type with blocks of 32 that llama.cpp falls back to, or F16.
pub(crate) fn fitting_type(wanted: DType, cols: usize) -> DType {
    if cols.is_multiple_of(wanted.block_len()) {
        return wanted;
    }
    let smaller_blocks = match wanted {
        DType::Q2_K | DType::Q3_K => DType::Q4_0,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        _ => DType::F16,
    };
    if cols.is_multiple_of(smaller_blocks.block_len()) { smaller_blocks } else { DType::F16 }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mix {
    type Err = UnknownType;

    fn from_str(s: &str) -> Result<Self, UnknownType> {
        Self::ALL.into_iter().find(|mix| mix.name().eq_ignore_ascii_case(s)).ok_or_else(|| {
            let expected = Self::ALL.map(Mix::name).join(", ");
            UnknownType { found: s.to_owned(), expected }
        })
    }
}
