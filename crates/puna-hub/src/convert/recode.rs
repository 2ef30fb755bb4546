//! Tensors on their way from one file to another: in stretches of rows, so that memory does not depend on the
//! model's size.

use std::collections::BTreeMap;
use std::ops::Range;

use puna_core::{DType, LayerWeight, ModelConfig, RopeLayout, TensorInfo, TensorSource, WeightId};
use puna_formats::FormatError;
use puna_kernels::{Cpu, dequantize, quantize};

use super::ConvertError;
use crate::HubError;

/// Elements of one stretch: 16 MiB as f32.
const STRETCH_LEN: usize = 1 << 22;

/// Elements that one task decodes.
const TASK_LEN: usize = 1 << 14;

/// Importance of the columns of each matrix that has some; see [`quantize`].
pub type Importance = BTreeMap<WeightId, Vec<f32>>;

/// Reads tensors and hands them on in other types and another order of rows.
pub(super) struct Recoder<'a> {
    pub(super) source: &'a dyn TensorSource,
    /// The order of the rows of `wq` and `wk` in the target.
    pub(super) layout: RopeLayout,
    pub(super) importance: &'a Importance,
    pub(super) cpu: &'a Cpu,
}

/// Buffers for one stretch.
#[derive(Default)]
struct Scratch {
    stored: Vec<u8>,
    permuted: Vec<u8>,
    values: Vec<f32>,
    recoded: Vec<u8>,
}

/// Takes the next bytes of a tensor.
type Sink<'a> = &'a mut dyn FnMut(WeightId, &[u8]) -> Result<(), FormatError>;

impl Recoder<'_> {
    /// Hands the bytes of `tensors`, each stored as its type says, to `sink` in order. `progress` gets the bytes handed
    /// on so far and says whether to go on.
    pub(super) fn run(
        &self,
        tensors: &[(WeightId, TensorInfo)],
        sink: Sink<'_>,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), HubError> {
        let mut scratch = Scratch::default();
        let mut n_bytes = 0;
        for (id, info) in tensors {
            let n_rows = info.n_rows().unwrap_or(0);
            let stretch = self.stretch_rows(*id, info);
            for first in (0..n_rows).step_by(stretch) {
                let rows = first..n_rows.min(first + stretch);
                let bytes = self.recode(*id, info, rows, &mut scratch)?;
                sink(*id, bytes)?;
                n_bytes += bytes.len() as u64;
                if !progress(n_bytes) {
                    return Err(HubError::Stopped);
                }
            }
        }
        Ok(())
    }

    /// Rows of one stretch; whole heads where rows change places inside them.
    fn stretch_rows(&self, id: WeightId, info: &TensorInfo) -> usize {
        let rows = (STRETCH_LEN / info.cols().max(1)).max(1);
        match self.permuted_heads(id) {
            Some(head_dim) => rows.next_multiple_of(head_dim),
            None => rows,
        }
    }

    /// The width of the heads whose rows change places, if any do.
    fn permuted_heads(&self, id: WeightId) -> Option<usize> {
        let config: &ModelConfig = self.source.config();
        let turned = matches!(id, WeightId::Layer(_, LayerWeight::Wq | LayerWeight::Wk));
        (turned && config.rope.layout != self.layout).then_some(config.head_dim)
    }

    /// Some rows as the target stores them.
    fn recode<'s>(
        &self,
        id: WeightId,
        target: &TensorInfo,
        rows: Range<usize>,
        scratch: &'s mut Scratch,
    ) -> Result<&'s [u8], HubError> {
        let Scratch { stored, permuted, values, recoded } = scratch;
        let n_rows = rows.len();
        stored.clear();
        self.source.read_rows(id, rows, stored)?;
        if let Some(head_dim) = self.permuted_heads(id) {
            permute(stored, permuted, stored.len() / n_rows, head_dim, self.layout);
            std::mem::swap(stored, permuted);
        }
        let dtype = self.source.info(id).map_or(target.dtype, |info| info.dtype);
        if dtype == target.dtype {
            return Ok(stored);
        }
        let cols = target.cols();
        values.resize(n_rows * cols, 0.0);
        decode(self.cpu, dtype, stored, values);
        check_range(id, target.dtype, values)?;
        let row_bytes = target.dtype.row_bytes(cols).expect("the target's rows are whole blocks");
        recoded.resize(n_rows * row_bytes, 0);
        let importance = self.importance.get(&id).map(Vec::as_slice);
        quantize(self.cpu, target.dtype, cols, values, importance, recoded);
        Ok(recoded)
    }
}

/// The values of `stored`, whole blocks of `dtype`, on all threads.
fn decode(cpu: &Cpu, dtype: DType, stored: &[u8], values: &mut [f32]) {
    let (block_len, block_bytes) = dtype.block();
    cpu.pool().run_chunks(values, TASK_LEN, &|task, values| {
        let first = task * TASK_LEN / block_len * block_bytes;
        let n_bytes = values.len() / block_len * block_bytes;
        dequantize(dtype, &stored[first..first + n_bytes], values);
    });
}

/// Rows of each head from one order to the other: pair `i` of a head is rows `2i` and `2i + 1`, or `i` and
/// `i + head_dim / 2`. Rows are moved as they are stored, so that no value changes in any type.
fn permute(
    stored: &[u8],
    permuted: &mut Vec<u8>,
    row_bytes: usize,
    head_dim: usize,
    to: RopeLayout,
) {
    let half = head_dim / 2;
    permuted.clear();
    for head in stored.chunks_exact(row_bytes * head_dim) {
        for row in 0..head_dim {
            let from = match to {
                RopeLayout::Interleaved => row / 2 + row % 2 * half,
                RopeLayout::Halves => row % half * 2 + row / half,
            };
            permuted.extend_from_slice(&head[from * row_bytes..][..row_bytes]);
        }
    }
}

/// Refuses values that `dtype` would turn into infinity, and in blocks those that are no number to begin with.
fn check_range(tensor: WeightId, dtype: DType, values: &[f32]) -> Result<(), ConvertError> {
    // The smallest magnitude that is rounded up to infinity: half a unit beyond the largest finite value. Blocks
    // have scales of half precision.
    let (limit, largest) = match dtype {
        DType::F32 => return Ok(()),
        DType::BF16 => (f32::from_bits(0x7F7F_8000), f32::from_bits(0x7F7F_0000)),
        _ => (65_520.0, 65_504.0),
    };
    let overflow = values.iter().find(|value| value.is_finite() && value.abs() >= limit);
    if let Some(&value) = overflow {
        return Err(ConvertError::Overflow { tensor, value, dtype, largest });
    }
    if !dtype.is_float()
        && let Some(&value) = values.iter().find(|value| !value.is_finite())
    {
        return Err(ConvertError::NotFinite { tensor, value, dtype });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_the_other_order_and_back() {
        // Two heads of six rows of two bytes.
        let rows: Vec<u8> = (0..24).collect();
        let (mut there, mut back) = (Vec::new(), Vec::new());
        permute(&rows, &mut there, 2, 6, RopeLayout::Interleaved);
        assert_eq!(there[..12], [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
        permute(&there, &mut back, 2, 6, RopeLayout::Halves);
        assert_eq!(back, rows);
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        let check = |dtype, value: f32| {
            check_range(WeightId::Norm, dtype, &[1.0, value]).map_err(|e| e.to_string())
        };
        for (dtype, value) in
            [(DType::F16, 65_519.0), (DType::BF16, 1e38), (DType::F16, f32::INFINITY)]
        {
            check(dtype, value).unwrap();
        }
        let message = check(DType::F16, -1e6).unwrap_err();
        assert!(message.starts_with("tensor norm: value -1000000 does not fit into f16"));
        assert!(check(DType::BF16, f32::MAX).is_err());
        assert!(check(DType::Q8_0, 65_520.0).is_err());
        assert!(check(DType::Q8_0, f32::NAN).unwrap_err().contains("found NaN"));
    }
}
