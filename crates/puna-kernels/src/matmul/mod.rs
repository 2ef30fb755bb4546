//! Matrix products of stored weights with activations.

use crate::isa::Token;

/// The product kernels of one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct MatKernels {}

impl MatKernels {
    /// The kernels for the instruction set that `token` proves.
    pub(crate) fn new(_token: Token) -> Self {
        Self {}
    }
}
