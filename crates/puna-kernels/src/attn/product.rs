//! The product of a few rows with a tile: the inner routine of both halves of attention.
//!
//! A block of `M` rows by `N` vectors of accumulators stays in registers while the terms go by. Each term
//! loads `N` vectors of the tile and, for each row, spreads one element over a vector: `M·N` multiply-adds for
//! `M + N` loads.

use crate::simd::Simd;

/// `c[i][j] = start[i]·c[i][j] + Σ_k a[i][k]·b[k][j]` for `M` rows `i`, ascending in `k` with one accumulator
/// for each element, by fused multiply-add. Without `start` the sum begins at zero and `c` is not read.
pub(super) struct Product<'a, const M: usize> {
    /// Row `i` starts at `i·a_stride`.
    pub(super) a: &'a [f32],
    pub(super) a_stride: usize,
    /// Terms of each sum.
    pub(super) n_terms: usize,
    /// Row `k` starts at `k·stride`.
    pub(super) b: &'a [f32],
    /// Columns of `b` and of `c`, a multiple of the lanes.
    pub(super) stride: usize,
    /// Factors of what is in `c`.
    pub(super) start: Option<[f32; M]>,
}

impl<const M: usize> Product<'_, M> {
    /// Computes all columns of `c`, `M` rows of `stride` elements.
    #[inline(always)]
    pub(super) fn run<S: Simd>(&self, simd: S, c: &mut [f32]) {
        // As many accumulators as leave registers for a row of `b` and one element of `a`.
        let mut column = 0;
        while self.stride - column >= 4 * S::LANES && M * 4 + 5 <= S::N_REGISTERS {
            self.columns::<S, 4>(simd, column, c);
            column += 4 * S::LANES;
        }
        while self.stride - column >= 2 * S::LANES {
            self.columns::<S, 2>(simd, column, c);
            column += 2 * S::LANES;
        }
        if column < self.stride {
            self.columns::<S, 1>(simd, column, c);
        }
    }

    /// Computes `N` vectors of columns from `column` on.
    #[inline(always)]
    fn columns<S: Simd, const N: usize>(&self, simd: S, column: usize, c: &mut [f32]) {
        let (n_terms, stride) = (self.n_terms, self.stride);
        let mut rows = [&self.a[..n_terms]; M];
        let mut acc = [[simd.splat(0.0); N]; M];
        for i in 0..M {
            rows[i] = &self.a[i * self.a_stride..][..n_terms];
            if let Some(start) = &self.start {
                let c = &c[i * stride + column..][..N * S::LANES];
                for j in 0..N {
                    acc[i][j] = simd.mul(simd.load(&c[j * S::LANES..]), simd.splat(start[i]));
                }
            }
        }
        for (k, b) in self.b.chunks_exact(stride).take(n_terms).enumerate() {
            let b = &b[column..][..N * S::LANES];
            let mut v = [simd.splat(0.0); N];
            for j in 0..N {
                v[j] = simd.load(&b[j * S::LANES..]);
            }
            for i in 0..M {
                let a = simd.splat(rows[i][k]);
                for j in 0..N {
                    acc[i][j] = simd.mul_add(a, v[j], acc[i][j]);
                }
            }
        }
        for i in 0..M {
            let c = &mut c[i * stride + column..][..N * S::LANES];
            for j in 0..N {
                simd.store(acc[i][j], &mut c[j * S::LANES..]);
            }
        }
    }
}
