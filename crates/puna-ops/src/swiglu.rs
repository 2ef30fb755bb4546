//! SwiGLU (arXiv 2002.05202) of gates and ups that lie side by side, and its backward pass.

use puna_kernels::Cpu;
use puna_kernels::simd::{Op, Simd, exp};

/// Elements per task.
const TASK_LEN: usize = 16 * 1024;

/// `out[t,i] = g / (1 + e^−g) · u` with `g = gate_up[t, i]`, `u = gate_up[t, F + i]`; `gate_up` is `[T, 2F]`, `out` `[T, F]`.
///
/// # Panics
/// When lengths do not fit.
pub fn swiglu(cpu: &Cpu, hidden_dim: usize, gate_up: &[f32], out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "swiglu: gates and ups for the outputs");
    let task_rows = TASK_LEN.div_ceil(hidden_dim);
    cpu.pool().run_chunks(out, task_rows * hidden_dim, &|task, out| {
        let gate_up = &gate_up[task * task_rows * 2 * hidden_dim..][..2 * out.len()];
        cpu.dispatch(Forward { hidden_dim, gate_up, out });
    });
}

/// Gradients of [`swiglu`]: with `σ = 1 / (1 + e^−g)`, `dg = dy·u·σ·(1 + g·(1 − σ))` and `du = dy·g·σ`; `dy` is `[T, F]`,
/// `d_gate_up` `[T, 2F]`. `dy` becomes what [`swiglu`] gave, to the bit: the same exponentials serve both.
///
/// # Panics
/// When lengths do not fit.
pub fn swiglu_backward(
    cpu: &Cpu,
    hidden_dim: usize,
    gate_up: &[f32],
    dy: &mut [f32],
    d_gate_up: &mut [f32],
) {
    assert_eq!(gate_up.len(), 2 * dy.len(), "swiglu_backward: gates and ups for the outputs");
    assert_eq!(d_gate_up.len(), gate_up.len(), "swiglu_backward: gradients of gates and ups");
    let task_rows = TASK_LEN.div_ceil(hidden_dim);
    let slices = [(d_gate_up, task_rows * 2 * hidden_dim), (dy, task_rows * hidden_dim)];
    cpu.pool().run_zip(slices, &|task, [d_gate_up, dy]| {
        let gate_up = &gate_up[task * task_rows * 2 * hidden_dim..][..d_gate_up.len()];
        cpu.dispatch(Backward { hidden_dim, gate_up, dy, d_gate_up });
    });
}

/// `1 / (1 + e^−g)`.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, g: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), g))))
}

struct Forward<'a> {
    hidden_dim: usize,
    gate_up: &'a [f32],
    out: &'a mut [f32],
}

impl Op for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { hidden_dim: n, gate_up, out } = self;
        for (gate_up, out) in gate_up.chunks_exact(2 * n).zip(out.chunks_exact_mut(n)) {
            let (gates, ups) = gate_up.split_at(n);
            for i in (0..n).step_by(S::LANES) {
                let end = n.min(i + S::LANES);
                let g = s.load_partial(&gates[i..end]);
                let v = s.mul(s.mul(g, sigmoid(s, g)), s.load_partial(&ups[i..end]));
                s.store_partial(v, &mut out[i..end]);
            }
        }
    }
}

struct Backward<'a> {
    hidden_dim: usize,
    gate_up: &'a [f32],
    dy: &'a mut [f32],
    d_gate_up: &'a mut [f32],
}

impl Op for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { hidden_dim: n, gate_up, dy, d_gate_up } = self;
        let rows = gate_up.chunks_exact(2 * n).zip(dy.chunks_exact_mut(n));
        for ((gate_up, dy), d_gate_up) in rows.zip(d_gate_up.chunks_exact_mut(2 * n)) {
            let (gates, ups) = gate_up.split_at(n);
            let (d_gates, d_ups) = d_gate_up.split_at_mut(n);
            for i in (0..n).step_by(S::LANES) {
                let end = n.min(i + S::LANES);
                let of_dy = &mut dy[i..end];
                let [g, u, dy] = [&gates[i..end], &ups[i..end], of_dy].map(|v| s.load_partial(v));
                let sigma = sigmoid(s, g);
                let silu = s.mul(g, sigma);
                // g·σ·(1 − σ) + σ
                let slope = s.mul_add(silu, s.sub(s.splat(1.0), sigma), sigma);
                s.store_partial(s.mul(s.mul(dy, u), slope), &mut d_gates[i..end]);
                s.store_partial(s.mul(dy, silu), &mut d_ups[i..end]);
                s.store_partial(s.mul(silu, u), of_dy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_gradient, assert_same_bits, assert_same_for_any_threads, cpus, finite_differences,
        random,
    };

    fn formula(g: f64, u: f64) -> f64 {
        g / (1.0 + (-g).exp()) * u
    }

    #[test]
    fn outputs_and_gradients_equal_the_formula() {
        for cpu in cpus() {
            for n in [1, 3, 8, 17, 64] {
                let n_rows = 3;
                let gate_up: Vec<f32> = random(1, 2 * n * n_rows).iter().map(|v| v * 6.0).collect();
                let dy = random(2, n * n_rows);
                let mut out = vec![0.0; n * n_rows];
                swiglu(&cpu, n, &gate_up, &mut out);
                let all: Vec<f64> = gate_up.iter().map(|&v| f64::from(v)).collect();
                let value = |all: &[f64], i: usize| {
                    let start = i / n * 2 * n + i % n;
                    formula(all[start], all[start + n])
                };
                let expected: Vec<f64> = (0..out.len()).map(|i| value(&all, i)).collect();
                assert_gradient("out", &out, &expected);
                let (mut d, mut again) = (vec![0.0; gate_up.len()], dy.clone());
                swiglu_backward(&cpu, n, &gate_up, &mut again, &mut d);
                assert_same_bits("out again", &again, &out);
                let loss = |all: &[f64]| {
                    dy.iter().enumerate().map(|(i, &dy)| f64::from(dy) * value(all, i)).sum()
                };
                assert_gradient("d_gate_up", &d, &finite_differences(&all, loss));
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (n, n_rows) = (100, 400);
        let (gate_up, dy) = (random(1, 2 * n * n_rows), random(2, n * n_rows));
        assert_same_for_any_threads(|cpu| {
            let (mut out, mut d) = (vec![0.0; dy.len()], vec![0.0; gate_up.len()]);
            swiglu(cpu, n, &gate_up, &mut out);
            swiglu_backward(cpu, n, &gate_up, &mut dy.clone(), &mut d);
            [out, d].concat()
        });
    }

    #[test]
    fn far_gates_give_no_nan() {
        for cpu in cpus() {
            let mut d = [f32::NAN; 4];
            swiglu_backward(&cpu, 2, &[-1e30, 1e30, 2.0, 2.0], &mut [1.0, 1.0], &mut d);
            assert_eq!(d, [0.0, 2.0, 0.0, 1e30], "{}", cpu.isa());
        }
    }
}
