//! Products of weights stored as floats.
//!
//! # The sum of one output
//! With `L` lanes, lane `l` adds the products of the columns `l`, `l + L`, `l + 2L`, ... in ascending order, each
//! by one fused multiply-add from zero; missing columns of the last vector count as zero. Then lanes are added,
//! halves first: lane `i` with lane `i + L/2`, and so on down. F16 and BF16 weights are converted to f32, which
//! is exact; for BF16 weights, activations were rounded to bf16. [`crate::isa::Scalar`] has four lanes and
//! rounds products and sums apart. BF16 weights with [`crate::isa::Avx512Bf16`] are an exception: see
//! [`super::bf16_dot`].
//!
//! # How it is computed
//! A tile of rows and tokens shares the loads: each weight serves all tokens of the tile, each activation all
//! its rows, while every output keeps its own vector of partial sums. Few tokens meet the weights where they
//! are stored. For many, a task converts its rows, some columns at a time, into a panel in which the vectors of
//! a tile of rows lie in the order they are needed, and all tokens meet the panel while it is in a cache.
//! Between panels, partial sums rest in memory as the vectors they are.

use std::ops::Range;

use bytemuck::{Pod, cast_slice_mut};
use puna_core::DType;

use super::{Activations, MatRef};
use crate::DisjointMut;
use crate::isa::Token;
use crate::simd::{Op, Simd, prefetch};

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
        (Token::Avx512Bf16(token), DType::BF16) => {
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
    /// An activation, and a weight in a panel; its default is zero.
    type X: Copy + Default + Pod;
    /// A vector of weights or of activations.
    type V: Copy;
    /// Bytes of a weight.
    const BYTES: usize;
    /// Elements for each lane of a vector.
    const PER_LANE: usize;

    /// The weights at the front of `bytes`. Panics when they do not fill a vector.
    fn weights(self, s: S, bytes: &[u8]) -> Self::V;
    /// The elements at the front of `x`. Panics when they do not fill a vector.
    fn load(self, s: S, x: &[Self::X]) -> Self::V;
    /// Writes the first elements of `out`. Panics when they do not hold a vector.
    fn store(self, s: S, v: Self::V, out: &mut [Self::X]);
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
            fn load(self, s: S, x: &[f32]) -> S::F32 {
                s.load(x)
            }

            #[inline(always)]
            fn store(self, s: S, v: S::F32, out: &mut [f32]) {
                s.store(v, out);
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
/// The most lanes of any instruction set.
const MAX_LANES: usize = 16;
/// The most tokens in a tile of any instruction set.
const MAX_TOKENS: usize = 6;

/// Tiles of tokens for which rows are rather converted again than put down in a panel.
const FEW_TILES: usize = 3;
/// Columns in a panel: with the rows of a task, it fits a cache of the second level. A multiple of every vector's length.
const PANEL_COLS: usize = 512;
/// Tokens that meet a panel before the next is made; a multiple of every tile's.
const PANEL_TOKENS: usize = 126;

/// Floats of working memory that a task needs: a panel, and the partial sums of every output.
pub(super) fn scratch_len(n_rows: usize, n_tokens: usize) -> usize {
    let n_tokens = n_tokens.min(PANEL_TOKENS).next_multiple_of(MAX_TOKENS);
    n_rows.next_multiple_of(ROWS) * (PANEL_COLS + n_tokens * MAX_LANES)
}

/// Partial sums of a tile.
type Sums<S, const NT: usize> = [[<S as Simd>::F32; NT]; ROWS];

/// Calls `$self.$method::<S, E, NT>($args)` with the number of tokens as a constant.
macro_rules! with_tokens {
    ($n:expr, $self:ident.$method:ident($($arg:expr),*)) => {
        match $n {
            1 => $self.$method::<S, E, 1>($($arg),*),
            2 => $self.$method::<S, E, 2>($($arg),*),
            3 => $self.$method::<S, E, 3>($($arg),*),
            4 => $self.$method::<S, E, 4>($($arg),*),
            5 => $self.$method::<S, E, 5>($($arg),*),
            _ => $self.$method::<S, E, MAX_TOKENS>($($arg),*),
        }
    };
}

impl FloatTask<'_> {
    /// All outputs; `x` `[n_tokens, cols]` are the activations for this type.
    #[inline(always)]
    pub(super) fn multiply<S: Simd, E: Element<S>>(
        self,
        s: S,
        e: E,
        x: &[E::X],
        scratch: &mut [f32],
    ) {
        let n_tokens = self.x.n_rows();
        if n_tokens <= FEW_TILES * tile_tokens::<S>() {
            // Tile by tile while the rows are in the nearest cache.
            for row in (0..self.n_rows).step_by(ROWS) {
                for first in (0..n_tokens).step_by(tile_tokens::<S>()) {
                    let nt = tile_tokens::<S>().min(n_tokens - first);
                    with_tokens!(nt, self.stored_tile(s, e, row, first, x));
                }
            }
            return;
        }
        for first in (0..n_tokens).step_by(PANEL_TOKENS) {
            self.panels(s, e, first, PANEL_TOKENS.min(n_tokens - first), x, scratch);
        }
    }

    /// One tile of rows, where they are stored, with one of tokens.
    #[inline(always)]
    fn stored_tile<S: Simd, E: Element<S>, const NT: usize>(
        self,
        s: S,
        e: E,
        row: usize,
        first: usize,
        x: &[E::X],
    ) {
        let x = tokens(x, self.w.cols(), 0..self.w.cols(), first);
        let mut sums: Sums<S, NT> = [[s.splat(0.0); NT]; ROWS];
        add_stored(s, e, self.rows_from(row), x, &mut sums);
        self.write(s, row, first, &sums);
    }

    /// All rows with `n_tokens` tokens from `first_token`, panel by panel.
    #[inline(always)]
    fn panels<S: Simd, E: Element<S>>(
        self,
        s: S,
        e: E,
        first_token: usize,
        n_tokens: usize,
        x: &[E::X],
        scratch: &mut [f32],
    ) {
        let cols = self.w.cols();
        let len = S::LANES * E::PER_LANE;
        let (panel, sums) = scratch.split_at_mut(self.n_rows.next_multiple_of(ROWS) * PANEL_COLS);
        let panel: &mut [E::X] = cast_slice_mut(panel);
        for from in (0..cols).step_by(PANEL_COLS) {
            let to = cols.min(from + PANEL_COLS);
            let tile_len = (to - from).next_multiple_of(len) * ROWS;
            let panel = &mut panel[..self.n_rows.div_ceil(ROWS) * tile_len];
            for (i, out) in panel.chunks_exact_mut(tile_len).enumerate() {
                let w = self.rows_from(i * ROWS);
                pack(s, e, w.map(|w| &w[from * E::BYTES..to * E::BYTES]), out);
            }
            for token in (0..n_tokens).step_by(tile_tokens::<S>()) {
                let part = Part { first: first_token + token, from, to, x, panel };
                let nt = tile_tokens::<S>().min(n_tokens - token);
                let sums = &mut sums[token * self.n_rows.next_multiple_of(ROWS) * S::LANES..];
                with_tokens!(nt, self.tile_of_tokens(s, e, &part, sums));
            }
        }
    }

    /// All rows of a panel with one tile of tokens, whose partial sums rest in `sums`.
    #[inline(always)]
    fn tile_of_tokens<S: Simd, E: Element<S>, const NT: usize>(
        self,
        s: S,
        e: E,
        part: &Part<'_, E::X>,
        sums: &mut [f32],
    ) {
        let cols = self.w.cols();
        let x = tokens::<_, NT>(part.x, cols, part.from..part.to, part.first);
        let tile_len = part.panel.len() / self.n_rows.div_ceil(ROWS);
        let tiles = part.panel.chunks_exact(tile_len);
        for (i, (w, rest)) in tiles.zip(sums.chunks_exact_mut(ROWS * NT * S::LANES)).enumerate() {
            let mut sums: Sums<S, NT> = [[s.splat(0.0); NT]; ROWS];
            if part.from > 0 {
                for r in 0..ROWS {
                    for t in 0..NT {
                        sums[r][t] = s.load(&rest[(r * NT + t) * S::LANES..]);
                    }
                }
            }
            add_packed(s, e, w, x, &mut sums);
            if part.to == cols {
                self.write(s, i * ROWS, part.first, &sums);
                continue;
            }
            for r in 0..ROWS {
                for t in 0..NT {
                    s.store(sums[r][t], &mut rest[(r * NT + t) * S::LANES..]);
                }
            }
        }
    }

    /// The stored rows of a tile. A row that is missing is a second copy of the last, whose sums are dropped.
    #[inline(always)]
    fn rows_from(&self, row: usize) -> [&[u8]; ROWS] {
        let mut w = [&[][..]; ROWS];
        for (r, w) in w.iter_mut().enumerate() {
            *w = self.w.row(self.first_row + (row + r).min(self.n_rows - 1));
        }
        w
    }

    /// Adds the lanes of a tile's sums, and writes them as outputs of rows from `row` of the task and tokens
    /// from `first`.
    #[inline(always)]
    fn write<S: Simd, const NT: usize>(&self, s: S, row: usize, first: usize, sums: &Sums<S, NT>) {
        let n_rows = ROWS.min(self.n_rows - row);
        for (t, token) in (first..first + NT).enumerate() {
            let outputs = s.sums([sums[0][t], sums[1][t], sums[2][t], sums[3][t]]);
            let start = token * self.w.rows() + self.first_row + row;
            // SAFETY: only this task writes columns of its rows, and no other part is alive in it.
            let out = unsafe { self.y.part(start..start + n_rows) };
            out.copy_from_slice(&outputs[..n_rows]);
        }
    }
}

/// A panel, columns `from..to` of a task's rows, and the tokens from `first` that meet it.
struct Part<'a, X> {
    first: usize,
    from: usize,
    to: usize,
    /// `[n_tokens, cols]`
    x: &'a [X],
    panel: &'a [X],
}

/// Columns `range` of `NT` tokens from `first`; `x` is `[n_tokens, cols]`.
#[inline(always)]
fn tokens<X, const NT: usize>(
    x: &[X],
    cols: usize,
    range: Range<usize>,
    first: usize,
) -> [&[X]; NT] {
    let mut tokens = [&[][..]; NT];
    for (t, tokens) in tokens.iter_mut().enumerate() {
        *tokens = &x[(first + t) * cols..][range.clone()];
    }
    tokens
}

/// Writes rows `w` of one length vector by vector: the first vector of each, the second of each, and so on. Missing
/// elements of the last are zero.
#[inline(always)]
fn pack<S: Simd, E: Element<S>>(s: S, e: E, w: [&[u8]; ROWS], out: &mut [E::X]) {
    let len = S::LANES * E::PER_LANE;
    let n_bytes = len * E::BYTES;
    for (i, out) in out.chunks_exact_mut(ROWS * len).enumerate() {
        for r in 0..ROWS {
            let stored = &w[r][i * n_bytes..];
            let v = match stored.len() < n_bytes {
                true => e.weights(s, &padded::<_, MAX_BYTES>(stored)),
                false => e.weights(s, stored),
            };
            e.store(s, v, &mut out[r * len..]);
        }
    }
}

/// Adds the products of a tile of stored rows with some tokens, lane by lane.
#[inline(always)]
fn add_stored<S: Simd, E: Element<S>, const NT: usize>(
    s: S,
    e: E,
    w: [&[u8]; ROWS],
    x: [&[E::X]; NT],
    sums: &mut Sums<S, NT>,
) {
    let len = S::LANES * E::PER_LANE;
    let n_bytes = len * E::BYTES;
    let n_whole = x[0].len() / len;
    // Slices of one length, so that one comparison serves all.
    let (mut w_whole, mut x_whole) = (w, x);
    for w in &mut w_whole {
        *w = &w[..n_whole * n_bytes];
    }
    for x in &mut x_whole {
        *x = &x[..n_whole * len];
    }
    // Rows by turns are a pattern that hardware hardly foresees. The next rows lie in one piece behind these.
    let next_rows = w[ROWS - 1].as_ptr_range().end;
    for i in 0..n_whole {
        for line in (0..ROWS * n_bytes).step_by(64) {
            prefetch(next_rows.wrapping_add(i * ROWS * n_bytes + line));
        }
        let mut xs = [e.load(s, &x_whole[0][i * len..]); NT];
        for t in 1..NT {
            xs[t] = e.load(s, &x_whole[t][i * len..]);
        }
        for r in 0..ROWS {
            let w = e.weights(s, &w_whole[r][i * n_bytes..]);
            for t in 0..NT {
                sums[r][t] = e.mul_add(s, w, xs[t], sums[r][t]);
            }
        }
    }
    if n_whole * len < x[0].len() {
        for (w, sums) in w.iter().zip(sums) {
            let w = e.weights(s, &padded::<_, MAX_BYTES>(&w[n_whole * n_bytes..]));
            for (x, sum) in x.iter().zip(sums) {
                let x = e.load(s, &padded::<_, MAX_LEN>(&x[n_whole * len..]));
                *sum = e.mul_add(s, w, x, *sum);
            }
        }
    }
}

/// The same for rows that [`pack`] wrote.
#[inline(always)]
fn add_packed<S: Simd, E: Element<S>, const NT: usize>(
    s: S,
    e: E,
    w: &[E::X],
    x: [&[E::X]; NT],
    sums: &mut Sums<S, NT>,
) {
    let len = S::LANES * E::PER_LANE;
    let n_whole = x[0].len() / len;
    let mut x_whole = x;
    for x in &mut x_whole {
        *x = &x[..n_whole * len];
    }
    let mut vectors = w.chunks_exact(ROWS * len);
    for (i, w) in vectors.by_ref().take(n_whole).enumerate() {
        let mut xs = [e.load(s, &x_whole[0][i * len..]); NT];
        for t in 1..NT {
            xs[t] = e.load(s, &x_whole[t][i * len..]);
        }
        for r in 0..ROWS {
            let w = e.load(s, &w[r * len..]);
            for t in 0..NT {
                sums[r][t] = e.mul_add(s, w, xs[t], sums[r][t]);
            }
        }
    }
    for w in vectors {
        for (t, x) in x.iter().enumerate() {
            let x = e.load(s, &padded::<_, MAX_LEN>(&x[n_whole * len..]));
            for (r, sums) in sums.iter_mut().enumerate() {
                sums[t] = e.mul_add(s, e.load(s, &w[r * len..]), x, sums[t]);
            }
        }
    }
}

/// The elements of `x`, then zeros.
#[inline(always)]
fn padded<X: Copy + Default, const N: usize>(x: &[X]) -> [X; N] {
    let mut padded = [X::default(); N];
    padded[..x.len()].copy_from_slice(x);
    padded
}
