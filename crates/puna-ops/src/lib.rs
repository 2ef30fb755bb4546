//! What training needs beyond inference: dense products in every layout, each operation's backward pass, the loss and
//! the update. Slices in, slices out, as in `puna-kernels`, whose vectors and threads these are made of.
//!
//! On one instruction set, every result is the same bits for any number of threads: outputs are split over threads,
//! sums never, and each function documents the order of its summation. `…_acc` outputs are added to, all others
//! overwritten.

mod adamw;
mod attention;
mod cross_entropy;
mod embedding;
mod gemm;
mod heads;
mod max;
mod norm;
mod swiglu;
#[cfg(test)]
mod testing;

pub use adamw::{AdamW, sum_of_squares};
pub use attention::{Starts, attention, attention_backward};
pub use cross_entropy::cross_entropy;
pub use embedding::{embedding, embedding_backward};
pub use gemm::{
    BLOCK_K, Factor, Mat, Out, Precision, Products, cut, round_row, rounded_len, task_rows,
};
pub use heads::{HeadShape, groups_to_rows, heads_to_rows, rows_to_groups, rows_to_heads};
pub use norm::rmsnorm_backward;
pub use swiglu::{swiglu, swiglu_backward};
