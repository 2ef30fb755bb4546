//! Where to compute: an instruction set and a pool of threads.

use crate::isa::{Isa, IsaError, Token};
use crate::pool::Pool;
use crate::simd::Op;

/// Where to compute: an instruction set and threads. Results do not depend on the number of threads.
#[derive(Debug)]
pub struct Cpu {
    token: Token,
    pool: Pool,
}

impl Cpu {
    /// The best instruction set of this CPU (see [`Isa::best`]) on `n_threads` threads, the caller's included.
    ///
    /// # Errors
    /// `PUNA_ISA` names an instruction set that cannot be had.
    pub fn new(n_threads: usize) -> Result<Self, IsaError> {
        Self::with_isa(Isa::best()?, n_threads)
    }

    /// The instruction set `isa` on `n_threads` threads, the caller's included.
    ///
    /// # Errors
    /// This CPU lacks `isa`.
    pub fn with_isa(isa: Isa, n_threads: usize) -> Result<Self, IsaError> {
        Ok(Self { token: Token::require(isa)?, pool: Pool::new(n_threads) })
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.token.isa()
    }

    /// The threads.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Runs `op` on the caller's thread, compiled for the instruction set in use.
    pub fn dispatch<O: Op>(&self, op: O) -> O::Output {
        self.token.dispatch(op)
    }

    /// The instruction set in use, with the proof that this CPU has it.
    pub(crate) fn token(&self) -> Token {
        self.token
    }
}
