//! Products of quantised weights.
//!
//! # The sum of one output
//! Let a block be 32 elements, `q` its weights and `x̂ = d·n` its activations, rounded to integers `n` with one
//! scale `d` (see [`super::activations`]). With `i₀ = Σ(q − offset)·n` over the block, or `i₀` and `i₁` over its halves
//! where the format scales 16 elements, exact integers, and `s` the scales, `m` the minima of the format:
//!
//! ```text
//! v   = s₀·i₀                 rounded
//! v   = fma(s₁, i₁, v)        formats with a scale per 16 elements
//! v   = fma(−mⱼ, Σn, v)       formats with minima, for each scale j
//! acc = fma(v, d, acc)        blocks in ascending order, from zero
//! ```
//!
//! The order does not depend on the shape of the product or on who computes it, and integers are exact, so
//! every instruction set gives the same bits.
//!
//! # How it is computed
//! A task has some rows. Their weights are decoded chunk by chunk into a panel that stays in a cache near
//! the core: [`Rows::LANES`] rows side by side, `CHUNK` elements long. Every tile of tokens is multiplied with
//! the panel while it is there; between chunks, sums rest in the output. One token is a tile of one.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use puna_core::DType;

use super::MatRef;
use super::activations::{BLOCK_LEN, QuantActivations, Side, WORDS};
use super::formats::{Block, Column, Format, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::formats_k::{Q2K, Q3K, Q4K, Q5K, Q6K};
use super::rows::{Job, Rows, dispatch};
use crate::DisjointMut;
use crate::blocks::K_BLOCK_LEN;
use crate::isa::Token;
use crate::simd::prefetch;

/// Elements of a row in one panel: with one group of rows, a panel fits a 32 KiB cache.
const CHUNK: usize = 512;
/// Groups of rows in one panel when there are many tokens: then activations are read from afar once for
/// so many rows, and the panel fits a cache of the second level.
const GROUPS_AT_ONCE: usize = 4;
/// Tiles of tokens for which rows are rather decoded twice than put down in a panel.
const FEW_TILES: usize = 2;
/// Blocks of 32 elements in a chunk.
const CHUNK_BLOCKS: usize = CHUNK / BLOCK_LEN;

/// Some rows of a product, all tokens.
#[derive(Clone, Copy)]
pub(crate) struct QuantTask<'a> {
    pub w: MatRef<'a>,
    pub x: &'a QuantActivations,
    /// `[n_tokens, rows]`; this task writes the columns of its rows.
    pub y: &'a DisjointMut<'a, f32>,
    pub first_row: usize,
    pub n_rows: usize,
}

/// Hands `$job::<Format, bytes, scales>` to [`dispatch`] with the format of `$dtype`.
macro_rules! with_format {
    ($token:expr, $dtype:expr, $job:ident, $($field:tt)*) => {
        match $dtype {
            DType::Q4_0 => dispatch($token, $job::<Q4_0, 18, 1> { $($field)* }),
            DType::Q4_1 => dispatch($token, $job::<Q4_1, 20, 2> { $($field)* }),
            DType::Q5_0 => dispatch($token, $job::<Q5_0, 22, 1> { $($field)* }),
            DType::Q5_1 => dispatch($token, $job::<Q5_1, 24, 2> { $($field)* }),
            DType::Q8_0 => dispatch($token, $job::<Q8_0, 34, 1> { $($field)* }),
            DType::Q2_K => dispatch($token, $job::<Q2K, 84, 4> { $($field)* }),
            DType::Q3_K => dispatch($token, $job::<Q3K, 110, 2> { $($field)* }),
            DType::Q4_K => dispatch($token, $job::<Q4K, 144, 2> { $($field)* }),
            DType::Q5_K => dispatch($token, $job::<Q5K, 176, 2> { $($field)* }),
            DType::Q6_K => dispatch($token, $job::<Q6K, 210, 2> { $($field)* }),
            DType::F32 | DType::F16 | DType::BF16 => unreachable!("floats are multiplied elsewhere"),
        }
    };
}

/// Blocks of 32 elements in the longest stored block.
const MAX_STEP: usize = K_BLOCK_LEN / BLOCK_LEN;
/// Bytes of a chunk of a row in the widest format.
const MAX_CHUNK_BYTES: usize = CHUNK_BLOCKS * 34;

/// Floats of working memory that a task needs: a panel in the widest vectors, with the most scales.
pub(crate) const SCRATCH_LEN: usize = GROUPS_AT_ONCE * CHUNK_BLOCKS * (8 + 4) * MAX_LANES;
/// The most rows in a vector of any instruction set.
const MAX_LANES: usize = 32;

/// Multiplies the rows of `task`. `scratch` starts on a cache line.
pub(crate) fn multiply(token: Token, task: QuantTask<'_>, scratch: &mut [f32]) {
    with_format!(token, task.w.dtype(), Multiply, task, scratch, format: PhantomData);
}

/// What products of `dtype` need of activations.
pub(crate) fn needs(token: Token, dtype: DType) -> Needs {
    let mut needs = Needs { tile_len: 0, side: None };
    with_format!(token, dtype, FindNeeds, needs: &mut needs, format: PhantomData);
    needs
}

/// How products of one type are tiled on one instruction set.
pub(crate) struct Needs {
    /// Tokens in a tile.
    pub tile_len: usize,
    pub side: Option<Side>,
}

struct FindNeeds<'a, F, const BYTES: usize, const SCALES: usize> {
    needs: &'a mut Needs,
    format: PhantomData<F>,
}

impl<F, const BYTES: usize, const SCALES: usize> Job for FindNeeds<'_, F, BYTES, SCALES>
where
    F: Format<BYTES, SCALES>,
{
    #[inline(always)]
    fn run<S: Rows>(self, _: S) {
        *self.needs = Needs { tile_len: S::TOKENS, side: F::side::<S>() };
    }
}

struct Multiply<'a, F, const BYTES: usize, const SCALES: usize> {
    task: QuantTask<'a>,
    scratch: &'a mut [f32],
    format: PhantomData<F>,
}

impl<F, const BYTES: usize, const SCALES: usize> Job for Multiply<'_, F, BYTES, SCALES>
where
    F: Format<BYTES, SCALES>,
{
    #[inline(always)]
    fn run<S: Rows>(self, s: S) {
        let Self { task, scratch, .. } = self;
        let groups_at_once = if task.x.n_tokens > S::TOKENS { GROUPS_AT_ONCE } else { 1 };
        let panel_len = groups_at_once * CHUNK_BLOCKS;
        let start = scratch.as_mut_ptr().cast::<MaybeUninit<Block<S, SCALES>>>();
        assert!(start.is_aligned());
        assert!(size_of_val(scratch) >= panel_len * size_of::<Block<S, SCALES>>());
        // SAFETY: alignment and size were just asserted; a block that may be uninitialised can be any bytes.
        let panel = unsafe { std::slice::from_raw_parts_mut(start, panel_len) };
        let mut row = 0;
        if task.x.n_tokens <= FEW_TILES * S::TOKENS {
            while row + S::Few::LANES <= task.n_rows {
                for token in (0..task.x.n_tokens).step_by(S::TOKENS) {
                    let out = Out { task: &task, row, token };
                    match S::TOKENS.min(task.x.n_tokens - token) {
                        1 => few_tokens::<S::Few, F, BYTES, SCALES, 1>(s.few(), &out),
                        2 => few_tokens::<S::Few, F, BYTES, SCALES, 2>(s.few(), &out),
                        3 => few_tokens::<S::Few, F, BYTES, SCALES, 3>(s.few(), &out),
                        4 => few_tokens::<S::Few, F, BYTES, SCALES, 4>(s.few(), &out),
                        5 => few_tokens::<S::Few, F, BYTES, SCALES, 5>(s.few(), &out),
                        6 => few_tokens::<S::Few, F, BYTES, SCALES, 6>(s.few(), &out),
                        _ => unreachable!("tiles have at most 6 tokens"),
                    }
                }
                row += S::Few::LANES;
            }
        }
        while row < task.n_rows {
            let n_rows = (groups_at_once * S::LANES).min(task.n_rows - row);
            let rows = QuantTask { first_row: task.first_row + row, n_rows, ..task };
            pass::<S, F, BYTES, SCALES>(s, &rows, panel);
            row += n_rows;
        }
    }
}

/// Multiplies `LANES` rows with one tile of tokens: a panel would serve too few, so each stored block is used where it
/// was decoded.
#[inline(always)]
fn few_tokens<S, F, const BYTES: usize, const SCALES: usize, const NT: usize>(s: S, out: &Out<'_>)
where
    S: Rows,
    F: Format<BYTES, SCALES>,
{
    let Out { task, row, token } = *out;
    let stride = task.w.row_bytes();
    let data = &task.w.data()[(task.first_row + row) * stride..];
    let words = task.x.tile(token);
    let groups = if F::side::<S>().is_some() { F::GROUPS } else { 0 };
    let side = F::side::<S>().map_or(&[][..], |side| task.x.side(side));
    let (side, side_len) = (&side[token * task.x.n_blocks * groups..], groups * NT);
    // Rows by turns are a pattern that hardware hardly foresees. The next group of rows lies in one piece
    // behind this one, and is asked for at the pace at which this one is read.
    let is_next_near = row + 2 * S::LANES <= task.n_rows;
    let next_group = data.as_ptr().wrapping_add(S::LANES * stride);
    let step = F::LEN / BLOCK_LEN;
    let mut acc = [s.splat(0.0); NT];
    for b in 0..stride / BYTES {
        if is_next_near {
            for line in (0..S::LANES * BYTES).step_by(64) {
                prefetch(next_group.wrapping_add(b * S::LANES * BYTES + line));
            }
        }
        let mut blocks = [const { MaybeUninit::uninit() }; MAX_STEP];
        F::decode(&Column::new(s, &data[b * BYTES..], stride), &mut blocks[..step]);
        for (i, block) in blocks[..step].iter().enumerate() {
            // SAFETY: `decode` initialised the blocks.
            let block = unsafe { block.assume_init_ref() };
            let at = b * step + i;
            let words = &words[at * WORDS * NT..(at + 1) * WORDS * NT];
            let side = &side[at * side_len..(at + 1) * side_len];
            add_block::<S, F, BYTES, SCALES, NT>(s, block, words, side, &mut acc);
        }
    }
    for (t, &acc) in acc.iter().enumerate() {
        out.store(s, acc, t);
    }
}

/// Multiplies as many rows as a panel has.
#[inline(always)]
fn pass<S: Rows, F: Format<BYTES, SCALES>, const BYTES: usize, const SCALES: usize>(
    s: S,
    task: &QuantTask<'_>,
    panel: &mut [MaybeUninit<Block<S, SCALES>>],
) {
    let n_groups = task.n_rows.div_ceil(S::LANES);
    let x = task.x;
    let side = F::side::<S>().map_or(&[][..], |side| x.side(side));
    let groups_len = if side.is_empty() { 0 } else { F::GROUPS };
    let mut first = 0;
    while first < x.n_blocks {
        let n_blocks = CHUNK_BLOCKS.min(x.n_blocks - first);
        for group in 0..n_groups {
            let out = &mut panel[group * CHUNK_BLOCKS..][..n_blocks];
            decode_chunk::<S, F, BYTES, SCALES>(s, task, group, first, out);
        }
        let mut token = 0;
        while token < x.n_tokens {
            let nt = S::TOKENS.min(x.n_tokens - token);
            let words = &x.tile(token)[first * WORDS * nt..][..n_blocks * WORDS * nt];
            let side_start = (token * x.n_blocks + first * nt) * groups_len;
            let side = &side[side_start..][..n_blocks * groups_len * nt];
            for group in 0..n_groups {
                // SAFETY: `decode_chunk` initialised these blocks just before.
                let blocks = unsafe {
                    &*(&raw const panel[group * CHUNK_BLOCKS..][..n_blocks]
                        as *const [Block<S, SCALES>])
                };
                let tile = Tile { blocks, words, side, is_first: first == 0 };
                let out = Out { task, row: group * S::LANES, token };
                match nt {
                    1 => tile.multiply::<F, BYTES, 1>(s, &out),
                    2 => tile.multiply::<F, BYTES, 2>(s, &out),
                    3 => tile.multiply::<F, BYTES, 3>(s, &out),
                    4 => tile.multiply::<F, BYTES, 4>(s, &out),
                    5 => tile.multiply::<F, BYTES, 5>(s, &out),
                    6 => tile.multiply::<F, BYTES, 6>(s, &out),
                    _ => unreachable!("tiles have at most 6 tokens"),
                }
            }
            token += nt;
        }
        first += n_blocks;
    }
}

/// Decodes the blocks of one group of rows from block `first` of 32 elements on.
#[inline(always)]
fn decode_chunk<S: Rows, F: Format<BYTES, SCALES>, const BYTES: usize, const SCALES: usize>(
    s: S,
    task: &QuantTask<'_>,
    group: usize,
    first: usize,
    out: &mut [MaybeUninit<Block<S, SCALES>>],
) {
    let stride = task.w.row_bytes();
    let step = F::LEN / BLOCK_LEN;
    let from = first / step * BYTES;
    let n_bytes = out.len() / step * BYTES;
    let row = group * S::LANES;
    let data = &task.w.data()[(task.first_row + row) * stride + from..];
    let n_rows = S::LANES.min(task.n_rows - row);
    if n_rows == S::LANES {
        for (b, out) in out.chunks_exact_mut(step).enumerate() {
            F::decode(&Column::new(s, &data[b * BYTES..], stride), out);
        }
    } else {
        let mut padded = [0; MAX_LANES * MAX_CHUNK_BYTES];
        for r in 0..n_rows {
            padded[r * n_bytes..][..n_bytes].copy_from_slice(&data[r * stride..][..n_bytes]);
        }
        for (b, out) in out.chunks_exact_mut(step).enumerate() {
            F::decode(&Column::new(s, &padded[b * BYTES..], n_bytes), out);
        }
    }
}

/// Where the outputs of one tile go: `LANES` rows from `row` of the task, tokens from `token`.
struct Out<'a> {
    task: &'a QuantTask<'a>,
    row: usize,
    token: usize,
}

impl Out<'_> {
    /// Where the outputs of token `t` of the tile are: at most `lanes` rows.
    #[inline(always)]
    fn range(&self, t: usize, lanes: usize) -> Range<usize> {
        let task = self.task;
        let start = (self.token + t) * task.w.rows() + task.first_row + self.row;
        start..start + lanes.min(task.n_rows - self.row)
    }

    #[inline(always)]
    fn load<S: Rows>(&self, s: S, t: usize) -> S::F {
        // SAFETY: only this task takes columns of its rows, and this is its only part that is alive.
        let part = unsafe { self.task.y.part(self.range(t, S::LANES)) };
        if part.len() == S::LANES {
            return s.load(part);
        }
        let mut full = [0.0; MAX_LANES];
        full[..part.len()].copy_from_slice(part);
        s.load(&full)
    }

    #[inline(always)]
    fn store<S: Rows>(&self, s: S, v: S::F, t: usize) {
        // SAFETY: only this task takes columns of its rows, and this is its only part that is alive.
        let part = unsafe { self.task.y.part(self.range(t, S::LANES)) };
        if part.len() == S::LANES {
            return s.store(v, part);
        }
        let mut full = [0.0; MAX_LANES];
        s.store(v, &mut full);
        part.copy_from_slice(&full[..part.len()]);
    }
}

/// One group of rows and a tile of tokens, over one chunk.
struct Tile<'a, S: Rows, const SCALES: usize> {
    blocks: &'a [Block<S, SCALES>],
    words: &'a [i32],
    side: &'a [i32],
    is_first: bool,
}

impl<S: Rows, const SCALES: usize> Tile<'_, S, SCALES> {
    #[inline(always)]
    fn multiply<F: Format<BYTES, SCALES>, const BYTES: usize, const NT: usize>(
        &self,
        s: S,
        out: &Out<'_>,
    ) {
        let mut acc = [s.splat(0.0); NT];
        if !self.is_first {
            for (t, acc) in acc.iter_mut().enumerate() {
                *acc = out.load(s, t);
            }
        }
        let side_len = if F::side::<S>().is_some() { F::GROUPS * NT } else { 0 };
        for (b, block) in self.blocks.iter().enumerate() {
            let words = &self.words[b * WORDS * NT..][..WORDS * NT];
            let side = &self.side[b * side_len..][..side_len];
            add_block::<S, F, BYTES, SCALES, NT>(s, block, words, side, &mut acc);
        }
        for (t, &acc) in acc.iter().enumerate() {
            out.store(s, acc, t);
        }
    }
}

/// Adds one block to the sum of each token.
#[inline(always)]
fn add_block<S, F, const BYTES: usize, const SCALES: usize, const NT: usize>(
    s: S,
    block: &Block<S, SCALES>,
    words: &[i32],
    side: &[i32],
    acc: &mut [S::F; NT],
) where
    S: Rows,
    F: Format<BYTES, SCALES>,
{
    if NT > S::TOKENS {
        unreachable!("tiles have at most {} tokens", S::TOKENS);
    }
    let v = block_values::<S, F, BYTES, SCALES, NT>(s, block, words, side);
    for t in 0..NT {
        let d = s.splat(f32::from_bits(words[8 * NT + t] as u32));
        acc[t] = s.fma(v[t], d, acc[t]);
    }
}

/// `v` of the formula above for each token.
#[inline(always)]
fn block_values<S, F, const BYTES: usize, const SCALES: usize, const NT: usize>(
    s: S,
    block: &Block<S, SCALES>,
    words: &[i32],
    side: &[i32],
) -> [S::F; NT]
where
    S: Rows,
    F: Format<BYTES, SCALES>,
{
    let mut v = [s.splat(0.0); NT];
    let steps = 8 / F::GROUPS;
    for group in 0..F::GROUPS {
        let mut dots = [s.splat_i(0); NT];
        if !F::MINIMA && !side.is_empty() {
            for (t, dot) in dots.iter_mut().enumerate() {
                *dot = s.splat_i(side[group * NT + t]);
            }
        }
        let q = &block.q[group * steps..(group + 1) * steps];
        let words = &words[group * steps * NT..(group + 1) * steps * NT];
        s.dots(F::MAX, q, words, &mut dots);
        for (v, &dot) in v.iter_mut().zip(&dots) {
            let (scale, dot) = (block.scales[group], s.float_i(dot));
            *v = if group == 0 { s.mul(scale, dot) } else { s.fma(scale, dot, *v) };
        }
    }
    if F::MINIMA {
        for group in 0..F::GROUPS {
            for (t, v) in v.iter_mut().enumerate() {
                let sum = s.splat(f32::from_bits(side[group * NT + t] as u32));
                *v = s.fma(block.scales[F::GROUPS + group], sum, *v);
            }
        }
    }
    v
}
