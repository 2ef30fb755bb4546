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
//! its rows, while every output keeps its own vector of partial sums, from one chunk of columns to the next.

use std::ops::Range;

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
pub(crate) fn multiply(token: Token, task: FloatTask<'_>, scratch: &mut [f32]) {
    match (token, task.w.dtype()) {
        #[cfg(target_arch = "x86_64")]
        (Token::Avx512Vnni(token), DType::BF16) => {
            super::bf16_dot::multiply(token, task, scratch);
        }
        _ => token.dispatch(Multiply { task, scratch }),
    }
}

/// Rows in a tile.
const ROWS: usize = 4;

/// The most tokens in a tile: as many as leave registers for the vectors in flight.
const fn tile_tokens<S: Simd>() -> usize {
    if S::N_REGISTERS >= 32 { MAX_TOKENS } else { 3 }
}

struct Multiply<'a> {
    task: FloatTask<'a>,
    scratch: &'a mut [f32],
}

impl Op for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { task, scratch } = self;
        match task.w.dtype() {
            DType::F32 => task.multiply(s, F32, task.x.as_f32(), scratch),
            DType::F16 => task.multiply(s, F16, task.x.as_f32(), scratch),
            DType::BF16 => task.multiply(s, Bf16, task.x.as_bf16_rounded(), scratch),
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

/// Columns that are worked on at once when there are several tokens, so that a tile's activations stay in the
/// cache nearest to the core. A multiple of every vector's length.
const CHUNK: usize = 512;
/// Floats of working memory that a task needs: a vector for each output of a tile.
pub(super) fn scratch_len(n_rows: usize, n_tokens: usize) -> usize {
    n_rows.next_multiple_of(ROWS) * n_tokens.min(MAX_TOKENS) * MAX_LANES
}

/// The most tokens in a tile of any instruction set.
const MAX_TOKENS: usize = 6;
/// The most lanes of any instruction set.
const MAX_LANES: usize = 16;

/// Activations of a tile's tokens.
struct Tokens<'a, X, const NT: usize> {
    first: usize,
    x: [&'a [X]; NT],
}

impl FloatTask<'_> {
    /// All tiles; `x` `[n_tokens, cols]` are the activations for this type.
    #[inline(always)]
    pub(super) fn multiply<S: Simd, E: Element<S>>(
        self,
        s: S,
        e: E,
        x: &[E::X],
        scratch: &mut [f32],
    ) {
        let n_tokens = self.x.n_rows();
        let mut first = 0;
        while first < n_tokens {
            let nt = tile_tokens::<S>().min(n_tokens - first);
            match nt {
                1 => self.tokens::<S, E, 1>(s, e, first, x, scratch),
                2 => self.tokens::<S, E, 2>(s, e, first, x, scratch),
                3 => self.tokens::<S, E, 3>(s, e, first, x, scratch),
                4 => self.tokens::<S, E, 4>(s, e, first, x, scratch),
                5 => self.tokens::<S, E, 5>(s, e, first, x, scratch),
                _ => self.tokens::<S, E, MAX_TOKENS>(s, e, first, x, scratch),
            }
            first += nt;
        }
    }

    /// All rows with the tokens from `first`: chunk by chunk, the sums of the tiles resting in `scratch`.
    #[inline(always)]
    fn tokens<S: Simd, E: Element<S>, const NT: usize>(
        self,
        s: S,
        e: E,
        first: usize,
        x: &[E::X],
        scratch: &mut [f32],
    ) {
        let cols = self.w.cols();
        let mut tokens = Tokens { first, x: [&[][..]; NT] };
        for (t, tokens) in tokens.x.iter_mut().enumerate() {
            *tokens = &x[(first + t) * cols..(first + t + 1) * cols];
        }
        let chunk = if NT == 1 { cols } else { CHUNK };
        let tile_len = ROWS * NT * S::LANES;
        for from in (0..cols).step_by(chunk) {
            let to = cols.min(from + chunk);
            for row in (0..self.n_rows).step_by(ROWS) {
                let rest = &mut scratch[row / ROWS * tile_len..][..tile_len];
                self.tile(s, e, row, &tokens, from..to, rest);
            }
        }
    }

    /// Some columns of one tile, from `row` of the task.
    #[inline(always)]
    fn tile<S: Simd, E: Element<S>, const NT: usize>(
        self,
        s: S,
        e: E,
        row: usize,
        tokens: &Tokens<'_, E::X, NT>,
        cols: Range<usize>,
        rest: &mut [f32],
    ) {
        let n_rows = ROWS.min(self.n_rows - row);
        // A row that is missing is a second copy of the last, whose sums are dropped.
        let mut w = [&[][..]; ROWS];
        for (r, w) in w.iter_mut().enumerate() {
            let row = self.w.row(self.first_row + row + r.min(n_rows - 1));
            *w = &row[cols.start * E::BYTES..cols.end * E::BYTES];
        }
        let mut x = tokens.x;
        for x in &mut x {
            *x = &x[cols.clone()];
        }
        let mut sums = [[s.splat(0.0); NT]; ROWS];
        if cols.start > 0 {
            for r in 0..ROWS {
                for t in 0..NT {
                    sums[r][t] = s.load(&rest[(r * NT + t) * S::LANES..]);
                }
            }
        }
        add_products(s, e, w, x, &mut sums);
        if cols.end < self.w.cols() {
            for r in 0..ROWS {
                for t in 0..NT {
                    s.store(sums[r][t], &mut rest[(r * NT + t) * S::LANES..]);
                }
            }
            return;
        }
        let mut outputs = [[0.0; ROWS]; NT];
        for r in 0..ROWS {
            for t in 0..NT {
                outputs[t][r] = s.sum(sums[r][t]);
            }
        }
        for (t, outputs) in outputs.iter().enumerate() {
            let start = (tokens.first + t) * self.w.rows() + self.first_row + row;
            // SAFETY: only this task writes columns of its rows, and no other part is alive in it.
            let out = unsafe { self.y.part(start..start + n_rows) };
            out.copy_from_slice(&outputs[..n_rows]);
        }
    }
}

/// Adds the products of some rows with some tokens, lane by lane.
#[inline(always)]
fn add_products<S: Simd, E: Element<S>, const NT: usize>(
    s: S,
    e: E,
    w: [&[u8]; ROWS],
    x: [&[E::X]; NT],
    sums: &mut [[S::F32; NT]; ROWS],
) {
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
}
