//! Products of weights stored as floats.
//!
//! # The sum of one output
//! With `L` lanes, lane `l` adds the products of the columns `l`, `l + L`, `l + 2L`, ... in ascending order, each
//! by one fused multiply-add from zero; missing columns of the last vector count as zero. Then lanes are added,
//! halves first: lane `i` with lane `i + L/2`, and so on down. F16 and BF16 weights are converted to f32, which
//! is exact; for BF16 weights, activations were rounded to bf16. [`crate::isa::Scalar`] has four lanes and
//! rounds products and sums apart.
//!
//! A tile of rows and tokens shares the loads: each weight serves all tokens of the tile, each activation all
//! its rows, while every output keeps its own vector of partial sums.

use puna_core::DType;

use super::{Activations, MatRef};
use crate::DisjointMut;
use crate::isa::Token;
use crate::simd::{Op, Simd};

/// Some rows of a product, all tokens.
#[derive(Clone, Copy)]
pub(crate) struct FloatTask<'a> {
    pub w: MatRef<'a>,
    pub x: &'a Activations,
    /// `[n_tokens, rows]`; this task writes the columns of its rows.
    pub y: &'a DisjointMut<'a, f32>,
    pub first_row: usize,
    pub n_rows: usize,
}

/// Multiplies the rows of `task`.
pub(crate) fn multiply(token: Token, task: FloatTask<'_>) {
    token.dispatch(task);
}

/// Rows in a tile.
const ROWS: usize = 4;

/// The most tokens in a tile: as many as leave registers for the vectors in flight.
const fn tile_tokens<S: Simd>() -> usize {
    if S::N_REGISTERS >= 32 { 6 } else { 3 }
}

impl Op for FloatTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.w.dtype() {
            DType::F32 => self.multiply::<S, F32>(s, self.x.as_f32()),
            DType::F16 => self.multiply::<S, F16>(s, self.x.as_f32()),
            DType::BF16 => self.multiply::<S, Bf16>(s, self.x.as_bf16_rounded()),
            dtype => unreachable!("{dtype} is multiplied elsewhere"),
        }
    }
}

/// A type of stored weights.
trait Element {
    const BYTES: usize;

    /// The first `LANES` elements of `bytes`, which may have any alignment; zeros where there are fewer.
    fn load<S: Simd>(s: S, bytes: &[u8]) -> S::F32;
}

macro_rules! element {
    ($name:ident, $bits:ty, $load:ident) => {
        struct $name;

        impl Element for $name {
            const BYTES: usize = size_of::<$bits>();

            #[inline(always)]
            fn load<S: Simd>(s: S, bytes: &[u8]) -> S::F32 {
                if bytes.len() >= S::LANES * Self::BYTES {
                    return s.$load(bytes);
                }
                let mut padded = [0; 64];
                padded[..bytes.len()].copy_from_slice(bytes);
                s.$load(&padded)
            }
        }
    };
}

element!(F32, f32, load_f32);
element!(F16, u16, load_f16);
element!(Bf16, u16, load_bf16);

impl FloatTask<'_> {
    /// All tiles; `x` `[n_tokens, cols]` are the activations for this type.
    #[inline(always)]
    fn multiply<S: Simd, E: Element>(self, s: S, x: &[f32]) {
        let n_tokens = self.x.n_rows();
        let mut token = 0;
        while token < n_tokens {
            let nt = tile_tokens::<S>().min(n_tokens - token);
            let x = &x[token * self.w.cols()..];
            let mut row = 0;
            while row < self.n_rows {
                match nt {
                    1 => self.tile::<S, E, 1>(s, row, token, x),
                    2 => self.tile::<S, E, 2>(s, row, token, x),
                    3 => self.tile::<S, E, 3>(s, row, token, x),
                    4 => self.tile::<S, E, 4>(s, row, token, x),
                    5 => self.tile::<S, E, 5>(s, row, token, x),
                    _ => self.tile::<S, E, 6>(s, row, token, x),
                }
                row += ROWS;
            }
            token += nt;
        }
    }

    /// One tile, from `row` of the task; `x` starts with the tile's first token.
    #[inline(always)]
    fn tile<S: Simd, E: Element, const NT: usize>(self, s: S, row: usize, token: usize, x: &[f32]) {
        let cols = self.w.cols();
        let n_rows = ROWS.min(self.n_rows - row);
        // A row that is missing is a second copy of the last, whose sums are dropped.
        let mut w = [self.w.row(self.first_row + row); ROWS];
        for (r, w) in w.iter_mut().enumerate() {
            *w = self.w.row(self.first_row + row + r.min(n_rows - 1));
        }
        let mut sums = [[s.splat(0.0); NT]; ROWS];
        let whole = cols - cols % S::LANES;
        let mut k = 0;
        while k < whole {
            let mut xs = [s.splat(0.0); NT];
            for (t, xs) in xs.iter_mut().enumerate() {
                *xs = s.load(&x[t * cols + k..][..S::LANES]);
            }
            for (w, sums) in w.iter().zip(&mut sums) {
                let w = E::load(s, &w[k * E::BYTES..(k + S::LANES) * E::BYTES]);
                for (x, sum) in xs.iter().zip(sums) {
                    *sum = s.mul_add(w, *x, *sum);
                }
            }
            k += S::LANES;
        }
        if k < cols {
            for (w, sums) in w.iter().zip(&mut sums) {
                let w = E::load(s, &w[k * E::BYTES..]);
                for (t, sum) in sums.iter_mut().enumerate() {
                    let x = s.load_partial(&x[t * cols + k..(t + 1) * cols]);
                    *sum = s.mul_add(w, x, *sum);
                }
            }
        }
        for t in 0..NT {
            let start = (token + t) * self.w.rows() + self.first_row + row;
            // SAFETY: only this task writes columns of its rows, and no other part is alive in it.
            let out = unsafe { self.y.part(start..start + n_rows) };
            for (out, sums) in out.iter_mut().zip(&sums) {
                *out = s.sum(sums[t]);
            }
        }
    }
}
