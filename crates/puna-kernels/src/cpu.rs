//! Where to compute: the kernels of one instruction set and a pool of threads.

use crate::isa::{Isa, IsaError, Token};
use crate::pool::Pool;

/// The kernels of one instruction set, reached through its token.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    token: Token,
}

impl Kernels {
    /// The kernels for the instruction set that `token` proves.
    #[must_use]
    pub fn new(token: Token) -> Self {
        Self { token }
    }

    /// The kernels of [`Isa::best`].
    ///
    /// # Errors
    /// As [`Isa::best`].
    pub fn best() -> Result<Self, IsaError> {
        Self::for_isa(Isa::best()?)
    }

    /// The kernels for `isa`.
    ///
    /// # Errors
    /// This CPU lacks it.
    pub fn for_isa(isa: Isa) -> Result<Self, IsaError> {
        Ok(Self::new(Token::require(isa)?))
    }

    /// The instruction set, with the proof of it.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }
}

/// Where to compute: kernels and threads. Results do not depend on the number of threads.
#[derive(Debug)]
pub struct Cpu {
    kernels: Kernels,
    pool: Pool,
}

impl Cpu {
    /// The best instruction set of this CPU (see [`Isa::best`]) on `n_threads` threads, the caller's included.
    ///
    /// # Errors
    /// `PUNA_ISA` names an instruction set that cannot be had.
    pub fn new(n_threads: usize) -> Result<Self, IsaError> {
        Ok(Self { kernels: Kernels::best()?, pool: Pool::new(n_threads) })
    }

    /// The kernels for `isa` on `n_threads` threads, the caller's included.
    ///
    /// # Errors
    /// This CPU lacks `isa`.
    pub fn with_isa(isa: Isa, n_threads: usize) -> Result<Self, IsaError> {
        Ok(Self { kernels: Kernels::for_isa(isa)?, pool: Pool::new(n_threads) })
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.kernels.token.isa()
    }

    /// The kernels in use.
    #[must_use]
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The threads.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
