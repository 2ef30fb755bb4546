//! Values to the storage types of weights: the way back from [`dequantize`](crate::dequantize).
//!
//! The same values give the same bytes on every instruction set and for any number of threads, so that a
//! quantised file is the same wherever it was made.

use half::{bf16, f16};
use puna_core::DType;

use crate::Cpu;

/// Elements per task: some hundred microseconds of the dearest type's work.
const TASK_LEN: usize = 16 * 1024;

/// Stores `values`, `[rows, cols]`, as `dtype` in `out`.
///
/// Floats are rounded to nearest, ties to even. `importance`, `[cols]`, not negative, weighs the squared error of
/// each column in types that search for their scales; without it every type chooses weights of its own.
///
/// # Panics
/// When `values` is not whole rows of `cols`, blocks do not divide a row, or `out` or `importance` has another
/// length than asked for.
pub fn quantize(
    cpu: &Cpu,
    dtype: DType,
    cols: usize,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) {
    if values.is_empty() {
        assert!(out.is_empty(), "quantize: {} bytes for no values", out.len());
        return;
    }
    assert!(
        values.len().is_multiple_of(cols),
        "quantize: {} values in rows of {cols}",
        values.len()
    );
    let row_bytes = dtype.row_bytes(cols);
    let row_bytes = row_bytes.unwrap_or_else(|| panic!("quantize: a row of {cols} as {dtype}"));
    assert_eq!(out.len(), values.len() / cols * row_bytes, "quantize: bytes of {dtype}");
    if let Some(importance) = importance {
        assert_eq!(importance.len(), cols, "quantize: importance of the columns");
    }
    let task_rows = TASK_LEN.div_ceil(cols);
    cpu.pool().run_chunks(out, task_rows * row_bytes, &|task, out| {
        let first = task * task_rows * cols;
        let values = &values[first..][..out.len() / row_bytes * cols];
        for (values, out) in values.chunks_exact(cols).zip(out.chunks_exact_mut(row_bytes)) {
            row(dtype, values, importance, out);
        }
    });
}

/// Stores one row.
fn row(dtype: DType, values: &[f32], _importance: Option<&[f32]>, out: &mut [u8]) {
    match dtype {
        DType::F32 => plain(values, out, f32::to_le_bytes),
        DType::F16 => plain(values, out, |x| f16::from_f32(x).to_le_bytes()),
        DType::BF16 => plain(values, out, |x| bf16::from_f32(x).to_le_bytes()),
        other => panic!("quantize: {other} cannot be made yet"),
    }
}

fn plain<const BYTES: usize>(values: &[f32], out: &mut [u8], store: fn(f32) -> [u8; BYTES]) {
    for (&value, out) in values.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        *out = store(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequantize;

    #[test]
    fn floats_are_rounded_to_nearest() {
        let values = [1.0, -2.5, 1.0 + f32::EPSILON, 65504.0, 1e-8, -0.0];
        let cpu = Cpu::new(2).unwrap();
        for (dtype, expected) in [
            (DType::F32, values),
            (DType::F16, [1.0, -2.5, 1.0, 65504.0, 0.0, -0.0]),
            (DType::BF16, [1.0, -2.5, 1.0, 65536.0, 1.001_172e-8, -0.0]),
        ] {
            let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
            quantize(&cpu, dtype, 3, &values, None, &mut bytes);
            let mut back = [f32::NAN; 6];
            dequantize(dtype, &bytes, &mut back);
            for (back, expected) in back.iter().zip(expected) {
                assert!((back - expected).abs() <= 1e-6 * expected.abs(), "{back}, {expected}");
            }
        }
    }
}
