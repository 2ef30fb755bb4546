//! The network in f64, as plainly as it can be written, and small configurations.

#![allow(dead_code, reason = "each test takes a part")]

use puna_core::{LayerWeight, ModelConfig, Rng, Rope, RopeLayout, RopeScaling, WeightId};
use puna_train::Layout;

/// A network of a few thousand weights.
pub(crate) fn config(n_heads: usize, n_kv_heads: usize, tied_output: bool) -> ModelConfig {
    ModelConfig {
        dim: 4 * n_heads,
        hidden_dim: 18,
        n_layers: 2,
        n_heads,
        n_kv_heads,
        head_dim: 4,
        vocab_size: 29,
        max_seq_len: 64,
        norm_eps: 1e-5,
        rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
        tied_output,
    }
}

/// New weights, larger than for training, so that no gradient is small, and norms that are not all ones.
pub(crate) fn weights(layout: &Layout) -> Vec<f32> {
    let mut rng = Rng::new(5, 99);
    layout.init(7).iter().map(|w| w * 5.0 * (1.0 + 0.2 * rng.next_normal() as f32)).collect()
}

/// Token ids from a seed.
pub(crate) fn tokens(seed: u64, n: usize, vocab_size: usize) -> Vec<u32> {
    let mut rng = Rng::new(seed, 0);
    (0..n).map(|_| rng.next_u32() % vocab_size as u32).collect()
}

fn product(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|w| w.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

/// The losses of one sequence.
pub(crate) fn losses(
    layout: &Layout,
    weights: &[f64],
    tokens: &[u32],
    targets: &[u32],
    starts: Option<&[u32]>,
) -> Vec<f64> {
    let tied = layout.config().tied_output;
    let output = if tied { WeightId::TokEmbeddings } else { WeightId::Output };
    let rows = normed(layout, weights, tokens, starts);
    let losses = rows.iter().zip(targets).map(|(x, &target)| {
        let logits = product(&weights[layout.span(output)], x);
        let max = logits.iter().fold(f64::MIN, |a, &b| a.max(b));
        let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
        sum.ln() + max - logits[target as usize]
    });
    losses.collect()
}

/// The scores of one sequence.
pub(crate) fn scores(
    layout: &Layout,
    weights: &[f64],
    tokens: &[u32],
    starts: Option<&[u32]>,
) -> Vec<f64> {
    let row = &weights[layout.score().unwrap()];
    normed(layout, weights, tokens, starts).iter().map(|x| product(row, x)[0]).collect()
}

/// What the output matrix sees of one sequence.
fn normed(
    layout: &Layout,
    weights: &[f64],
    tokens: &[u32],
    starts: Option<&[u32]>,
) -> Vec<Vec<f64>> {
    let c = layout.config();
    let matrix = |id: WeightId, x: &[f64]| product(&weights[layout.span(id)], x);
    let norm = |id: WeightId, x: &[f64]| -> Vec<f64> {
        let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let r = 1.0 / (mean + f64::from(c.norm_eps)).sqrt();
        x.iter().zip(&weights[layout.span(id)]).map(|(v, w)| v * r * w).collect()
    };
    let rope = |t: usize, x: &mut [f64]| {
        for head in x.chunks_mut(c.head_dim) {
            for (i, pair) in head.chunks_mut(2).enumerate() {
                let freq = f64::from(c.rope.theta).powf(-2.0 * i as f64 / c.head_dim as f64);
                let (s, co) = (t as f64 * freq).sin_cos();
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * co - b * s;
                pair[1] = a * s + b * co;
            }
        }
    };
    let table = &weights[layout.span(WeightId::TokEmbeddings)];
    let mut xs: Vec<Vec<f64>> =
        tokens.iter().map(|&id| table[id as usize * c.dim..][..c.dim].to_vec()).collect();
    for idx in 0..c.n_layers {
        let id = |weight| WeightId::Layer(idx, weight);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (t, x) in xs.iter_mut().enumerate() {
            let h = norm(id(LayerWeight::AttnNorm), x);
            let (mut q, mut k) = (matrix(id(LayerWeight::Wq), &h), matrix(id(LayerWeight::Wk), &h));
            rope(t, &mut q);
            rope(t, &mut k);
            keys.push(k);
            values.push(matrix(id(LayerWeight::Wv), &h));
            let mut out = Vec::new();
            for (head, q) in q.chunks(c.head_dim).enumerate() {
                let of_head = head / (c.n_heads / c.n_kv_heads) * c.head_dim..;
                let first = starts.map_or(0, |starts| starts[t] as usize);
                let p: Vec<f64> = (first..=t)
                    .map(|j| {
                        let k = &keys[j][of_head.clone()];
                        let dot: f64 = q.iter().zip(k).map(|(a, b)| a * b).sum();
                        (dot / (c.head_dim as f64).sqrt()).exp()
                    })
                    .collect();
                let sum: f64 = p.iter().sum();
                for e in 0..c.head_dim {
                    let terms =
                        p.iter().zip(first..).map(|(p, j)| p / sum * values[j][of_head.start + e]);
                    out.push(terms.sum());
                }
            }
            let out = matrix(id(LayerWeight::Wo), &out);
            x.iter_mut().zip(out).for_each(|(x, y)| *x += y);
            let h = norm(id(LayerWeight::FfnNorm), x);
            let (gate, up) = (matrix(id(LayerWeight::WGate), &h), matrix(id(LayerWeight::WUp), &h));
            let act: Vec<f64> =
                gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let y = matrix(id(LayerWeight::WDown), &act);
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        }
    }
    xs.iter().map(|x| norm(WeightId::Norm, x)).collect()
}
