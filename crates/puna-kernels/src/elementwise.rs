//! Row-wise and element-wise steps between the matrix products: RMSNorm, residual, SwiGLU.
//!
//! Each is a body over [`Simd`] that works on a few rows, and an entry point that asserts shapes and spreads
//! rows over the pool when there are enough of them to pay for it.

use crate::Cpu;
use crate::math::exp;
use crate::simd::{Op, Simd};

/// Elements per task: some microseconds of work, several times what handing out a task costs.
const TASK_LEN: usize = 16 * 1024;

/// RMSNorm (arXiv 1910.07467): `out[t,i] = x[t,i] / √(Σⱼ x[t,j]² / D + eps) · weight[i]`.
///
/// `x` and `out` are `[T, D]`, `weight` is `[D]`.
///
/// Order of summation: element `j` goes to lane `j mod L` of accumulator `(j / L) mod 4`, `L` being the
/// lanes of the instruction set, by fused multiply-add in ascending `j`; then `(a₀ + a₁) + (a₂ + a₃)`; then
/// the lanes, halves first. Elements after the last full group of `4·L` go to accumulator 0.
///
/// # Panics
/// When `x` is not whole rows of `weight`'s length, or `out` has another length.
pub fn rmsnorm(cpu: &Cpu, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let dim = weight.len();
    assert_eq!(x.len(), out.len(), "rmsnorm: elements of x and of out");
    if x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(dim), "rmsnorm: {} elements in rows of {dim}", x.len());
    let task_len = TASK_LEN.div_ceil(dim) * dim;
    let token = cpu.token();
    cpu.pool().run_chunks(out, task_len, &|task, out| {
        let x = &x[task * task_len..][..out.len()];
        token.dispatch(RmsNorm { x, weight, eps, out });
    });
}

/// `x[i] += y[i]`.
///
/// # Panics
/// When the lengths differ.
pub fn add(cpu: &Cpu, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "add: elements of x and of y");
    let token = cpu.token();
    cpu.pool().run_chunks(x, TASK_LEN, &|task, x| {
        let y = &y[task * TASK_LEN..][..x.len()];
        token.dispatch(Add { x, y });
    });
}

/// SwiGLU (arXiv 2002.05202): `gate[i] = gate[i] / (1 + e^−gate[i]) · up[i]`.
///
/// # Panics
/// When the lengths differ.
pub fn swiglu(cpu: &Cpu, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "swiglu: elements of gate and of up");
    let token = cpu.token();
    cpu.pool().run_chunks(gate, TASK_LEN, &|task, gate| {
        let up = &up[task * TASK_LEN..][..gate.len()];
        token.dispatch(SwiGlu { gate, up });
    });
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Op for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let dim = self.weight.len();
        for (x, out) in self.x.chunks_exact(dim).zip(self.out.chunks_exact_mut(dim)) {
            let mean = sum_of_squares(simd, x) / dim as f32;
            let scale = simd.splat(1.0 / (mean + self.eps).sqrt());
            let body = dim - dim % S::LANES;
            for i in (0..body).step_by(S::LANES) {
                let scaled = simd.mul(simd.load(&x[i..]), scale);
                simd.store(simd.mul(scaled, simd.load(&self.weight[i..])), &mut out[i..]);
            }
            let scaled = simd.mul(simd.load_partial(&x[body..]), scale);
            let weight = simd.load_partial(&self.weight[body..]);
            simd.store_partial(simd.mul(scaled, weight), &mut out[body..]);
        }
    }
}

/// `Σ x[i]²`, in the order that [`rmsnorm`] documents.
#[inline(always)]
fn sum_of_squares<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut acc = [simd.splat(0.0); 4];
    let mut groups = x.chunks_exact(4 * S::LANES);
    for group in &mut groups {
        for (i, acc) in acc.iter_mut().enumerate() {
            let v = simd.load(&group[i * S::LANES..]);
            *acc = simd.mul_add(v, v, *acc);
        }
    }
    for chunk in groups.remainder().chunks(S::LANES) {
        let v = simd.load_partial(chunk);
        acc[0] = simd.mul_add(v, v, acc[0]);
    }
    simd.sum(simd.add(simd.add(acc[0], acc[1]), simd.add(acc[2], acc[3])))
}

struct Add<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Op for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (x, y) in self.x.iter_mut().zip(self.y) {
            *x += y;
        }
    }
}

struct SwiGlu<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Op for SwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { gate, up } = self;
        let body = gate.len() - gate.len() % S::LANES;
        for i in (0..body).step_by(S::LANES) {
            let v = simd.mul(silu(simd, simd.load(&gate[i..])), simd.load(&up[i..]));
            simd.store(v, &mut gate[i..]);
        }
        let v = silu(simd, simd.load_partial(&gate[body..]));
        let v = simd.mul(v, simd.load_partial(&up[body..]));
        simd.store_partial(v, &mut gate[body..]);
    }
}

/// `x / (1 + e^−x)`; `−∞` gives a NaN, as the formula does.
#[inline(always)]
fn silu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let e = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(x, simd.add(simd.splat(1.0), e))
}

#[cfg(test)]
mod tests {
    use puna_testkit::{U_F32, gamma};

    use super::*;
    use crate::Isa;
    use crate::testing::{N_THREADS, assert_same_bits, cpus, random};

    /// Lengths around the vector and group sizes of every instruction set.
    const LENGTHS: [usize; 16] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 288];

    #[track_caller]
    fn assert_near(what: &str, actual: f32, expected: f64, relative: f64) {
        let bound = relative * expected.abs() + f64::from(f32::from_bits(1));
        let error = (f64::from(actual) - expected).abs();
        assert!(
            error <= bound,
            "{what}: {actual}, expected {expected}, error {error:e} > {bound:e}"
        );
    }

    #[test]
    fn rmsnorm_equals_the_formula_at_every_length_and_alignment() {
        for cpu in cpus() {
            for dim in LENGTHS {
                for offset in 0..2 {
                    let x = random(1, 3 * dim + offset);
                    let x = &x[offset..];
                    let weight = random(2, dim);
                    let mut out = vec![0.0; 3 * dim];
                    rmsnorm(&cpu, x, &weight, 1e-5, &mut out);
                    for (t, out) in out.chunks(dim).enumerate() {
                        let x = &x[t * dim..][..dim];
                        let sum: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
                        let scale = 1.0 / (sum / dim as f64 + f64::from(1e-5f32)).sqrt();
                        for i in 0..dim {
                            let expected = f64::from(x[i]) * scale * f64::from(weight[i]);
                            let what = format!("{} dim {dim} row {t} column {i}", cpu.isa());
                            assert_near(&what, out[i], expected, gamma(dim + 8, U_F32));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rmsnorm_at_the_edges_of_f32() {
        for cpu in cpus() {
            let mut out = [f32::NAN; 5];
            rmsnorm(&cpu, &[0.0; 5], &[1.0; 5], 1e-5, &mut out);
            assert_eq!(out, [0.0; 5]);
            let denormal = f32::from_bits(1);
            rmsnorm(&cpu, &[denormal; 5], &[1.0; 5], 0.25, &mut out);
            assert_eq!(out, [2.0 * denormal; 5], "{}", cpu.isa());
            rmsnorm(&cpu, &[1.0, f32::INFINITY], &[1.0; 2], 1e-5, &mut out[..2]);
            assert!(out[0] == 0.0 && out[1].is_nan(), "{}: {out:?}", cpu.isa());
            rmsnorm(&cpu, &[], &[1.0; 2], 1e-5, &mut []);
        }
    }

    #[test]
    fn swiglu_equals_the_formula() {
        for cpu in cpus() {
            for len in LENGTHS {
                let gate: Vec<f32> = random(3, len).iter().map(|x| x * 30.0).collect();
                let up = random(4, len);
                let mut out = gate.clone();
                swiglu(&cpu, &mut out, &up);
                for i in 0..len {
                    let g = f64::from(gate[i]);
                    let expected = g / (1.0 + (-g).exp()) * f64::from(up[i]);
                    // Four roundings, and an exponential off by little over an ulp: two units of roundoff.
                    let what = format!("{} length {len} at {i}", cpu.isa());
                    assert_near(&what, out[i], expected, gamma(7, U_F32));
                }
            }
            let mut edges = [f32::INFINITY, -1e30, f32::NEG_INFINITY, f32::NAN, -0.0];
            swiglu(&cpu, &mut edges, &[2.0; 5]);
            assert_eq!(edges[0], f32::INFINITY);
            assert_eq!(edges[1], 0.0);
            assert!(edges[2].is_nan() && edges[3].is_nan());
            assert_eq!(edges[4], 0.0);
        }
    }

    #[test]
    fn add_is_exact_at_every_length() {
        for cpu in cpus() {
            for len in LENGTHS {
                let (x, y) = (random(5, len + 1), random(6, len));
                let mut sum = x.clone();
                add(&cpu, &mut sum[1..], &y);
                for i in 0..len {
                    assert_eq!(sum[i + 1], x[i + 1] + y[i]);
                }
            }
        }
    }

    #[test]
    fn threads_and_company_change_no_bit() {
        let (dim, n_rows) = (257, 300);
        let (x, weight) = (random(7, n_rows * dim), random(8, dim));
        for isa in Isa::available() {
            let alone = Cpu::with_isa(isa, 1).unwrap();
            let mut normed = vec![0.0; x.len()];
            let mut gated = x.clone();
            for (t, row) in x.chunks(dim).enumerate() {
                let rows = t * dim..(t + 1) * dim;
                rmsnorm(&alone, row, &weight, 1e-6, &mut normed[rows.clone()]);
                swiglu(&alone, &mut gated[rows], row);
            }
            for n_threads in N_THREADS {
                let cpu = Cpu::with_isa(isa, n_threads).unwrap();
                let mut out = vec![0.0; x.len()];
                rmsnorm(&cpu, &x, &weight, 1e-6, &mut out);
                assert_same_bits("rmsnorm", &out, &normed);
                out.copy_from_slice(&x);
                swiglu(&cpu, &mut out, &x);
                assert_same_bits("swiglu", &out, &gated);
            }
        }
    }
}
