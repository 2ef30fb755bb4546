//! Slices in, slices out: instruction-set dispatch, block quantised products, attention, the thread pool.
//!
//! This crate knows no model, file or token. Every entry point takes a [`Cpu`], which says with which
//! instruction set and on how many threads to compute, asserts its shapes, and does not allocate once warm.
//! On one instruction set, every result is the same bits for any number of threads: outputs are split over
//! threads, sums never, and each documents the order of its summation.

mod attn;
mod blocks;
mod buffer;
mod cpu;
mod disjoint;
mod elementwise;
mod isa;
mod math;
mod matmul;
pub mod peak;
mod pool;
mod quantize;
mod rope;
mod scratch;
pub mod simd;
#[cfg(test)]
mod testing;

pub use attn::{KV_BLOCK_LEN, KvLayout, LayerKv, LayerKvMut, Span, attention, kv_store};
pub use blocks::dequantize;
pub use buffer::Buffer;
pub use cpu::Cpu;
pub use disjoint::DisjointMut;
pub use elementwise::{add, rmsnorm, swiglu};
pub use isa::{Isa, IsaError};
pub use matmul::{Activations, MatRef, matmul, matmul_each};
pub use pool::Pool;
pub use quantize::quantize;
pub use rope::{RopeTable, rope};
pub use scratch::with_scratch;
