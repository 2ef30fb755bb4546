//! Looks at every weight of a model: NaN, infinities, tensors of zeros alone.

use puna_core::{Tensor, TensorSource, WeightId};
use puna_kernels::dequantize;

use crate::HubError;

/// What is wrong with the values of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The tensor.
    pub id: WeightId,
    /// Values that are not a number.
    pub n_nan: u64,
    /// Infinite values.
    pub n_infinite: u64,
    /// Whether every value is zero.
    pub all_zero: bool,
    /// Index of the first value that is NaN or infinite.
    pub first_bad: Option<u64>,
}

/// Decodes every tensor of the network and returns those with something wrong. `progress` gets the bytes done so far
/// and says whether to go on.
///
/// # Errors
/// A tensor that cannot be loaded, or [`HubError::Stopped`].
pub fn check_weights(
    source: &dyn TensorSource,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Vec<Finding>, HubError> {
    let mut findings = Vec::new();
    let mut n_bytes = 0;
    for id in WeightId::all(source.config()) {
        let tensor = source.load(id)?;
        let finding = scan(id, &tensor);
        if finding.n_nan + finding.n_infinite > 0 || finding.all_zero {
            findings.push(finding);
        }
        n_bytes += tensor.data.len() as u64;
        if !progress(n_bytes) {
            return Err(HubError::Stopped);
        }
    }
    Ok(findings)
}

fn scan(id: WeightId, tensor: &Tensor) -> Finding {
    let mut finding = Finding { id, n_nan: 0, n_infinite: 0, all_zero: true, first_bad: None };
    let (block_len, block_bytes) = tensor.info.dtype.block();
    let n_blocks = (4096 / block_len).max(1);
    let mut values = vec![0f32; n_blocks * block_len];
    let mut first = 0u64;
    for bytes in tensor.data.chunks(n_blocks * block_bytes) {
        let values = &mut values[..bytes.len() / block_bytes * block_len];
        dequantize(tensor.info.dtype, bytes, values);
        for (idx, value) in (first..).zip(values.iter()) {
            finding.all_zero &= *value == 0.0;
            if !value.is_finite() {
                finding.n_nan += u64::from(value.is_nan());
                finding.n_infinite += u64::from(value.is_infinite());
                finding.first_bad.get_or_insert(idx);
            }
        }
        first += values.len() as u64;
    }
    finding
}

#[cfg(test)]
mod tests {
    use puna_core::{DType, SharedBytes, TensorInfo};

    use super::*;

    fn check(values: &[f32], expected: (u64, u64, bool, Option<u64>)) {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let info = TensorInfo { dtype: DType::F32, shape: vec![values.len()] };
        let found = scan(WeightId::Norm, &Tensor { info, data: SharedBytes::new(bytes) });
        assert_eq!((found.n_nan, found.n_infinite, found.all_zero, found.first_bad), expected);
    }

    #[test]
    fn finds_what_is_wrong() {
        let mut values = vec![1.0; 5000];
        check(&values, (0, 0, false, None));
        values[4100] = f32::NEG_INFINITY;
        values[4999] = f32::NAN;
        check(&values, (1, 1, false, Some(4100)));
        check(&[0.0, -0.0], (0, 0, true, None));
    }
}
