//! Storage types of weights and of the KV cache, and the size of their blocks.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How a matrix is stored. Quantised rows are sequences of blocks in ggml's layouts
/// (the GGUF specification and `ggml-common.h` of llama.cpp).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// 32 × 4 bits, one f16 scale, values centred on 8.
    Q4_0,
    /// 32 × 4 bits, f16 scale and minimum.
    Q4_1,
    /// 32 × 5 bits, one f16 scale, values centred on 16.
    Q5_0,
    /// 32 × 5 bits, f16 scale and minimum.
    Q5_1,
    /// 32 × 8 bits, one f16 scale.
    Q8_0,
    /// 256 × 2 bits, 4-bit scales and minima per 16.
    Q2_K,
    /// 256 × 3 bits, 6-bit scales per 16.
    Q3_K,
    /// 256 × 4 bits, 6-bit scales and minima per 32.
    Q4_K,
    /// 256 × 5 bits, 6-bit scales and minima per 32.
    Q5_K,
    /// 256 × 6 bits, 8-bit scales per 16.
    Q6_K,
}

/// A type name that this program does not know.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown type {found:?}, expected one of {expected}")]
pub struct UnknownType {
    /// What was given.
    pub found: String,
    /// What could have been given.
    pub expected: String,
}

impl DType {
    /// Every type, in the order of the declaration.
    pub const ALL: [DType; 13] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q2_K,
        DType::Q3_K,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
    ];

    /// Elements and bytes of one block; a plain type is a block of one element.
    pub const fn block(self) -> (usize, usize) {
        match self {
            DType::F32 => (1, 4),
            DType::F16 | DType::BF16 => (1, 2),
            DType::Q4_0 => (32, 18),
            DType::Q4_1 => (32, 20),
            DType::Q5_0 => (32, 22),
            DType::Q5_1 => (32, 24),
            DType::Q8_0 => (32, 34),
            DType::Q2_K => (256, 84),
            DType::Q3_K => (256, 110),
            DType::Q4_K => (256, 144),
            DType::Q5_K => (256, 176),
            DType::Q6_K => (256, 210),
        }
    }

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        self.block().0
    }

    /// Bytes of a row of `cols` elements; `None` if blocks do not divide it or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let (len, bytes) = self.block();
        cols.is_multiple_of(len).then(|| (cols / len).checked_mul(bytes)).flatten()
    }

    /// Whether values are stored one by one, without blocks.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// The name in lower case, as commands take it: `f16`, `q4_k`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q8_0 => "q8_0",
            DType::Q2_K => "q2_k",
            DType::Q3_K => "q3_k",
            DType::Q4_K => "q4_k",
            DType::Q5_K => "q5_k",
            DType::Q6_K => "q6_k",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = UnknownType;

    fn from_str(s: &str) -> Result<Self, UnknownType> {
        parse(s, &Self::ALL)
    }
}

/// How keys and values are stored in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[allow(non_camel_case_types)]
pub enum KvType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision: the default.
    #[default]
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// Blocks of 32 × 8 bits with one f16 scale; the last block of a head may be padded with zeros.
    Q8_0,
}

impl KvType {
    /// Every type, in the order of the declaration.
    pub const ALL: [KvType; 4] = [KvType::F32, KvType::F16, KvType::BF16, KvType::Q8_0];

    /// Bytes of one head's key (or value) at one position.
    pub const fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            KvType::F32 => head_dim * 4,
            KvType::F16 | KvType::BF16 => head_dim * 2,
            KvType::Q8_0 => head_dim.div_ceil(32) * 34,
        }
    }

    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::BF16 => "bf16",
            KvType::Q8_0 => "q8_0",
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for KvType {
    type Err = UnknownType;

    fn from_str(s: &str) -> Result<Self, UnknownType> {
        parse(s, &Self::ALL)
    }
}

fn parse<T: Copy + ToString>(found: &str, all: &[T]) -> Result<T, UnknownType> {
    all.iter().copied().find(|t| t.to_string().eq_ignore_ascii_case(found)).ok_or_else(|| {
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        UnknownType { found: found.to_owned(), expected: names.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_in_either_case() {
        for t in DType::ALL {
            assert_eq!(t.name().parse(), Ok(t));
            assert_eq!(t.name().to_uppercase().parse(), Ok(t));
        }
        for t in KvType::ALL {
            assert_eq!(t.name().parse(), Ok(t));
        }
        assert!("q9_0".parse::<DType>().unwrap_err().to_string().contains("q6_k"));
    }

    #[test]
    fn rows_that_blocks_do_not_divide_have_no_size() {
        assert_eq!(DType::Q4_K.row_bytes(512), Some(288));
        assert_eq!(DType::Q4_K.row_bytes(288), None);
        assert_eq!(DType::F32.row_bytes(usize::MAX), None);
        assert_eq!(KvType::Q8_0.row_bytes(40), 68);
    }
}
