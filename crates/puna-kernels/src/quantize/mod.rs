//! Values to the storage types of weights: the way back from [`dequantize`](crate::dequantize).
//!
//! The same values give the same bytes on every instruction set and for any number of threads, so that a
//! quantised file is the same wherever it was made.
//!
//! [`by_32`], [`k_affine`] and [`k_linear`] know the types; [`search`] finds scales for the groups that
//! [`lanes`] holds, whose errors count as [`weights`] says; [`pack`] knows where bits go.

mod by_32;
mod k_affine;
mod k_linear;
mod lanes;
mod pack;
mod search;
mod weights;

use half::{bf16, f16};
use puna_core::DType;

use crate::Cpu;
use crate::simd::{Op, Simd};
use weights::Weights;

/// Elements per task: some hundred microseconds of the dearest type's work.
const TASK_LEN: usize = 16 * 1024;

/// Stores `values`, `[rows, cols]`, as `dtype` in `out`.
///
/// Floats are rounded to nearest, ties to even. Blocks are those, of many that are tried, that leave the least
/// squared error. `importance`, `[cols]`, weighs it as llama.cpp does: by `importance·√(mean(x²) + x²)`, the mean
/// being the row's. It is what an importance matrix holds, the mean square of what the column is multiplied by.
///
/// In blocks, a value that is not finite counts as 0; so does an importance that is not finite or negative. What
/// is stored stands for finite numbers: where it would take an infinite scale, for the furthest there are.
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
    let weights = Weights::new(importance);
    let task_rows = TASK_LEN.div_ceil(cols);
    let token = cpu.token().narrow();
    cpu.pool().run_chunks(out, task_rows * row_bytes, &|task, out| {
        let first = task * task_rows * cols;
        let values = &values[first..][..out.len() / row_bytes * cols];
        for (values, out) in values.chunks_exact(cols).zip(out.chunks_exact_mut(row_bytes)) {
            match dtype {
                DType::F32 => plain(values, out, f32::to_le_bytes),
                DType::F16 => plain(values, out, |x| f16::from_f32(x).to_le_bytes()),
                DType::BF16 => plain(values, out, |x| bf16::from_f32(x).to_le_bytes()),
                DType::Q4_0 => token.dispatch(Row::<by_32::Q4_0>::new(values, weights, out)),
                DType::Q4_1 => token.dispatch(Row::<by_32::Q4_1>::new(values, weights, out)),
                DType::Q5_0 => token.dispatch(Row::<by_32::Q5_0>::new(values, weights, out)),
                DType::Q5_1 => token.dispatch(Row::<by_32::Q5_1>::new(values, weights, out)),
                DType::Q8_0 => token.dispatch(Row::<by_32::Q8_0>::new(values, weights, out)),
                DType::Q2_K => token.dispatch(Row::<k_affine::Q2K>::new(values, weights, out)),
                DType::Q3_K => token.dispatch(Row::<k_linear::Q3K>::new(values, weights, out)),
                DType::Q4_K => token.dispatch(Row::<k_affine::Q4K>::new(values, weights, out)),
                DType::Q5_K => token.dispatch(Row::<k_affine::Q5K>::new(values, weights, out)),
                DType::Q6_K => token.dispatch(Row::<k_linear::Q6K>::new(values, weights, out)),
            }
        }
    });
}

/// A quantised type: how its blocks are made.
trait Encode {
    /// Values taken at a time; there may be fewer at the end of a row.
    const LEN: usize;
    /// Bytes they become.
    const BYTES: usize;

    /// Stores up to `LEN` values.
    fn encode<S: Simd>(simd: S, values: &[f32], weights: Weights, out: &mut [u8]);
}

struct Row<'a, E> {
    values: &'a [f32],
    weights: Weights<'a>,
    out: &'a mut [u8],
    encode: std::marker::PhantomData<E>,
}

impl<'a, E> Row<'a, E> {
    fn new(values: &'a [f32], weights: Weights<'a>, out: &'a mut [u8]) -> Self {
        Self { values, weights, out, encode: std::marker::PhantomData }
    }
}

impl<E: Encode> Op for Row<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let weights = self.weights.of_row(self.values);
        let parts = self.values.chunks(E::LEN).zip(self.out.chunks_mut(E::BYTES));
        for (i, (values, out)) in parts.enumerate() {
            E::encode(simd, values, weights.from(i * E::LEN), out);
        }
    }
}

/// A power of two near the reciprocal of `x`, and its reciprocal.
#[inline(always)]
fn units(x: f32) -> (f32, f32) {
    let exponent = (x.to_bits() >> 23).clamp(27, 253);
    (f32::from_bits((254 - exponent) << 23), f32::from_bits(exponent << 23))
}

/// The nearest half-precision number that is finite.
#[inline(always)]
fn to_f16(x: f32) -> f16 {
    f16::from_f32(x.clamp(-65504.0, 65504.0))
}

fn plain<const BYTES: usize>(values: &[f32], out: &mut [u8], store: fn(f32) -> [u8; BYTES]) {
    for (&value, out) in values.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        *out = store(value);
    }
}

#[cfg(test)]
mod tests;
