//! What this machine can do at most, to set achieved speeds beside: register loops and a read of memory,
//! on all threads of the pool, taken in the same run as what they are compared with.
//!
//! The register loops keep as many independent accumulators as hide the latency of the instruction. The
//! operands of every instruction depend on its accumulator or are unknown to the compiler, so that nothing
//! can be computed once and reused.

use std::hint::black_box;
use std::time::Instant;

use crate::Cpu;
use crate::isa::Token;
use crate::simd::{Op, Simd};

/// Multiply and add count as two operations; G is 10⁹.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// f32 fused multiply-adds, in GFLOP/s.
    pub f32_gflops: f64,
    /// Dot products of bf16 pairs, in GFLOP/s; `None` without such an instruction.
    pub bf16_gflops: Option<f64>,
    /// Dot products of bytes, in GOP/s; `None` for [`Isa::Scalar`](crate::Isa::Scalar).
    pub int8_gops: Option<f64>,
    /// Reading memory, in GB/s.
    pub read_gb_s: f64,
}

/// Bytes read: more than the caches that a few cores can call their own.
const READ_BYTES: usize = 512 << 20;
/// Turns of a register loop in one task: some tens of microseconds.
const N_TURNS: usize = 20_000;
/// Tasks of a register loop per thread in one round.
const TASKS_PER_THREAD: usize = 16;

/// Measures for about a second with the instruction set and the threads of `cpu`. Each figure is the best of
/// several rounds. Takes half a gigabyte for the time; less when memory is short.
#[must_use]
pub fn measure(cpu: &Cpu) -> Peaks {
    let token = cpu.token();
    let int8 = int8_loop(token);
    Peaks {
        f32_gflops: f32_gflops(cpu),
        bf16_gflops: bf16_gflops(cpu),
        int8_gops: int8.map(|run| rate(cpu, 150, run)),
        read_gb_s: read_gb_s(cpu),
    }
}

/// Measures [`Peaks::f32_gflops`] alone.
#[must_use]
pub fn f32_gflops(cpu: &Cpu) -> f64 {
    rate(cpu, 150, || cpu.token().dispatch(F32Loop))
}

/// Measures [`Peaks::bf16_gflops`] alone.
#[must_use]
pub fn bf16_gflops(cpu: &Cpu) -> Option<f64> {
    bf16_loop(cpu.token()).map(|run| rate(cpu, 150, run))
}

/// The best rate over `n_rounds` rounds, in 10⁹ operations per second, of tasks that return how many they did.
fn rate(cpu: &Cpu, n_rounds: usize, run: impl Fn() -> usize + Sync) -> f64 {
    let n_tasks = TASKS_PER_THREAD * cpu.pool().n_threads();
    let n_ops = run() * n_tasks;
    let round = |_| {
        let start = Instant::now();
        cpu.pool().run(n_tasks, &|_| {
            black_box(run());
        });
        n_ops as f64 / start.elapsed().as_secs_f64() * 1e-9
    };
    (0..n_rounds).map(round).fold(0.0, f64::max)
}

/// Reads a large buffer several times in pieces.
fn read_gb_s(cpu: &Cpu) -> f64 {
    const PIECE: usize = 1 << 18;
    let mut buffer = Vec::new();
    let mut len = READ_BYTES / size_of::<f32>();
    while buffer.try_reserve_exact(len).is_err() {
        len /= 2;
    }
    buffer.resize(len, 0.0f32);
    // Untouched pages would all be one page of zeros.
    cpu.pool().run_chunks(&mut buffer, PIECE, &|_, piece| piece.fill(1.0));
    let token = cpu.token();
    let round = |_| {
        let start = Instant::now();
        cpu.pool().run(len.div_ceil(PIECE), &|i| {
            let piece = &buffer[i * PIECE..len.min((i + 1) * PIECE)];
            black_box(token.dispatch(ReadLoop(piece)));
        });
        (len * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64() * 1e-9
    };
    (0..5).map(round).fold(0.0, f64::max)
}

/// f32 multiply-adds in registers; returns how many operations.
struct F32Loop;

impl Op for F32Loop {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> usize {
        if S::N_REGISTERS >= 32 { f32_turns::<S, 24>(simd) } else { f32_turns::<S, 12>(simd) }
    }
}

#[inline(always)]
fn f32_turns<S: Simd, const N: usize>(simd: S) -> usize {
    let (a, b) = (simd.splat(black_box(1e-3)), simd.splat(black_box(1e-3)));
    let mut acc = [simd.splat(1.0); N];
    for _ in 0..N_TURNS {
        for acc in &mut acc {
            *acc = simd.mul_add(a, b, *acc);
        }
    }
    black_box(acc);
    2 * S::LANES * N * N_TURNS
}

/// The sum of a slice, as fast as it can be read.
struct ReadLoop<'a>(&'a [f32]);

impl Op for ReadLoop<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        const N: usize = 8;
        let mut acc = [simd.splat(0.0); N];
        for piece in self.0.chunks_exact(N * S::LANES) {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = simd.add(*acc, simd.load(&piece[i * S::LANES..]));
            }
        }
        acc.map(|v| simd.sum(v)).iter().sum()
    }
}

/// The loop for bf16 dot products, where there is an instruction for them.
fn bf16_loop(token: Token) -> Option<Box<dyn Fn() -> usize + Sync>> {
    match token {
        #[cfg(target_arch = "x86_64")]
        Token::Avx512Bf16(t) => Some(Box::new(move || x86::bf16(t))),
        _ => None,
    }
}

/// The loop for int8 dot products.
fn int8_loop(token: Token) -> Option<Box<dyn Fn() -> usize + Sync>> {
    match token {
        Token::Scalar(_) => None,
        #[cfg(target_arch = "x86_64")]
        Token::Avx2(t) => Some(Box::new(move || x86::int8_avx2(t))),
        #[cfg(target_arch = "x86_64")]
        Token::AvxVnni(t) => Some(Box::new(move || x86::int8_avx_vnni(t))),
        #[cfg(target_arch = "x86_64")]
        Token::Avx512(t) => Some(Box::new(move || x86::int8_avx512(t))),
        #[cfg(target_arch = "x86_64")]
        Token::Avx512Vnni(t) => Some(Box::new(move || x86::int8_avx512_vnni(t))),
        #[cfg(target_arch = "x86_64")]
        Token::Avx512Bf16(t) => Some(Box::new(move || x86::int8_avx512_vnni(t.avx512_vnni()))),
        #[cfg(target_arch = "aarch64")]
        Token::Neon(t) => Some(Box::new(move || arm::int8_neon(t))),
        #[cfg(target_arch = "aarch64")]
        Token::NeonDot(t) => Some(Box::new(move || arm::int8_dot(t))),
        #[cfg(target_arch = "aarch64")]
        Token::NeonI8mm(t) => Some(Box::new(move || arm::int8_i8mm(t))),
    }
}

/// Loops over instructions of x86-64.
///
/// # Safety contract of this module
/// Each function takes the token that proves the features of the function within.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::N_TURNS;
    use crate::isa::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};

    /// `vdpbf16ps`: 32 products an instruction.
    pub(super) fn bf16(_: Avx512Bf16) -> usize {
        #[target_feature(enable = "avx512f,avx512bf16")]
        fn run() -> usize {
            const N: usize = 24;
            // Two bf16 of about 0.004.
            let pair = black_box(0x3b80_3b80);
            // SAFETY: both are 512 bits of plain data.
            let a = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair)) };
            let mut acc = [_mm512_set1_ps(1.0); N];
            for _ in 0..N_TURNS {
                for acc in &mut acc {
                    *acc = _mm512_dpbf16_ps(*acc, a, a);
                }
            }
            black_box(acc);
            2 * 32 * N * N_TURNS
        }
        // SAFETY: the token proves the features.
        unsafe { run() }
    }

    /// `vpdpbusd`: 64 products an instruction.
    pub(super) fn int8_avx512_vnni(_: Avx512Vnni) -> usize {
        #[target_feature(enable = "avx512f,avx512vnni")]
        fn run() -> usize {
            const N: usize = 24;
            let a = _mm512_set1_epi8(black_box(3));
            let mut acc = [_mm512_set1_epi32(1); N];
            for _ in 0..N_TURNS {
                for acc in &mut acc {
                    *acc = _mm512_dpbusd_epi32(*acc, a, a);
                }
            }
            black_box(acc);
            2 * 64 * N * N_TURNS
        }
        // SAFETY: the token proves the features.
        unsafe { run() }
    }

    /// `vpdpbusd`: 32 products an instruction.
    pub(super) fn int8_avx_vnni(_: AvxVnni) -> usize {
        #[target_feature(enable = "avx2,avxvnni")]
        fn run() -> usize {
            const N: usize = 12;
            let a = _mm256_set1_epi8(black_box(3));
            let mut acc = [_mm256_set1_epi32(1); N];
            for _ in 0..N_TURNS {
                for acc in &mut acc {
                    *acc = _mm256_dpbusd_avx_epi32(*acc, a, a);
                }
            }
            black_box(acc);
            2 * 32 * N * N_TURNS
        }
        // SAFETY: the token proves the features.
        unsafe { run() }
    }

    /// `vpmaddubsw`, `vpmaddwd`, `vpaddd`: 64 products in three instructions.
    pub(super) fn int8_avx512(_: Avx512) -> usize {
        #[target_feature(enable = "avx512f,avx512bw")]
        fn run() -> usize {
            const N: usize = 24;
            let (a, ones) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi16(black_box(1)));
            let mut acc = [_mm512_set1_epi32(1); N];
            for _ in 0..N_TURNS {
                for acc in &mut acc {
                    let products = _mm512_madd_epi16(_mm512_maddubs_epi16(*acc, a), ones);
                    *acc = _mm512_add_epi32(*acc, products);
                }
            }
            black_box(acc);
            2 * 64 * N * N_TURNS
        }
        // SAFETY: the token proves the features.
        unsafe { run() }
    }

    /// `vpmaddubsw`, `vpmaddwd`, `vpaddd`: 32 products in three instructions.
    pub(super) fn int8_avx2(_: Avx2) -> usize {
        #[target_feature(enable = "avx2")]
        fn run() -> usize {
            const N: usize = 12;
            let (a, ones) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi16(black_box(1)));
            let mut acc = [_mm256_set1_epi32(1); N];
            for _ in 0..N_TURNS {
                for acc in &mut acc {
                    let products = _mm256_madd_epi16(_mm256_maddubs_epi16(*acc, a), ones);
                    *acc = _mm256_add_epi32(*acc, products);
                }
            }
            black_box(acc);
            2 * 32 * N * N_TURNS
        }
        // SAFETY: the token proves the features.
        unsafe { run() }
    }
}

/// Loops over instructions of AArch64.
///
/// # Safety contract of this module
/// Each function takes the token that proves the features of the function within.
#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::hint::black_box;

    use super::N_TURNS;
    use crate::isa::{Neon, NeonDot, NeonI8mm};

    /// `smmla`: 32 products an instruction.
    pub(super) fn int8_i8mm(_: NeonI8mm) -> usize {
        #[target_feature(enable = "neon,i8mm")]
        fn run() -> usize {
            const N: usize = 24;
            let a = vdupq_n_s8(black_box(3));
            let mut acc = [vdupq_n_s32(1); N];
            for _ in 0..N_TURNS {
                for acc in &mut acc {
                    // SAFETY: the instruction belongs to the function's features and changes only `acc`.
                    unsafe {
                        asm!(
                            "smmla {acc:v}.4s, {a:v}.16b, {a:v}.16b",
                            acc = inout(vreg) *acc,
                            a = in(vreg) a,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
            black_box(acc);
            2 * 32 * N * N_TURNS
        }
        // SAFETY: the token proves the features.
        unsafe { run() }
    }

    /// `sdot`: 16 products an instruction.
    pub(super) fn int8_dot(_: NeonDot) -> usize {
        #[target_feature(enable = "neon,dotprod")]
        fn run() -> usize {
            const N: usize = 24;
            let a = vdupq_n_s8(black_box(3));
            let mut acc = [vdupq_n_s32(1); N];
            for _ in 0..N_TURNS {
                for acc in &mut acc {
                    // SAFETY: the instruction belongs to the function's features and changes only `acc`.
                    unsafe {
                        asm!(
                            "sdot {acc:v}.4s, {a:v}.16b, {a:v}.16b",
                            acc = inout(vreg) *acc,
                            a = in(vreg) a,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
            black_box(acc);
            2 * 16 * N * N_TURNS
        }
        // SAFETY: the token proves the features.
        unsafe { run() }
    }

    /// `smull`, `sadalp`: 8 products in two instructions.
    pub(super) fn int8_neon(_: Neon) -> usize {
        #[target_feature(enable = "neon")]
        fn run() -> usize {
            const N: usize = 24;
            let a = vdup_n_s8(black_box(3));
            let mut acc = [vdupq_n_s32(1); N];
            for _ in 0..N_TURNS {
                for acc in &mut acc {
                    let low = vget_low_s8(vreinterpretq_s8_s32(*acc));
                    *acc = vpadalq_s16(*acc, vmull_s8(low, a));
                }
            }
            black_box(acc);
            2 * 8 * N * N_TURNS
        }
        // SAFETY: the token proves the features.
        unsafe { run() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::cpus;

    #[test]
    fn every_loop_counts_its_operations() {
        for cpu in cpus() {
            let token = cpu.token();
            assert!(rate(&cpu, 1, || token.dispatch(F32Loop)) > 0.0);
            assert_eq!(int8_loop(token).is_some(), cpu.isa() != Isa::Scalar);
            assert_eq!(bf16_loop(token).is_some(), cpu.isa() == Isa::Avx512Bf16);
            for run in int8_loop(token).iter().chain(&bf16_loop(token)) {
                // Every loop does more products a turn than the f32 loop of plain code.
                assert!(run() > 2 * 4 * 12 * N_TURNS);
            }
        }
    }

    #[test]
    fn the_read_loop_reads_everything_in_whole_groups() {
        for cpu in cpus() {
            let ones = vec![1.0; 8 * 16 * 5];
            assert_eq!(cpu.token().dispatch(ReadLoop(&ones)), ones.len() as f32);
        }
    }
}
