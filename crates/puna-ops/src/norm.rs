//! The backward pass of RMSNorm (arXiv 1910.07467).

use puna_kernels::Cpu;
use puna_kernels::simd::{Op, Simd};

/// Elements per task.
const TASK_LEN: usize = 16 * 1024;
/// Columns per task of the weight's gradient: a cache line of every row, on most CPUs.
const TASK_COLS: usize = 16;

/// Gradients of `y[t,i] = x[t,i]·r[t]·w[i]`, `r[t] = 1 / √(Σⱼ x[t,j]² / D + eps)`:
///
/// `dx_acc[t,i] += r·w[i]·dy[t,i] − x[t,i]·r³/D·Σⱼ dy[t,j]·w[j]·x[t,j]` and `dw_acc[i] += Σ_t dy[t,i]·x[t,i]·r[t]`.
///
/// `x`, `dy` and `dx_acc` are `[T, D]`, `weight` and `dw_acc` `[D]`; `scales` `[T]` receives `r`. Rows are added to
/// `dw_acc` in ascending order, each by one fused multiply-add. Sums over a row go element `j` to lane `j mod L`, in
/// ascending order, then lanes, halves first.
///
/// # Panics
/// When lengths do not fit.
#[expect(clippy::too_many_arguments, reason = "inputs, their gradients, working memory")]
pub fn rmsnorm_backward(
    cpu: &Cpu,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx_acc: &mut [f32],
    dw_acc: &mut [f32],
    scales: &mut [f32],
) {
    let dim = weight.len();
    let n_rows = scales.len();
    assert_eq!(x.len(), n_rows * dim, "rmsnorm_backward: elements of x");
    assert_eq!(dy.len(), x.len(), "rmsnorm_backward: elements of dy");
    assert_eq!(dx_acc.len(), x.len(), "rmsnorm_backward: elements of dx");
    assert_eq!(dw_acc.len(), dim, "rmsnorm_backward: elements of dw");
    if x.is_empty() {
        return;
    }
    let task_rows = TASK_LEN.div_ceil(dim);
    cpu.pool().run_zip(
        [(dx_acc, task_rows * dim), (&mut *scales, task_rows)],
        &|task, [dx, scales]| {
            let rows = task * task_rows * dim..;
            let (x, dy) = (&x[rows.clone()][..dx.len()], &dy[rows][..dx.len()]);
            cpu.dispatch(Rows { x, weight, eps, dy, dx, scales });
        },
    );
    let scales = &*scales;
    cpu.pool().run_chunks(dw_acc, TASK_COLS, &|task, dw| {
        cpu.dispatch(Columns { x, dy, dim, first: task * TASK_COLS, scales, dw });
    });
}

/// The input's gradient, for some rows.
struct Rows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    dy: &'a [f32],
    dx: &'a mut [f32],
    scales: &'a mut [f32],
}

impl Op for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, weight, eps, dy, dx, scales } = self;
        let dim = weight.len();
        let rows = x.chunks_exact(dim).zip(dy.chunks_exact(dim)).zip(dx.chunks_exact_mut(dim));
        for (((x, dy), dx), scale) in rows.zip(scales) {
            let (mut squares, mut products) = (s.splat(0.0), s.splat(0.0));
            for i in (0..dim).step_by(S::LANES) {
                let end = dim.min(i + S::LANES);
                let xs = s.load_partial(&x[i..end]);
                let dys = s.mul(s.load_partial(&dy[i..end]), s.load_partial(&weight[i..end]));
                squares = s.mul_add(xs, xs, squares);
                products = s.mul_add(dys, xs, products);
            }
            let r = 1.0 / (s.sum(squares) / dim as f32 + eps).sqrt();
            let pull = s.sum(products) / dim as f32 * r * r * r;
            *scale = r;
            for i in (0..dim).step_by(S::LANES) {
                let end = dim.min(i + S::LANES);
                let xs = s.load_partial(&x[i..end]);
                let dys = s.mul(s.load_partial(&dy[i..end]), s.load_partial(&weight[i..end]));
                let v = s.sub(s.mul(dys, s.splat(r)), s.mul(xs, s.splat(pull)));
                let v = s.add(s.load_partial(&dx[i..end]), v);
                s.store_partial(v, &mut dx[i..end]);
            }
        }
    }
}

/// The weight's gradient, for some columns.
struct Columns<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dim: usize,
    first: usize,
    scales: &'a [f32],
    dw: &'a mut [f32],
}

impl Op for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, dy, dim, first, scales, dw } = self;
        for (i, dw) in dw.chunks_mut(S::LANES).enumerate() {
            let column = first + i * S::LANES;
            let mut sum = s.load_partial(dw);
            for (t, &r) in scales.iter().enumerate() {
                let start = t * dim + column;
                let xs = s.load_partial(&x[start..start + dw.len()]);
                let dys = s.load_partial(&dy[start..start + dw.len()]);
                sum = s.mul_add(s.mul(xs, s.splat(r)), dys, sum);
            }
            s.store_partial(sum, dw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        assert_gradient, assert_same_for_any_threads, cpus, finite_differences, random,
    };

    const EPS: f32 = 1e-5;

    /// `Σ dy·rmsnorm(x)` in f64.
    fn loss(x: &[f64], w: &[f64], dy: &[f32]) -> f64 {
        let dim = w.len();
        let mut loss = 0.0;
        for (x, dy) in x.chunks(dim).zip(dy.chunks(dim)) {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / dim as f64;
            let r = 1.0 / (mean + f64::from(EPS)).sqrt();
            loss += (0..dim).map(|i| f64::from(dy[i]) * x[i] * r * w[i]).sum::<f64>();
        }
        loss
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for cpu in cpus() {
            for dim in [1, 3, 8, 17, 70] {
                let n_rows = 5;
                let (x, w, dy) = (random(1, n_rows * dim), random(2, dim), random(3, n_rows * dim));
                let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; dim]);
                let mut scales = vec![0.0; n_rows];
                rmsnorm_backward(&cpu, &x, &w, EPS, &dy, &mut dx, &mut dw, &mut scales);
                let [x64, w64] =
                    [&x, &w].map(|v| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
                assert_gradient("dx", &dx, &finite_differences(&x64, |x| loss(x, &w64, &dy)));
                assert_gradient("dw", &dw, &finite_differences(&w64, |w| loss(&x64, w, &dy)));
            }
        }
    }

    #[test]
    fn gradients_are_added_and_threads_change_no_bit() {
        let (n_rows, dim) = (300, 129);
        let (x, w, dy) = (random(1, n_rows * dim), random(2, dim), random(3, n_rows * dim));
        assert_same_for_any_threads(|cpu| {
            let (mut dx, mut dw) = (random(4, n_rows * dim), random(5, dim));
            let mut scales = vec![0.0; n_rows];
            rmsnorm_backward(cpu, &x, &w, EPS, &dy, &mut dx, &mut dw, &mut scales);
            [dx, dw].concat()
        });
        // Row by row, the same.
        for cpu in cpus() {
            let (mut whole, mut parts) = (random(5, dim), random(5, dim));
            let mut dx = vec![0.0; x.len()];
            rmsnorm_backward(&cpu, &x, &w, EPS, &dy, &mut dx, &mut whole, &mut vec![0.0; n_rows]);
            for (x, dy) in x.chunks(dim).zip(dy.chunks(dim)) {
                rmsnorm_backward(&cpu, x, &w, EPS, dy, &mut dx[..dim], &mut parts, &mut [0.0]);
            }
            crate::testing::assert_same_bits("rows", &whole, &parts);
        }
    }
}
