//! The network as training sees it: weights in one piece, a pass of whole sequences forward and back, the learning rate,
//! and what it all costs. Nothing here reads a file or generates text.

mod cost;
mod optimizer;
mod pass;
mod schedule;
mod weights;

pub use cost::{MemoryNeeds, flops_per_token};
pub use optimizer::{Optimizer, OptimizerConfig, grad_norm};
pub use pass::{Grads, MicroBatch, Pass};
pub use schedule::Schedule;
pub use weights::{INIT_STD, Layout};
