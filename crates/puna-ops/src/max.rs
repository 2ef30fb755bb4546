//! The greatest of some floats.

use puna_kernels::simd::Simd;

/// The greatest of `row`; NaNs, where there are any, may or may not be seen. `−∞` of nothing.
#[inline(always)]
pub(crate) fn max<S: Simd>(s: S, row: &[f32]) -> f32 {
    let chunks = row.chunks_exact(S::LANES);
    let mut rest = f32::NEG_INFINITY;
    for &x in chunks.remainder() {
        rest = if x > rest { x } else { rest };
    }
    let mut lanes = s.splat(rest);
    for chunk in chunks {
        lanes = s.max(s.load(chunk), lanes);
    }
    s.max_lane(lanes)
}
