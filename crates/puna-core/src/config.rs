//! The shape of a Llama 2 network.

use thiserror::Error;

/// How the rows of `wq` and `wk` pair up for rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Element `2i` turns with `2i + 1`: Meta's files, llama2.c, GGUF.
    Interleaved,
    /// Element `i` turns with `i + head_dim / 2`: Hugging Face, whose conversion permutes the rows.
    Halves,
}

/// How rotation angles are stretched beyond the trained context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Angles as trained.
    None,
    /// Positions divided by `factor` (position interpolation, arXiv 2306.15595).
    Linear {
        /// How many times longer the context becomes.
        factor: f32,
    },
    /// "Dynamic NTK": the base grows with the context in use. Here it is computed once, for the
    /// context length the model is opened with, so that a cached key never depends on what came later.
    Ntk {
        /// The `factor` of the configuration file.
        factor: f32,
        /// The context the network was trained at.
        original_max_seq_len: usize,
    },
    /// YaRN (arXiv 2309.00071): interpolation by frequency, and a temperature on attention.
    Yarn {
        /// How many times longer the context becomes.
        factor: f32,
        /// The context the network was trained at.
        original_max_seq_len: usize,
        /// Rotations over the original context above which a frequency is left as it is.
        beta_fast: f32,
        /// Rotations over the original context below which a frequency is fully interpolated.
        beta_slow: f32,
        /// Factor on both cosines and sines; `None` is the paper's `0.1 ln(factor) + 1`.
        attn_factor: Option<f32>,
    },
}

/// Rotary position embedding (arXiv 2104.09864) as a checkpoint states it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric sequence of frequencies; 10,000 for Llama 2.
    pub theta: f32,
    /// Stretching beyond the trained context.
    pub scaling: RopeScaling,
    /// Which elements of a head turn together.
    pub layout: RopeLayout,
}

/// Dimensions of a network of the Llama 2 family. Names are Meta's; `hidden_dim` is the inner width of the
/// feed-forward layer, which Hugging Face calls `intermediate_size` (their `hidden_size` is `dim`).
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Model width, `D`.
    pub dim: usize,
    /// Feed-forward inner width, `F`.
    pub hidden_dim: usize,
    /// Number of transformer blocks, `L`.
    pub n_layers: usize,
    /// Number of query heads, `N`.
    pub n_heads: usize,
    /// Number of key/value heads, `K`; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head, `H`; even. Usually `dim / n_heads`.
    pub head_dim: usize,
    /// Rows of the embedding, `V`.
    pub vocab_size: usize,
    /// Context limit stated by the checkpoint, in tokens.
    pub max_seq_len: usize,
    /// Epsilon under the root of RMSNorm.
    pub norm_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Whether the output matrix is the embedding matrix.
    pub tied_output: bool,
}

/// A configuration that cannot describe a network.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field}: expected {expected}, found {found}")]
pub struct ConfigError {
    /// The field at fault, in this program's names.
    pub field: &'static str,
    /// What it had to be.
    pub expected: String,
    /// What it was.
    pub found: String,
}

/// Upper bound on any single dimension; far above the family, far below overflow of products in `u64`.
const MAX_DIMENSION: usize = 1 << 24;

impl ModelConfig {
    /// Checks that the numbers describe a network and that no product of two of them overflows.
    ///
    /// # Errors
    /// The first field at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("dim", self.dim),
            ("hidden_dim", self.hidden_dim),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_seq_len", self.max_seq_len),
        ];
        for (field, value) in sizes {
            check(
                (1..=MAX_DIMENSION).contains(&value),
                field,
                || format!("1 to {MAX_DIMENSION}"),
                value,
            )?;
        }
        check(
            self.n_heads.is_multiple_of(self.n_kv_heads),
            "n_kv_heads",
            || format!("a divisor of n_heads = {}", self.n_heads),
            self.n_kv_heads,
        )?;
        check(
            self.head_dim.is_multiple_of(2),
            "head_dim",
            || "an even number".into(),
            self.head_dim,
        )?;
        let eps = self.norm_eps;
        check(eps.is_finite() && eps >= 0.0, "norm_eps", || "a small number".into(), eps)?;
        let theta = self.rope.theta;
        check(
            theta.is_finite() && theta > 0.0,
            "rope_theta",
            || "a positive number".into(),
            theta,
        )?;
        self.validate_scaling()
    }

    fn validate_scaling(&self) -> Result<(), ConfigError> {
        let (factor, original) = match self.rope.scaling {
            RopeScaling::None => return Ok(()),
            RopeScaling::Linear { factor } => (factor, 1),
            RopeScaling::Ntk { factor, original_max_seq_len }
            | RopeScaling::Yarn { factor, original_max_seq_len, .. } => {
                (factor, original_max_seq_len)
            }
        };
        check(
            factor.is_finite() && factor > 0.0,
            "rope_scaling.factor",
            || "a positive number".into(),
            factor,
        )?;
        check(
            (1..=MAX_DIMENSION).contains(&original),
            "rope_scaling.original_max_seq_len",
            || format!("1 to {MAX_DIMENSION}"),
            original,
        )?;
        if let RopeScaling::Yarn { beta_fast, beta_slow, attn_factor, .. } = self.rope.scaling {
            let sane = beta_fast.is_finite()
                && beta_slow.is_finite()
                && attn_factor.is_none_or(f32::is_finite);
            check(sane, "rope_scaling", || "finite numbers".into(), "NaN or infinity")?;
        }
        Ok(())
    }

    /// Width of all query heads together, `N × H`.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads together, `K × H`.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Number of parameters; a tied output is counted once.
    pub fn n_params(&self) -> u64 {
        crate::WeightId::all(self)
            .map(|id| id.shape(self).iter().map(|&n| n as u64).product::<u64>())
            .sum()
    }
}

fn check(
    ok: bool,
    field: &'static str,
    expected: impl FnOnce() -> String,
    found: impl ToString,
) -> Result<(), ConfigError> {
    if ok {
        return Ok(());
    }
    Err(ConfigError { field, expected: expected(), found: found.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama2(
        dim: usize,
        hidden_dim: usize,
        n_layers: usize,
        heads: (usize, usize),
    ) -> ModelConfig {
        ModelConfig {
            dim,
            hidden_dim,
            n_layers,
            n_heads: heads.0,
            n_kv_heads: heads.1,
            head_dim: dim / heads.0,
            vocab_size: 32_000,
            max_seq_len: 4096,
            norm_eps: 1e-5,
            rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
            tied_output: false,
        }
    }

    #[test]
    fn parameters_of_the_family() {
        assert_eq!(llama2(4096, 11008, 32, (32, 32)).n_params(), 6_738_415_616);
        assert_eq!(llama2(5120, 13824, 40, (40, 40)).n_params(), 13_015_864_320);
        assert_eq!(llama2(8192, 22016, 48, (64, 8)).n_params(), 33_743_970_304);
        assert_eq!(llama2(8192, 28672, 80, (64, 8)).n_params(), 68_976_648_192);
    }

    #[test]
    fn names_the_field_at_fault() {
        type Change = fn(&mut ModelConfig);
        let cases: [(&str, Change); 6] = [
            ("dim", |c| c.dim = 0),
            ("vocab_size", |c| c.vocab_size = usize::MAX),
            ("n_kv_heads", |c| c.n_kv_heads = 3),
            ("head_dim", |c| c.head_dim = 127),
            ("norm_eps", |c| c.norm_eps = f32::NAN),
            ("rope_scaling.factor", |c| c.rope.scaling = RopeScaling::Linear { factor: 0.0 }),
        ];
        for (field, change) in cases {
            let mut config = llama2(4096, 11008, 32, (32, 32));
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().field, field);
        }
    }
}
