//! Meta's own form: `params.json`, and the tensors in `consolidated.NN.pth`, one file for each GPU that the
//! model was trained to run on. Loading joins them: column-parallel matrices (`wq, wk, wv, w1, w3, output`)
//! were cut by rows, row-parallel ones (`wo, w2`) by columns, the embedding of Llama 2 by columns too (that
//! of later models by rows; the shapes say which), norms are in every file. Rows are paired interleaved.

mod join;
mod names;
mod open;
mod params;

pub use names::{id, name};
pub(crate) use open::{PARAMS, has_weights, is_shard_name, open};
pub use params::parse_params;
