//! Test helpers: where test data lies, golden arrays, a hub that fails on demand, and error bounds that are derived, not
//! guessed.
//!
//! Only ever a dev-dependency. The golden-file reader is written apart from `puna-formats` on
//! purpose: a test of that crate must not be read through the code it tests.

mod bounds;
mod golden;
pub mod hub_server;
mod paths;
mod tiny;

pub use bounds::{U_F32, assert_dot_within, assert_within_peak, dot_f64, gamma};
pub use golden::{Golden, GreedyCase};
pub use paths::{shared_data, testdata, workspace_root};
pub use tiny::{TinySource, random_blocks, tiny_config};
