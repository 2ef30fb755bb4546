//! The right-hand side of products: activations in the forms that the weights' types are multiplied with.
//!
//! **Floats.** F32 and F16 weights meet the f32 activations themselves, BF16 weights meet activations rounded
//! to bf16.
//!
//! **Integers.** Quantised weights meet blocks of 32 activations rounded to integers `n` in −127..=127 with one
//! f32 scale: `d = peak / 127`, `n = round(x · (127 / peak))`, ties to even, `peak = max|x|`. So
//! `|x − d·n| ≤ d/2 · (1 + 2⁻¹⁵)`. A block whose peak is below 2⁻¹¹⁶ counts as zero. A NaN or an infinity makes
//! `d` one, and so every output that is not finite.
//!
//! Tokens are arranged in tiles of [`Rows::TOKENS`] (the last may be smaller): what a tile needs of one block
//! lies together, `words[k][t]` for the four bytes `4·k..4·k + 4` of token `t`, then the scales `d[t]`.
//! Beside them lie sums of `n`, which only some formats need.

use half::bf16;
use puna_core::DType;

use super::quant;
use super::rows::{Job, Rows, dispatch};
use crate::{Cpu, DisjointMut};

/// Elements that share a scale.
pub(crate) const BLOCK_LEN: usize = 32;
/// Numbers kept for each token and block: eight words of four bytes and the scale.
pub(crate) const WORDS: usize = 9;

/// Below this, `127 / peak` would leave f32: 2⁻¹¹⁶.
const SMALLEST_PEAK: f32 = 1024.0 * f32::MIN_POSITIVE;

/// Sums over a block's `n` that go beside the blocks, in as many groups as the format has scales:
/// `[n_blocks][groups][tokens of the tile]` for each tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `−offset·Σn` as i32.
    Correction { offset: u8, groups: usize },
    /// `Σn` as f32.
    Sum { groups: usize },
}

impl Side {
    fn groups(self) -> usize {
        match self {
            Side::Correction { groups, .. } | Side::Sum { groups } => groups,
        }
    }
}

/// Activations as integers.
#[derive(Debug, Default)]
pub(crate) struct QuantActivations {
    pub n_tokens: usize,
    pub n_blocks: usize,
    /// Tokens in every tile but the last.
    pub tile_len: usize,
    words: Vec<i32>,
    sides: Vec<(Side, Vec<i32>)>,
}

impl QuantActivations {
    /// The blocks of the tile that starts at `token`.
    #[inline(always)]
    pub(super) fn tile(&self, token: usize) -> &[i32] {
        let len = self.tile_len.min(self.n_tokens - token);
        &self.words[token * self.n_blocks * WORDS..][..len * self.n_blocks * WORDS]
    }

    /// All tiles' sums, `groups` for each token and block.
    ///
    /// # Panics
    /// When they were not prepared.
    #[inline(always)]
    pub(super) fn side(&self, side: Side) -> &[i32] {
        let found = self.sides.iter().find(|(prepared, _)| *prepared == side);
        &found.expect("activations were prepared for this type of weights").1
    }

    fn set(&mut self, cpu: &Cpu, x: &[f32], dim: usize, sides: &[Side], tile_len: usize) {
        self.n_tokens = x.len() / dim;
        self.n_blocks = dim / BLOCK_LEN;
        self.tile_len = tile_len;
        let n_cells = self.n_tokens * self.n_blocks;
        self.words.resize(n_cells * WORDS, 0);
        self.sides.truncate(sides.len());
        for (i, &side) in sides.iter().enumerate() {
            if i == self.sides.len() {
                self.sides.push((side, Vec::new()));
            }
            self.sides[i].0 = side;
            self.sides[i].1.resize(n_cells * side.groups(), 0);
        }
        let words = DisjointMut::new(&mut self.words);
        let (n_blocks, n_tokens) = (self.n_blocks, self.n_tokens);
        cpu.pool().run(n_tokens.div_ceil(tile_len), &|tile| {
            let first = tile * tile_len;
            let nt = tile_len.min(n_tokens - first);
            let start = first * n_blocks * WORDS;
            // SAFETY: each tile has a range of its own.
            let words = unsafe { words.part(start..start + nt * n_blocks * WORDS) };
            let x = &x[first * dim..(first + nt) * dim];
            dispatch(cpu.kernels().token(), QuantizeTile { x, nt, words });
        });
        for (side, sums) in &mut self.sides {
            let groups = side.groups();
            for first in (0..n_tokens).step_by(tile_len) {
                let nt = tile_len.min(n_tokens - first);
                let words = &self.words[first * n_blocks * WORDS..][..nt * n_blocks * WORDS];
                let sums = &mut sums[first * n_blocks * groups..][..nt * n_blocks * groups];
                dispatch(cpu.kernels().token(), SumTile { words, nt, side: *side, sums });
            }
        }
    }
}

/// Rounds the tokens of one tile.
struct QuantizeTile<'a> {
    x: &'a [f32],
    nt: usize,
    words: &'a mut [i32],
}

impl Job for QuantizeTile<'_> {
    #[inline(always)]
    fn run<S: Rows>(self, _: S) {
        let Self { x, nt, words } = self;
        let dim = x.len() / nt;
        for (t, row) in x.chunks_exact(dim).enumerate() {
            for (block, out) in row.as_chunks().0.iter().zip(words.chunks_exact_mut(WORDS * nt)) {
                let (bytes, scale) = quantize_block(block);
                for (k, word) in bytes.as_chunks().0.iter().enumerate() {
                    out[k * nt + t] = i32::from_le_bytes(*word);
                }
                out[8 * nt + t] = scale.to_bits() as i32;
            }
        }
    }
}

/// `n`, as bytes, and `d`.
#[inline(always)]
fn quantize_block(x: &[f32; BLOCK_LEN]) -> ([u8; BLOCK_LEN], f32) {
    // Magnitudes order like their bits, and a NaN is above them all.
    let mut peak = 0;
    for x in x {
        peak = peak.max((x.to_bits() & 0x7fff_ffff) as i32);
    }
    let peak = f32::from_bits(peak as u32);
    if peak < SMALLEST_PEAK {
        return ([0; BLOCK_LEN], 0.0);
    }
    let scale = 127.0 / peak;
    let mut bytes = [0; BLOCK_LEN];
    for (byte, x) in bytes.iter_mut().zip(x) {
        // Adding 1.5·2²³ leaves the integer nearest to the product in the low bits.
        *byte = (x * scale + 12_582_912.0).to_bits() as u8;
    }
    (bytes, peak / 127.0)
}

/// Sums the rounded tokens of one tile.
struct SumTile<'a> {
    words: &'a [i32],
    nt: usize,
    side: Side,
    sums: &'a mut [i32],
}

impl Job for SumTile<'_> {
    #[inline(always)]
    fn run<S: Rows>(self, _: S) {
        let Self { words, nt, side, sums } = self;
        let groups = side.groups();
        let steps = 8 / groups;
        for (words, sums) in words.chunks_exact(WORDS * nt).zip(sums.chunks_exact_mut(groups * nt))
        {
            for (i, out) in sums.iter_mut().enumerate() {
                let (group, t) = (i / nt, i % nt);
                let mut sum = 0;
                for k in group * steps..(group + 1) * steps {
                    for byte in words[k * nt + t].to_le_bytes() {
                        sum += i32::from(byte as i8);
                    }
                }
                *out = match side {
                    Side::Correction { offset, .. } => -i32::from(offset) * sum,
                    Side::Sum { .. } => (sum as f32).to_bits() as i32,
                };
            }
        }
    }
}

/// Activations prepared for products; its buffers are kept from one use to the next.
#[derive(Debug, Default)]
pub struct Activations {
    n_rows: usize,
    dim: usize,
    /// `[n_rows, dim]`, when a type needs it.
    f32: Vec<f32>,
    /// `[n_rows, dim]` rounded to bf16, when a type needs it.
    bf16_rounded: Vec<f32>,
    quant: QuantActivations,
    dtypes: Vec<DType>,
}

impl Activations {
    /// Prepares `x` `[n_rows, dim]` for products with weights of `dtypes`.
    ///
    /// # Panics
    /// When `x` is not of that size, or blocks of one of the types do not divide `dim`.
    pub fn set(&mut self, cpu: &Cpu, x: &[f32], n_rows: usize, dim: usize, dtypes: &[DType]) {
        assert_eq!(x.len(), n_rows * dim, "activations of {n_rows} rows of {dim}");
        for dtype in dtypes {
            assert!(dtype.row_bytes(dim).is_some(), "rows of {dim} in blocks of {dtype}");
        }
        (self.n_rows, self.dim) = (n_rows, dim);
        self.dtypes.clear();
        self.dtypes.extend(dtypes);
        self.f32.clear();
        self.bf16_rounded.clear();
        if dtypes.iter().any(|d| matches!(d, DType::F32 | DType::F16)) {
            self.f32.extend(x);
        }
        if dtypes.contains(&DType::BF16) {
            self.bf16_rounded.extend(x.iter().map(|&x| bf16::from_f32(x).to_f32()));
        }
        if dtypes.iter().any(|d| !d.is_float()) && !x.is_empty() {
            let mut sides = Vec::new();
            let mut tile_len = 1;
            for &dtype in dtypes.iter().filter(|d| !d.is_float()) {
                let needs = quant::needs(cpu.kernels().token(), dtype);
                tile_len = needs.tile_len;
                if let Some(side) = needs.side.filter(|side| !sides.contains(side)) {
                    sides.push(side);
                }
            }
            self.quant.set(cpu, x, dim, &sides, tile_len);
        }
    }

    /// Rows: tokens.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Elements of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn is_ready_for(&self, dtype: DType) -> bool {
        self.dtypes.contains(&dtype)
    }

    pub(crate) fn as_f32(&self) -> &[f32] {
        &self.f32
    }

    pub(crate) fn as_bf16_rounded(&self) -> &[f32] {
        &self.bf16_rounded
    }

    pub(crate) fn as_quant(&self) -> &QuantActivations {
        &self.quant
    }
}
