//! Low-rank adapters (arXiv 2106.09685): `W = W₀ + alpha/rank · B·A`, of which `A` and `B` alone are trained.
//!
//! Passes run on the merged weights, and an adapter's gradient follows from that of the merged matrix: `dB = s·dW·Aᵀ`,
//! `dA = s·Bᵀ·dW` with `s = alpha/rank`. So there is one network to train, and the gradients are the exact ones.

use std::ops::Range;

use puna_core::{LayerWeight, Rng, WeightId};
use puna_kernels::Cpu;
use puna_ops::{Mat, Out, Precision, Products};

use crate::weights::Layout;

/// What adapters there are.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraShape {
    /// Columns of `B` and rows of `A`.
    pub rank: usize,
    /// The product counts `alpha/rank`.
    pub alpha: f32,
    /// Which matrices of every block have one.
    pub targets: Vec<LayerWeight>,
}

/// One adapter: where its factors lie among all of them.
#[derive(Clone, Debug)]
pub struct LoraTarget {
    /// The matrix that it adds to, `[rows, cols]`.
    pub id: WeightId,
    /// `A`, `[rank, cols]`.
    pub a: Range<usize>,
    /// `B`, `[rows, rank]`.
    pub b: Range<usize>,
    rows: usize,
    cols: usize,
    /// The matrix' place in the network's layout.
    span: Range<usize>,
}

/// Adapters of a network in one piece of memory, and behind them the layout's scoring row if it has one, which is
/// trained as a whole.
#[derive(Clone, Debug)]
pub struct Lora {
    shape: LoraShape,
    targets: Vec<LoraTarget>,
    /// The scoring row here and in the layout.
    score: Option<(Range<usize>, Range<usize>)>,
    len: usize,
}

impl Lora {
    /// Adapters for the blocks of a network.
    #[must_use]
    pub fn new(layout: &Layout, shape: &LoraShape) -> Self {
        let mut len = 0;
        let mut take = |n: usize| {
            len += n;
            len - n..len
        };
        let mut targets = Vec::new();
        for (id, span) in layout.spans() {
            let WeightId::Layer(_, weight) = id else { continue };
            if let (true, &[rows, cols]) =
                (shape.targets.contains(weight), &id.shape(layout.config())[..])
            {
                let (a, b) = (take(shape.rank * cols), take(rows * shape.rank));
                targets.push(LoraTarget { id: *id, a, b, rows, cols, span: span.clone() });
            }
        }
        let score = layout.score().map(|span| (take(span.len()), span));
        Self { shape: shape.clone(), targets, score, len }
    }

    /// Number of weights.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none: no matrix was named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All adapters.
    #[must_use]
    pub fn targets(&self) -> &[LoraTarget] {
        &self.targets
    }

    /// The place of the scoring row, if there is one.
    #[must_use]
    pub fn score(&self) -> Option<Range<usize>> {
        self.score.as_ref().map(|(here, _)| here.clone())
    }

    /// What adapters there are.
    #[must_use]
    pub fn shape(&self) -> &LoraShape {
        &self.shape
    }

    /// What is updated as a whole; all of it decays.
    pub fn parts(&self) -> impl Iterator<Item = (Range<usize>, bool)> + '_ {
        let factors = self.targets.iter().flat_map(|t| [(t.a.clone(), true), (t.b.clone(), true)]);
        factors.chain(self.score.iter().map(|(here, _)| (here.clone(), true)))
    }

    /// New adapters, which change nothing yet: `A` is uniform within `±1/√cols`, as PEFT draws it, and `B` is zeros. A
    /// scoring row is that of `weights`.
    #[must_use]
    pub fn init(&self, weights: &[f32], seed: u64) -> Vec<f32> {
        let mut adapters = vec![0.0; self.len];
        for (stream, target) in self.targets.iter().enumerate() {
            let mut rng = Rng::new(seed, stream as u64);
            let bound = 1.0 / (target.cols as f64).sqrt();
            for a in &mut adapters[target.a.clone()] {
                *a = ((2.0 * rng.next_f64() - 1.0) * bound) as f32;
            }
        }
        if let Some((here, there)) = &self.score {
            adapters[here.clone()].copy_from_slice(&weights[there.clone()]);
        }
        adapters
    }

    fn scale(&self) -> f32 {
        self.shape.alpha / self.shape.rank as f32
    }

    /// `weights = base + s·B·A` for every matrix that has an adapter; others are left as they are.
    pub fn merge(&self, cpu: &Cpu, adapters: &[f32], base: &[f32], weights: &mut [f32]) {
        let (rank, scale) = (self.shape.rank, self.scale());
        let mut products = Products::new(Precision::F32);
        for LoraTarget { a, b, rows, cols, span, .. } in &self.targets {
            let b: Vec<f32> = adapters[b.clone()].iter().map(|b| b * scale).collect();
            let (a, b) = (Mat::new(&adapters[a.clone()], rank, *cols), Mat::new(&b, *rows, rank));
            let merged = &mut weights[span.clone()];
            merged.copy_from_slice(&base[span.clone()]);
            products.gemm(cpu, b, a, merged, Out::Add);
        }
        if let Some((here, there)) = &self.score {
            weights[there.clone()].copy_from_slice(&adapters[here.clone()]);
        }
    }

    /// Gradients of the adapters from those of the merged weights, into `out`.
    pub fn grads(&self, cpu: &Cpu, adapters: &[f32], merged: &[f32], out: &mut [f32]) {
        let (rank, scale) = (self.shape.rank, self.scale());
        let mut products = Products::new(Precision::F32);
        for LoraTarget { a, b, rows, cols, span, .. } in &self.targets {
            let dw = Mat::new(&merged[span.clone()], *rows, *cols);
            let (wa, wb) = (
                Mat::new(&adapters[a.clone()], rank, *cols),
                Mat::new(&adapters[b.clone()], *rows, rank),
            );
            products.gemm(cpu, dw, wa.t(), &mut out[b.clone()], Out::Set);
            products.gemm(cpu, wb.t(), dw, &mut out[a.clone()], Out::Set);
            out[b.clone()].iter_mut().for_each(|d| *d *= scale);
            out[a.clone()].iter_mut().for_each(|d| *d *= scale);
        }
        if let Some((here, there)) = &self.score {
            out[here.clone()].copy_from_slice(&merged[there.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use puna_core::{ModelConfig, Rope, RopeLayout, RopeScaling};

    use super::*;

    fn layout() -> Layout {
        Layout::with_score(&ModelConfig {
            dim: 8,
            hidden_dim: 12,
            n_layers: 2,
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: 4,
            vocab_size: 9,
            max_seq_len: 16,
            norm_eps: 1e-5,
            rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
            tied_output: true,
        })
    }

    #[test]
    fn new_adapters_change_nothing() {
        let (layout, cpu) = (layout(), Cpu::new(2).unwrap());
        let shape =
            LoraShape { rank: 3, alpha: 6.0, targets: vec![LayerWeight::Wq, LayerWeight::WDown] };
        let lora = Lora::new(&layout, &shape);
        assert_eq!(lora.len(), 2 * (3 * 8 + 8 * 3 + 3 * 12 + 8 * 3) + 8);
        let base = layout.init(1);
        let mut weights = base.clone();
        lora.merge(&cpu, &lora.init(&base, 2), &base, &mut weights);
        assert!(weights == base);
    }

    /// `f(weights) = Σ c·w²/2` has the gradient `c·w`, and by the adapters its finite differences.
    #[test]
    fn gradients_equal_finite_differences() {
        let (layout, cpu) = (layout(), Cpu::new(1).unwrap());
        let shape = LoraShape { rank: 2, alpha: 3.0, targets: LayerWeight::ALL.to_vec() };
        let lora = Lora::new(&layout, &shape);
        let base = layout.init(1);
        let mut rng = Rng::new(9, 0);
        let mut adapters: Vec<f32> = (0..lora.len()).map(|_| rng.next_normal() as f32).collect();
        let c: Vec<f64> = (0..layout.len()).map(|_| rng.next_normal()).collect();
        let mut weights = base.clone();
        let mut total = |adapters: &[f32]| {
            lora.merge(&cpu, adapters, &base, &mut weights);
            let terms = weights.iter().zip(&c).map(|(&w, c)| c * f64::from(w).powi(2) / 2.0);
            (terms.sum::<f64>(), weights.clone())
        };
        let (_, at) = total(&adapters);
        let merged: Vec<f32> = at.iter().zip(&c).map(|(&w, c)| (f64::from(w) * c) as f32).collect();
        let mut found = vec![0.0; lora.len()];
        lora.grads(&cpu, &adapters, &merged, &mut found);
        for i in (0..lora.len()).step_by(7) {
            let given = adapters[i];
            let mut at = |x: f32| {
                adapters[i] = x;
                total(&adapters).0
            };
            let slope = (at(given + 0.01) - at(given - 0.01)) / 0.02;
            at(given);
            assert!(
                (slope - f64::from(found[i])).abs() < 2e-3 * (1.0 + slope.abs()),
                "{i}: {slope}, found {}",
                found[i]
            );
        }
    }
}
