//! Quantises a model, with proof.

mod mix;
#[cfg(test)]
mod mix_tests;

pub use mix::Mix;
pub(crate) use mix::fitting_type;
