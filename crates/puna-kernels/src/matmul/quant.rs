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

use puna_core::DType;

use super::MatRef;
use super::activations::{BLOCK_LEN, QuantActivations, Side, WORDS};
use super::formats::{Block, Column, Format, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::formats_k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use super::rows::{Job, Rows, dispatch};
use crate::DisjointMut;
use crate::isa::Token;
use crate::scratch::with_scratch;

/// Elements of a row in one panel: with one group of rows, a panel fits a 32 KiB cache.
const CHUNK: usize = 512;
/// Groups of rows in one panel when there are many tokens: then activations are read from afar once for
/// so many rows, and the panel fits a cache of the second level.
const GROUPS_AT_ONCE: usize = 4;
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
            DType::Q2_K => dispatch($token, $job::<Q2_K, 84, 4> { $($field)* }),
            DType::Q3_K => dispatch($token, $job::<Q3_K, 110, 2> { $($field)* }),
            DType::Q4_K => dispatch($token, $job::<Q4_K, 144, 2> { $($field)* }),
            DType::Q5_K => dispatch($token, $job::<Q5_K, 176, 2> { $($field)* }),
            DType::Q6_K => dispatch($token, $job::<Q6_K, 210, 2> { $($field)* }),
            DType::F32 | DType::F16 | DType::BF16 => unreachable!("floats are multiplied elsewhere"),
        }
    };
}

/// Multiplies the rows of `task`.
pub(crate) fn multiply(token: Token, task: QuantTask<'_>) {
    with_format!(token, task.w.dtype(), Multiply, task, format: PhantomData);
}

/// What products of `dtype` need of activations.
pub(crate) fn needs(token: Token, dtype: DType) -> Needs {
    let mut needs = Needs { tile_len: 0, lanes: 0, side: None };
    with_format!(token, dtype, FindNeeds, needs: &mut needs, format: PhantomData);
    needs
}

/// How products of one type are tiled on one instruction set.
pub(crate) struct Needs {
    /// Tokens in a tile.
    pub tile_len: usize,
    /// Rows that are worked on together.
    pub lanes: usize,
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
        *self.needs = Needs { tile_len: S::TOKENS, lanes: S::LANES, side: F::side::<S>() };
    }
}

struct Multiply<'a, F, const BYTES: usize, const SCALES: usize> {
    task: QuantTask<'a>,
    format: PhantomData<F>,
}

impl<F, const BYTES: usize, const SCALES: usize> Job for Multiply<'_, F, BYTES, SCALES>
where
    F: Format<BYTES, SCALES>,
{
    #[inline(always)]
    fn run<S: Rows>(self, s: S) {
        let task = self.task;
        let groups_at_once = if task.x.n_tokens > S::TOKENS { GROUPS_AT_ONCE } else { 1 };
        let panel_len = groups_at_once * CHUNK_BLOCKS;
        let panel_bytes = panel_len * size_of::<Block<S, SCALES>>();
        with_scratch(panel_bytes.div_ceil(4), |floats| {
            let start = floats.as_mut_ptr().cast::<MaybeUninit<Block<S, SCALES>>>();
            // SAFETY: scratch memory starts on a cache line, at least as aligned as any vector, and was
            // just asked for in this size; blocks that may be uninitialised can be any bytes.
            let panel = unsafe { std::slice::from_raw_parts_mut(start, panel_len) };
            Worker::<S, F, BYTES, SCALES> { s, task, panel, format: PhantomData }.run();
        });
    }
}
