//! Instruction sets: which exist, which this CPU has, and the proof of it.
//!
//! A token such as [`Avx2`] is a zero-sized value that can only be obtained by detecting its features, so
//! holding one proves that code compiled with them may run. Generic code receives a token as its
//! [`Simd`](crate::simd::Simd) parameter; a leaf routine written for one instruction set asks for the token by
//! name. [`Token`] is the choice made at run time.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A set of CPU features that kernels are compiled for. Declared from the plainest to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// What every CPU of the target has; no fused multiply-add.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// [`Isa::Avx2`] with AVX-VNNI (int8 dot products).
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL, and all of [`Isa::Avx2`].
    Avx512,
    /// [`Isa::Avx512`] with VNNI (int8 dot products).
    Avx512Vnni,
    /// [`Isa::Avx512Vnni`] with BF16 (bf16 dot products).
    Avx512Bf16,
    /// AArch64 with Advanced SIMD, which every such CPU has.
    Neon,
    /// [`Isa::Neon`] with the int8 dot product instructions.
    NeonDot,
    /// [`Isa::NeonDot`] with the int8 matrix product instructions.
    NeonI8mm,
}

/// An instruction set asked for by name that cannot be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IsaError {
    /// No instruction set has this name.
    #[error("unknown instruction set {found:?}, expected one of {expected}")]
    Unknown {
        /// What was given.
        found: String,
        /// Every name.
        expected: String,
    },
    /// This CPU lacks it.
    #[error("this CPU has no {wanted}, only {available}")]
    Unavailable {
        /// What was asked for.
        wanted: Isa,
        /// Every instruction set this CPU has.
        available: String,
    },
}

impl Isa {
    /// Every instruction set, whether or not this CPU has it.
    pub const ALL: [Isa; 9] = [
        Isa::Scalar,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512,
        Isa::Avx512Vnni,
        Isa::Avx512Bf16,
        Isa::Neon,
        Isa::NeonDot,
        Isa::NeonI8mm,
    ];

    /// The instruction sets of this CPU, plainest first; never empty.
    #[must_use]
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|&isa| Token::detect(isa).is_some()).collect()
    }

    /// The most capable instruction set of this CPU, or the one that the environment variable
    /// `PUNA_ISA` names.
    ///
    /// # Errors
    /// `PUNA_ISA` names no instruction set, or one that this CPU lacks.
    pub fn best() -> Result<Isa, IsaError> {
        match std::env::var_os("PUNA_ISA") {
            Some(name) if !name.is_empty() => {
                name.to_string_lossy().parse::<Isa>()?.check_available()
            }
            _ => Ok(*Self::available().last().expect("scalar code runs everywhere")),
        }
    }

    /// The name in lower case, as `PUNA_ISA` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Neon => "neon",
            Isa::NeonDot => "neondot",
            Isa::NeonI8mm => "neoni8mm",
        }
    }

    fn check_available(self) -> Result<Isa, IsaError> {
        let available = Self::available();
        if available.contains(&self) {
            return Ok(self);
        }
        Err(IsaError::Unavailable { wanted: self, available: names(&available) })
    }
}

fn names(list: &[Isa]) -> String {
    list.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(s: &str) -> Result<Self, IsaError> {
        let found = Self::ALL.into_iter().find(|isa| isa.name().eq_ignore_ascii_case(s));
        found.ok_or_else(|| IsaError::Unknown { found: s.to_owned(), expected: names(&Self::ALL) })
    }
}

/// Declares a token with its features, `new`, which detects them, and `here`, which a function compiled
/// with them may call.
macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $arch:literal, $detect:ident, $all:literal, [$($feature:tt),*]) => {
        $(#[$doc])*
        #[cfg(target_arch = $arch)]
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name(());

        #[cfg(target_arch = $arch)]
        impl $name {
            /// The token, if this CPU has the features.
            #[must_use]
            pub(crate) fn new() -> Option<Self> {
                ($(std::arch::$detect!($feature))&&*).then_some(Self(()))
            }

            /// The token, inside a function that was compiled with its features.
            #[target_feature(enable = $all)]
            #[inline]
            #[allow(dead_code, reason = "not every set has functions of its own")]
            pub(crate) fn here() -> Self {
                Self(())
            }
        }
    };
}

/// Proof of nothing: [`Isa::Scalar`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

token!(
    /// Proof of [`Isa::Avx2`].
    Avx2, "x86_64", is_x86_feature_detected, "avx2,fma,f16c", ["avx2", "fma", "f16c"]
);
token!(
    /// Proof of [`Isa::AvxVnni`].
    AvxVnni, "x86_64", is_x86_feature_detected, "avx2,fma,f16c,avxvnni",
    ["avx2", "fma", "f16c", "avxvnni"]
);
token!(
    /// Proof of [`Isa::Avx512`].
    Avx512, "x86_64", is_x86_feature_detected,
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl",
    ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"]
);
token!(
    /// Proof of [`Isa::Avx512Vnni`].
    Avx512Vnni, "x86_64", is_x86_feature_detected,
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
    ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni"]
);
token!(
    /// Proof of [`Isa::Avx512Bf16`].
    Avx512Bf16, "x86_64", is_x86_feature_detected,
    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16",
    ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16"]
);
token!(
    /// Proof of [`Isa::Neon`].
    Neon, "aarch64", is_aarch64_feature_detected, "neon", ["neon"]
);
token!(
    /// Proof of [`Isa::NeonDot`].
    NeonDot, "aarch64", is_aarch64_feature_detected, "neon,dotprod", ["neon", "dotprod"]
);
token!(
    /// Proof of [`Isa::NeonI8mm`].
    NeonI8mm, "aarch64", is_aarch64_feature_detected, "neon,dotprod,i8mm",
    ["neon", "dotprod", "i8mm"]
);

/// Declares that a set has all features of another.
macro_rules! extends {
    ($name:ident, $method:ident, $base:ident, $arch:literal) => {
        #[cfg(target_arch = $arch)]
        impl $name {
            /// An instruction set that this one extends.
            #[must_use]
            pub(crate) fn $method(self) -> $base {
                $base(())
            }
        }
    };
}

extends!(AvxVnni, avx2, Avx2, "x86_64");
extends!(Avx512, avx2, Avx2, "x86_64");
extends!(Avx512Vnni, avx512, Avx512, "x86_64");
extends!(Avx512Bf16, avx512_vnni, Avx512Vnni, "x86_64");
extends!(NeonDot, neon, Neon, "aarch64");
extends!(NeonI8mm, neon_dot, NeonDot, "aarch64");

/// An instruction set together with the proof that this CPU has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    /// [`Isa::Scalar`].
    Scalar(Scalar),
    /// [`Isa::Avx2`].
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// [`Isa::AvxVnni`].
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// [`Isa::Avx512`].
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// [`Isa::Avx512Vnni`].
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// [`Isa::Avx512Bf16`].
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512Bf16),
    /// [`Isa::Neon`].
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// [`Isa::NeonDot`].
    #[cfg(target_arch = "aarch64")]
    NeonDot(NeonDot),
    /// [`Isa::NeonI8mm`].
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(NeonI8mm),
}

impl Token {
    /// The proof for `isa`, if this CPU has it.
    #[must_use]
    pub(crate) fn detect(isa: Isa) -> Option<Token> {
        match isa {
            Isa::Scalar => Some(Token::Scalar(Scalar)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::new().map(Token::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => AvxVnni::new().map(Token::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::new().map(Token::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Avx512Vnni::new().map(Token::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Avx512Bf16::new().map(Token::Avx512Bf16),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Neon::new().map(Token::Neon),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => NeonDot::new().map(Token::NeonDot),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => NeonI8mm::new().map(Token::NeonI8mm),
            _ => None,
        }
    }

    /// Like [`Token::detect`].
    ///
    /// # Errors
    /// This CPU lacks `isa`.
    pub(crate) fn require(isa: Isa) -> Result<Token, IsaError> {
        let isa = isa.check_available()?;
        Ok(Self::detect(isa).expect("just found available"))
    }

    /// The instruction set proven.
    #[must_use]
    pub(crate) fn isa(self) -> Isa {
        match self {
            Token::Scalar(_) => Isa::Scalar,
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Token::AvxVnni(_) => Isa::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Vnni(_) => Isa::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(_) => Isa::Avx512Bf16,
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => Isa::Neon,
            #[cfg(target_arch = "aarch64")]
            Token::NeonDot(_) => Isa::NeonDot,
            #[cfg(target_arch = "aarch64")]
            Token::NeonI8mm(_) => Isa::NeonI8mm,
        }
    }
}

impl Token {
    /// This instruction set, or one that it extends, with vectors of at most eight floats.
    #[must_use]
    pub(crate) fn narrow(self) -> Token {
        match self {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(t) => Token::Avx2(t.avx2()),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Vnni(t) => Token::Avx2(t.avx512().avx2()),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512Bf16(t) => Token::Avx2(t.avx512_vnni().avx512().avx2()),
            narrow => narrow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_in_either_case() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
            assert_eq!(isa.name().to_uppercase().parse(), Ok(isa));
        }
        let message = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(message.contains("sse9") && message.contains("avx512vnni"), "{message}");
    }

    #[test]
    fn every_available_set_has_its_token_and_the_others_say_so() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Scalar));
        for isa in Isa::ALL {
            match Token::require(isa) {
                Ok(token) => {
                    assert!(available.contains(&isa));
                    assert_eq!(token.isa(), isa);
                }
                Err(e) => {
                    assert!(!available.contains(&isa));
                    assert!(e.to_string().contains(isa.name()), "{e}");
                }
            }
        }
    }
}
