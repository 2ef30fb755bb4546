//! One number a token: the product of what the output matrix would see with a row of weights.

/// `scores[t] = Σ_d x[t, d]·w[d]`, summed in f64 with `d` ascending and rounded once; `x` is `[T, D]`.
pub(crate) fn forward(x: &[f32], w: &[f32]) -> Vec<f32> {
    let product =
        |x: &[f32]| x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>();
    x.chunks_exact(w.len()).map(|x| product(x) as f32).collect()
}

/// `dx_acc[t, d] += d_scores[t]·w[d]` and `dw_acc[d] += d_scores[t]·x[t, d]`, with `t` ascending. Most tokens are not
/// scored: where `d_scores[t]` is zero nothing is added.
pub(crate) fn backward_acc(
    x: &[f32],
    w: &[f32],
    d_scores: &[f32],
    dx_acc: &mut [f32],
    dw_acc: &mut [f32],
) {
    let dim = w.len();
    assert_eq!(d_scores.len() * dim, x.len(), "gradients of scores of the tokens");
    for (t, &d) in d_scores.iter().enumerate().filter(|(_, d)| **d != 0.0) {
        let (x, dx) = (&x[t * dim..(t + 1) * dim], &mut dx_acc[t * dim..(t + 1) * dim]);
        for i in 0..dim {
            dx[i] += d * w[i];
            dw_acc[i] += d * x[i];
        }
    }
}
