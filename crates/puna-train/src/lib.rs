//! The network as training sees it: weights in one piece, a pass of whole sequences forward and back, the learning rate,
//! what it all costs, and the formulas of alignment ([`rl`]). Nothing here reads a file or generates text.

mod cost;
mod group;
mod lora;
mod optimizer;
mod pass;
pub mod rl;
mod schedule;
mod score;
mod weights;

pub use cost::{MemoryNeeds, flops_per_token};
pub use lora::{Lora, LoraShape, LoraTarget};
pub use optimizer::{Optimizer, OptimizerConfig, grad_norm};
pub use pass::{Grads, MicroBatch, Pass};
pub use schedule::Schedule;
pub use weights::{INIT_STD, Layout};
