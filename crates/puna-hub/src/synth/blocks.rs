//! Random weights, written straight in their storage type: no values are quantised, the bits of a block
//! are drawn and its scales set so that the values it stands for have the standard deviation asked for.

use puna_core::{DType, Rng};

/// Standard deviation of the weights, about that of a trained network's.
pub(crate) const STD: f32 = 0.02;

/// Where the f16 factors of a block lie, and what they must be.
struct Factors {
    /// Offset of the block's scale.
    scale_at: usize,
    /// Root mean square of the block's values for a scale of 1, all other bits uniform.
    rms: f32,
    /// Offset of the block's minimum, and its ratio to the scale that makes the mean 0.
    min: Option<(usize, f32)>,
}

/// The factors of each block type. Root mean squares follow from uniform bits: a `b`-bit integer `q` has
/// mean `(2^b - 1) / 2` and variance `(4^b - 1) / 12`; where scales and minima of sub-blocks are drawn as
/// well, their moments multiply.
fn factors(dtype: DType) -> Factors {
    let (scale_at, rms, min) = match dtype {
        DType::Q4_0 => (0, 4.637, None),
        DType::Q4_1 => (0, 4.610, Some((2, -7.5))),
        DType::Q5_0 => (0, 9.247, None),
        DType::Q5_1 => (0, 9.233, Some((2, -15.5))),
        DType::Q8_0 => (0, 73.90, None),
        DType::Q2_K => (80, 13.87, Some((82, 1.5))),
        DType::Q3_K => (108, 43.34, None),
        DType::Q4_K => (0, 258.3, Some((2, 7.5))),
        DType::Q5_K => (0, 526.9, Some((2, 15.5))),
        DType::Q6_K => (208, 1366.0, None),
        DType::F32 | DType::F16 | DType::BF16 => unreachable!("plain types have no blocks"),
    };
    Factors { scale_at, rms, min }
}

/// Fills `out`, whole blocks of `dtype`, with random weights of mean 0 and deviation [`STD`].
pub(crate) fn fill(dtype: DType, rng: &mut Rng, out: &mut [u8]) {
    match dtype {
        DType::F32 => plain(rng, out, f32::to_le_bytes),
        DType::F16 => plain(rng, out, |x| f16_bits(x).to_le_bytes()),
        DType::BF16 => plain(rng, out, |x| ((x.to_bits() >> 16) as u16).to_le_bytes()),
        _ => blocks(dtype, rng, out),
    }
}

/// Values one by one: the sum of four uniform bytes, close to normal and bounded at 3.5 deviations.
fn plain<const N: usize>(rng: &mut Rng, out: &mut [u8], store: impl Fn(f32) -> [u8; N]) {
    /// Deviation of the sum of four uniform bytes: `sqrt(4 · (256² - 1) / 12)`.
    const SUM_STD: f32 = 147.8;
    for bytes in out.as_chunks_mut::<N>().0 {
        let sum: u32 = rng.next_u32().to_le_bytes().into_iter().map(u32::from).sum();
        *bytes = store((sum as f32 - 510.0) * (STD / SUM_STD));
    }
}

fn blocks(dtype: DType, rng: &mut Rng, out: &mut [u8]) {
    let (words, rest) = out.as_chunks_mut::<4>();
    for word in words {
        *word = rng.next_u32().to_le_bytes();
    }
    let last = rng.next_u32().to_le_bytes();
    rest.copy_from_slice(&last[..rest.len()]);

    let Factors { scale_at, rms, min } = factors(dtype);
    for block in out.chunks_exact_mut(dtype.block().1) {
        // The random bits at the scale's place choose its sign and its size within a quarter.
        let jitter =
            f32::from(i16::from_le_bytes([block[scale_at], block[scale_at + 1]])) / 32768.0;
        let scale = (STD / rms) * (1.0 + jitter.abs() * 0.25).copysign(jitter);
        block[scale_at..scale_at + 2].copy_from_slice(&f16_bits(scale).to_le_bytes());
        if let Some((at, ratio)) = min {
            block[at..at + 2].copy_from_slice(&f16_bits(scale * ratio).to_le_bytes());
        }
    }
}

/// The half-precision bits of a small finite number, rounded to nearest.
fn f16_bits(x: f32) -> u16 {
    half::f16::from_f32(x).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type decodes to finite values with the mean and deviation asked for.
    #[test]
    fn moments_of_every_type() {
        for dtype in DType::ALL {
            let n = 256 * 400;
            let mut bytes = vec![0; dtype.row_bytes(n).unwrap()];
            fill(dtype, &mut Rng::new(1, 2), &mut bytes);
            let mut values = vec![0f32; n];
            puna_kernels::dequantize(dtype, &bytes, &mut values);
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
            let std = (square - mean * mean).sqrt();
            assert!(mean.abs() < 0.002, "{dtype}: mean {mean}");
            assert!((0.018..0.026).contains(&std), "{dtype}: deviation {std}");
        }
    }
}
