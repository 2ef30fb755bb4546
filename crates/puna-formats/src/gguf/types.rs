//! Tensor types by their numbers in a GGUF file (`ggml_type` of ggml.h).

use puna_core::DType;

/// The types that are read, for messages.
pub(super) const SUPPORTED_TYPES: &str =
    "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K";

const NUMBERS: [(u32, DType); 13] = [
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::Q4_0),
    (3, DType::Q4_1),
    (6, DType::Q5_0),
    (7, DType::Q5_1),
    (8, DType::Q8_0),
    (10, DType::Q2_K),
    (11, DType::Q3_K),
    (12, DType::Q4_K),
    (13, DType::Q5_K),
    (14, DType::Q6_K),
    (30, DType::BF16),
];

/// Types that are known by name only, so that a message can use it.
const OTHERS: [(u32, &str); 22] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

pub(super) fn dtype_of(number: u32) -> Option<DType> {
    NUMBERS.iter().find(|(n, _)| *n == number).map(|&(_, dtype)| dtype)
}

pub(super) fn number_of(dtype: DType) -> u32 {
    let entry = NUMBERS.iter().find(|(_, d)| *d == dtype);
    entry.expect("the table has every type").0
}

/// The name of a type that is not supported.
pub(super) fn type_name(number: u32) -> Option<&'static str> {
    OTHERS.iter().find(|(n, _)| *n == number).map(|&(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_number_of_its_own() {
        for dtype in DType::ALL {
            assert_eq!(dtype_of(number_of(dtype)), Some(dtype));
            assert_eq!(type_name(number_of(dtype)), None);
        }
        let names = DType::ALL.map(|t| t.name().to_uppercase()).join(", ");
        assert_eq!(SUPPORTED_TYPES, names);
    }
}
