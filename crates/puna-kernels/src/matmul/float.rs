//! Products of weights stored as floats.
//!
//! # The sum of one output
//! With `L` lanes, lane `l` adds the products of the columns `l`, `l + L`, `l + 2L`, ... in ascending order, each
//! by one fused multiply-add from zero; missing columns of the last vector count as zero. Then lanes are added,
//! halves first: lane `i` with lane `i + L/2`, and so on down. F16 and BF16 weights are converted to f32, which
//! is exact; for BF16 weights, activations were rounded to bf16. [`crate::isa::Scalar`] has four lanes and
//! rounds products and sums apart. BF16 weights with [`crate::isa::Avx512Vnni`] are an exception: see
//! [`super::bf16_dot`].
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
    match (token, task.w.dtype()) {
        #[cfg(target_arch = "x86_64")]
        (Token::Avx512Vnni(token), DType::BF16) => super::bf16_dot::multiply(token, task),
        _ => token.dispatch(task),
    }
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
            DType::F32 => self.multiply(s, F32, self.x.as_f32()),
            DType::F16 => self.multiply(s, F16, self.x.as_f32()),
            DType::BF16 => self.multiply(s, Bf16, self.x.as_bf16_rounded()),
            dtype => unreachable!("{dtype} is multiplied elsewhere"),
        }
    }
}

/// A type of stored weights and how vectors of it are multiplied.
pub(super) trait Element<S: Simd>: Copy {
    /// An activation; its default is zero.
    type X: Copy + Default;
    /// A vector of weights or of activations.
    type V: Copy;
    /// Bytes of a weight.
    const BYTES: usize;
    /// Elements for each lane of a vector.
    const PER_LANE: usize;

    /// The weights at the front of `bytes`. Panics when they do not fill a vector.
    fn weights(self, s: S, bytes: &[u8]) -> Self::V;
    /// The activations at the front of `x`. Panics when they do not fill a vector.
    fn activations(self, s: S, x: &[Self::X]) -> Self::V;
    /// `w·x + sum` in each lane.
    fn mul_add(self, s: S, w: Self::V, x: Self::V, sum: S::F32) -> S::F32;
}

macro_rules! element {
    ($name:ident, $bytes:literal, $load:ident) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl<S: Simd> Element<S> for $name {
            type X = f32;
            type V = S::F32;
            const BYTES: usize = $bytes;
            const PER_LANE: usize = 1;

            #[inline(always)]
            fn weights(self, s: S, bytes: &[u8]) -> S::F32 {
                s.$load(bytes)
            }

            #[inline(always)]
            fn activations(self, s: S, x: &[f32]) -> S::F32 {
                s.load(x)
            }

            #[inline(always)]
            fn mul_add(self, s: S, w: S::F32, x: S::F32, sum: S::F32) -> S::F32 {
                s.mul_add(w, x, sum)
            }
        }
    };
}

element!(F32, 4, load_f32);
element!(F16, 2, load_f16);
element!(Bf16, 2, load_bf16);

/// Elements in the longest vector.
const MAX_LEN: usize = 32;
/// Bytes in the longest vector.
const MAX_BYTES: usize = 64;

impl FloatTask<'_> {
    /// All tiles; `x` `[n_tokens, cols]` are the activations for this type.
    #[inline(always)]
    pub(super) fn multiply<S: Simd, E: Element<S>>(self, s: S, e: E, x: &[E::X]) {
        let n_tokens = self.x.n_rows();
        let mut token = 0;
        while token < n_tokens {
            let nt = tile_tokens::<S>().min(n_tokens - token);
            let x = &x[token * self.w.cols()..];
            let mut row = 0;
            while row < self.n_rows {
                match nt {
                    1 => self.tile::<S, E, 1>(s, e, row, token, x),
                    2 => self.tile::<S, E, 2>(s, e, row, token, x),
                    3 => self.tile::<S, E, 3>(s, e, row, token, x),
                    4 => self.tile::<S, E, 4>(s, e, row, token, x),
                    5 => self.tile::<S, E, 5>(s, e, row, token, x),
                    _ => self.tile::<S, E, 6>(s, e, row, token, x),
                }
                row += ROWS;
            }
            token += nt;
        }
    }

    /// One tile, from `row` of the task; `x` starts with the tile's first token.
    #[inline(always)]
    fn tile<S: Simd, E: Element<S>, const NT: usize>(
        self,
        s: S,
        e: E,
        row: usize,
        token: usize,
        x: &[E::X],
    ) {
        let cols = self.w.cols();
        let n_rows = ROWS.min(self.n_rows - row);
        // A row that is missing is a second copy of the last, whose sums are dropped.
        let mut w = [&[][..]; ROWS];
        for (r, w) in w.iter_mut().enumerate() {
            *w = self.w.row(self.first_row + row + r.min(n_rows - 1));
        }
        let mut xs = [&[][..]; NT];
        for (t, xs) in xs.iter_mut().enumerate() {
            *xs = &x[t * cols..(t + 1) * cols];
        }
        let sums = dots::<S, E, NT>(s, e, w, xs);
        for (t, sums) in sums.iter().enumerate() {
            let start = (token + t) * self.w.rows() + self.first_row + row;
            // SAFETY: only this task writes columns of its rows, and no other part is alive in it.
            let out = unsafe { self.y.part(start..start + n_rows) };
            out.copy_from_slice(&sums[..n_rows]);
        }
    }
}

/// The products of some rows with some tokens, `[token][row]`.
#[inline(always)]
fn dots<S: Simd, E: Element<S>, const NT: usize>(
    s: S,
    e: E,
    w: [&[u8]; ROWS],
    x: [&[E::X]; NT],
) -> [[f32; ROWS]; NT] {
    let len = S::LANES * E::PER_LANE;
    let cols = x[0].len();
    let n_whole = cols / len;
    // Slices of one length, so that one comparison serves all.
    let (mut w_whole, mut x_whole) = (w, x);
    for w in &mut w_whole {
        *w = &w[..n_whole * len * E::BYTES];
    }
    for x in &mut x_whole {
        *x = &x[..n_whole * len];
    }
    let mut sums = [[s.splat(0.0); NT]; ROWS];
    for i in 0..n_whole {
        let mut xs = [e.activations(s, &x_whole[0][i * len..(i + 1) * len]); NT];
        for t in 1..NT {
            xs[t] = e.activations(s, &x_whole[t][i * len..(i + 1) * len]);
        }
        for r in 0..ROWS {
            let (from, to) = (i * len * E::BYTES, (i + 1) * len * E::BYTES);
            let w = e.weights(s, &w_whole[r][from..to]);
            for t in 0..NT {
                sums[r][t] = e.mul_add(s, w, xs[t], sums[r][t]);
            }
        }
    }
    if n_whole * len < cols {
        for r in 0..ROWS {
            let rest = &w[r][n_whole * len * E::BYTES..];
            let mut padded = [0; MAX_BYTES];
            padded[..rest.len()].copy_from_slice(rest);
            let w = e.weights(s, &padded);
            for t in 0..NT {
                let rest = &x[t][n_whole * len..];
                let mut padded = [E::X::default(); MAX_LEN];
                padded[..rest.len()].copy_from_slice(rest);
                sums[r][t] = e.mul_add(s, w, e.activations(s, &padded), sums[r][t]);
            }
        }
    }
    let mut out = [[0.0; ROWS]; NT];
    for t in 0..NT {
        for r in 0..ROWS {
            out[t][r] = s.sum(sums[r][t]);
        }
    }
    out
}
