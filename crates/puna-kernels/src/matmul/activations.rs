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
use crate::{Cpu, DisjointMut, Isa};

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
    sides: Vec<Side>,
    /// All tiles of the first side, all of the second, and so on.
    side_values: Vec<i32>,
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
        let index = self.sides.iter().position(|&prepared| prepared == side);
        let index = index.expect("activations were prepared for this type of weights");
        let n_cells = self.n_tokens * self.n_blocks;
        &self.side_values[n_cells * groups_before(&self.sides, index)..][..n_cells * side.groups()]
    }

    fn set(&mut self, cpu: &Cpu, x: &[f32], dim: usize) {
        let (n_tokens, n_blocks, tile_len) = (x.len() / dim, dim / BLOCK_LEN, self.tile_len);
        (self.n_tokens, self.n_blocks) = (n_tokens, n_blocks);
        let (n_cells, sides) = (n_tokens * n_blocks, &self.sides);
        self.words.resize(n_cells * WORDS, 0);
        self.side_values.resize(n_cells * groups_before(sides, sides.len()), 0);
        let words = DisjointMut::new(&mut self.words);
        let values = DisjointMut::new(&mut self.side_values);
        cpu.pool().run(n_tokens.div_ceil(tile_len), &|tile| {
            let first = tile * tile_len;
            let nt = tile_len.min(n_tokens - first);
            let cells = first * n_blocks..(first + nt) * n_blocks;
            // SAFETY: each tile has cells of its own.
            let words = unsafe { words.part(cells.start * WORDS..cells.end * WORDS) };
            let token = cpu.token();
            let x = &x[first * dim..(first + nt) * dim];
            dispatch(token, QuantizeTile { x, nt, words });
            for (i, &side) in sides.iter().enumerate() {
                let (before, groups) = (n_cells * groups_before(sides, i), side.groups());
                // SAFETY: each tile has cells of its own in each side.
                let sums = unsafe {
                    values.part(before + cells.start * groups..before + cells.end * groups)
                };
                dispatch(token, SumTile { words, nt, side, sums });
            }
        });
    }
}

/// Numbers for each cell in the first `n` sides.
fn groups_before(sides: &[Side], n: usize) -> usize {
    sides[..n].iter().map(|side| side.groups()).sum()
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
            for (words, sums) in words.chunks_exact(steps * nt).zip(sums.chunks_exact_mut(nt)) {
                for (t, out) in sums.iter_mut().enumerate() {
                    let mut sum = 0;
                    for word in words.iter().skip(t).step_by(nt) {
                        // Each byte in turn is moved to the top and back, with its sign.
                        sum += (word << 24 >> 24)
                            + (word << 16 >> 24)
                            + (word << 8 >> 24)
                            + (word >> 24);
                    }
                    *out = match side {
                        Side::Correction { offset, .. } => -i32::from(offset) * sum,
                        Side::Sum { .. } => (sum as f32).to_bits() as i32,
                    };
                }
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
    /// `[n_rows, dim]` rounded to bf16, when a type needs it and the CPU multiplies f32.
    bf16_rounded: Vec<f32>,
    /// The same as bits, when the CPU multiplies bf16.
    bf16: Vec<u16>,
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
        self.bf16.clear();
        if dtypes.iter().any(|d| matches!(d, DType::F32 | DType::F16)) {
            self.f32.extend(x);
        }
        if dtypes.contains(&DType::BF16) {
            let rounded = x.iter().map(|&x| bf16::from_f32(x));
            if cpu.isa() == Isa::Avx512Bf16 {
                self.bf16.extend(rounded.map(bf16::to_bits));
            } else {
                self.bf16_rounded.extend(rounded.map(bf16::to_f32));
            }
        }
        if dtypes.iter().any(|d| !d.is_float()) && !x.is_empty() {
            self.quant.sides.clear();
            for &dtype in dtypes.iter().filter(|d| !d.is_float()) {
                let needs = quant::needs(cpu.token(), dtype);
                self.quant.tile_len = needs.tile_len;
                if let Some(side) = needs.side.filter(|side| !self.quant.sides.contains(side)) {
                    self.quant.sides.push(side);
                }
            }
            self.quant.set(cpu, x, dim);
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

    #[cfg(target_arch = "x86_64")] // The only instruction set here that multiplies bf16.
    pub(crate) fn as_bf16(&self) -> &[u16] {
        &self.bf16
    }

    pub(crate) fn as_bf16_rounded(&self) -> &[f32] {
        &self.bf16_rounded
    }

    pub(crate) fn as_quant(&self) -> &QuantActivations {
        &self.quant
    }
}
