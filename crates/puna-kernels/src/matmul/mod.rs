//! Matrix products of stored weights with activations.
//!
//! `y[t, r] = Σ_k w[r, k]·x[t, k]`, where `w` `[rows, cols]` lies in memory as its file has it. Every output
//! is one sum in one documented order, which depends on the type of the weights and on the instruction set
//! but not on the number of tokens or threads: outputs are split, sums never. The orders are described in
//! `float.rs` (F32, F16, BF16) and `quant.rs` (all others, where every instruction set gives the same bits).

mod activations;
#[cfg(target_arch = "x86_64")]
mod bf16_dot;
mod float;
mod formats;
mod formats_k;
mod quant;
mod rows;
#[cfg(target_arch = "x86_64")]
mod rows_avx2;
#[cfg(target_arch = "x86_64")]
mod rows_avx512;
#[cfg(target_arch = "aarch64")]
mod rows_neon;
mod rows_scalar;
#[cfg(test)]
mod tests;

use puna_core::DType;

pub use activations::Activations;

use crate::scratch::with_scratch;
use crate::{Cpu, DisjointMut};

/// A stored matrix `[rows, cols]`, row-major, of any alignment.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: &'a [u8],
}

impl<'a> MatRef<'a> {
    /// A matrix in `data`.
    ///
    /// # Panics
    /// When blocks of `dtype` do not divide `cols`, or `data` is not of the size of the matrix.
    #[must_use]
    pub fn new(dtype: DType, rows: usize, cols: usize, data: &'a [u8]) -> Self {
        let row_bytes = dtype.row_bytes(cols);
        assert_eq!(
            row_bytes.and_then(|n| n.checked_mul(rows)),
            Some(data.len()),
            "bytes of {rows} rows of {cols} {dtype}"
        );
        Self { dtype, rows, cols, row_bytes: row_bytes.unwrap_or(0), data }
    }

    /// How elements are stored.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Outputs of a product.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Terms of a product's sums.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The stored bytes.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Bytes of one row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The bytes of row `r`.
    #[must_use]
    pub fn row(&self, r: usize) -> &'a [u8] {
        &self.data[r * self.row_bytes..(r + 1) * self.row_bytes]
    }
}

/// Rows in a task when there are many tokens: a multiple of every instruction set's group of rows. Weights that
/// are decoded to panels are read once for all tokens, floats once for every tile of tokens.
const MOST_ROWS: usize = 128;
/// The same for floats, so that a task's weights stay in a cache of the second level.
const MOST_FLOAT_ROWS: usize = 64;
/// Rows in the smallest task.
const LEAST_ROWS: usize = 32;

/// `y[t·rows + r] = Σ_k w[r, k]·x[t, k]` for the activations `x` `[T, cols]`; `y` is `[T, rows]`.
///
/// # Panics
/// When shapes do not fit, or `x` was not prepared for the type of `w`.
pub fn matmul(cpu: &Cpu, w: MatRef<'_>, x: &Activations, y: &mut [f32]) {
    matmul_each(cpu, x, [(w, y)]);
}

/// The products of several matrices with the same activations, as [`matmul`] computes each, but handed out to the
/// threads together: they wait for each other once.
///
/// # Panics
/// When shapes do not fit, or `x` was not prepared for the type of one of the matrices.
pub fn matmul_each<const N: usize>(
    cpu: &Cpu,
    x: &Activations,
    products: [(MatRef<'_>, &mut [f32]); N],
) {
    for (w, y) in &products {
        assert_eq!(w.cols, x.dim(), "columns of the matrix and of the activations");
        assert_eq!(
            y.len(),
            x.n_rows() * w.rows,
            "outputs of {} rows, {} tokens",
            w.rows,
            x.n_rows()
        );
        assert!(x.is_ready_for(w.dtype), "activations were not prepared for {}", w.dtype);
    }
    let rows = products.iter().map(|(w, _)| w.rows).sum();
    let products = products.map(|(w, y)| Product::new(cpu, w, x, y, rows));
    let n_tasks = products.iter().map(|product| product.n_tasks).sum();
    cpu.pool().run(n_tasks, &|mut task| {
        let mut rest = products.iter();
        let product = loop {
            let product = rest.next().expect("tasks were counted over the same products");
            match task.checked_sub(product.n_tasks) {
                Some(less) => task = less,
                None => break product,
            }
        };
        product.run(cpu, task);
    });
}

/// One product, cut into tasks by rows.
struct Product<'a> {
    w: MatRef<'a>,
    x: &'a Activations,
    y: DisjointMut<'a, f32>,
    task_rows: usize,
    n_tasks: usize,
}

impl<'a> Product<'a> {
    /// `rows` are those of all products that are handed out together.
    fn new(cpu: &Cpu, w: MatRef<'a>, x: &'a Activations, y: &'a mut [f32], rows: usize) -> Self {
        if w.cols == 0 {
            y.fill(0.0);
        }
        // Small enough that threads end together; with one token large enough that rows are asked for ahead, with
        // many small enough that a panel of them stays in a cache near the core.
        let share = rows.div_ceil(8 * cpu.pool().n_threads()).next_multiple_of(LEAST_ROWS);
        let most = if w.dtype.is_float() { MOST_FLOAT_ROWS } else { MOST_ROWS };
        let task_rows = if x.n_rows() == 1 { share } else { share.min(most) };
        let n_tasks = if y.is_empty() || w.cols == 0 { 0 } else { w.rows.div_ceil(task_rows) };
        Self { w, x, y: DisjointMut::new(y), task_rows, n_tasks }
    }

    fn run(&self, cpu: &Cpu, task: usize) {
        let Self { w, x, ref y, task_rows, .. } = *self;
        let first_row = task * task_rows;
        let n_rows = task_rows.min(w.rows - first_row);
        if w.dtype.is_float() {
            let task = float::FloatTask { w, x, y, first_row, n_rows };
            let len = float::scratch_len(n_rows, x.n_rows());
            with_scratch(len, |scratch| float::multiply(cpu.token(), task, scratch));
        } else {
            let task = quant::QuantTask { w, x: x.as_quant(), y, first_row, n_rows };
            with_scratch(quant::SCRATCH_LEN, |scratch| quant::multiply(cpu.token(), task, scratch));
        }
    }
}
