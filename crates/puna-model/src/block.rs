//! One transformer block over the rows of a batch, and the buffers it works in.

use puna_core::{DType, LayerWeight, ModelConfig};
use puna_kernels::{
    Activations, Cpu, RopeTable, Span, add, attention, kv_store, matmul, matmul_each, rmsnorm,
    rope, swiglu,
};

use crate::{KvCache, Layer, Matrix};

/// Called with the matrices that are about to be multiplied with the same rows, and those rows, `[T, cols]`.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&[LayerWeight], &[f32]);

/// What a block needs besides its weights and its input.
pub(crate) struct Place<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) rope_table: &'a RopeTable,
    pub(crate) cpu: &'a Cpu,
    pub(crate) cache: &'a mut KvCache,
    /// The cache's layer that belongs to the block.
    pub(crate) cache_idx: usize,
    /// Where each sequence's rows lie.
    pub(crate) spans: &'a [Span<'a>],
}

/// Intermediate values of one pass. Vectors keep their capacity.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) acts: Activations,
    positions: Vec<usize>,
    /// Residual stream, `[T, D]`.
    pub(crate) x: Vec<f32>,
    /// Normalised input of a product, or output of `wo` and `w_down`, `[T, D]`.
    pub(crate) h: Vec<f32>,
    /// Queries, `[T, N, H]`.
    q: Vec<f32>,
    /// Keys, `[T, K, H]`.
    k: Vec<f32>,
    /// Values, `[T, K, H]`.
    v: Vec<f32>,
    /// Attention output, `[T, N, H]`.
    attn: Vec<f32>,
    /// Gate, then gated, `[T, F]`.
    gate: Vec<f32>,
    /// Up, `[T, F]`.
    up: Vec<f32>,
}

impl Scratch {
    /// Makes room for the rows of `spans`.
    pub(crate) fn resize(&mut self, c: &ModelConfig, spans: &[Span<'_>]) {
        self.positions.clear();
        self.positions.extend(spans.iter().flat_map(|s| s.pos..s.pos + s.n_tokens));
        let n_rows = self.positions.len();
        for (buffer, width) in [
            (&mut self.x, c.dim),
            (&mut self.h, c.dim),
            (&mut self.q, c.q_dim()),
            (&mut self.k, c.kv_dim()),
            (&mut self.v, c.kv_dim()),
            (&mut self.attn, c.q_dim()),
            (&mut self.gate, c.hidden_dim),
            (&mut self.up, c.hidden_dim),
        ] {
            buffer.resize(n_rows * width, 0.0);
        }
    }

    /// `x = x + attention + feed-forward`, the whole of a block.
    pub(crate) fn block(&mut self, layer: &Layer, place: &mut Place<'_>, watch: Watch<'_>) {
        self.attention(layer, place, watch);
        self.feed_forward(layer, place, watch);
    }

    /// `x += wo · attention(rope(wq·h), rope(wk·h), wv·h)` with `h = rmsnorm(x)`.
    fn attention(&mut self, layer: &Layer, place: &mut Place<'_>, watch: Watch<'_>) {
        let Place { config: c, rope_table, cpu, cache, cache_idx, spans } = place;
        let n_rows = self.positions.len();

        rmsnorm(cpu, &self.x, &layer.attn_norm, c.norm_eps, &mut self.h);
        watch(&[LayerWeight::Wq, LayerWeight::Wk, LayerWeight::Wv], &self.h);
        self.acts.set(cpu, &self.h, n_rows, c.dim, &types([&layer.wq, &layer.wk, &layer.wv]));
        let q = (layer.wq.view(), &mut self.q[..]);
        let k = (layer.wk.view(), &mut self.k[..]);
        let v = (layer.wv.view(), &mut self.v[..]);
        matmul_each(cpu, &self.acts, [q, k, v]);

        let layout = c.rope.layout;
        rope(cpu, &mut self.q, c.n_heads, &self.positions, rope_table, layout);
        rope(cpu, &mut self.k, c.n_kv_heads, &self.positions, rope_table, layout);

        kv_store(cpu, cache.layer_mut(*cache_idx), &self.k, &self.v, spans);
        let scale = 1.0 / (c.head_dim as f32).sqrt();
        let kv = cache.layer(*cache_idx);
        attention(cpu, &self.q, c.n_heads, kv, spans, scale, &mut self.attn);

        watch(&[LayerWeight::Wo], &self.attn);
        self.acts.set(cpu, &self.attn, n_rows, c.q_dim(), &types([&layer.wo]));
        matmul(cpu, layer.wo.view(), &self.acts, &mut self.h);
        add(cpu, &mut self.x, &self.h);
    }

    /// `x += w_down · (silu(w_gate·h) * (w_up·h))` with `h = rmsnorm(x)`.
    fn feed_forward(&mut self, layer: &Layer, place: &Place<'_>, watch: Watch<'_>) {
        let Place { config: c, cpu, .. } = place;
        let n_rows = self.positions.len();

        rmsnorm(cpu, &self.x, &layer.ffn_norm, c.norm_eps, &mut self.h);
        watch(&[LayerWeight::WGate, LayerWeight::WUp], &self.h);
        self.acts.set(cpu, &self.h, n_rows, c.dim, &types([&layer.w_gate, &layer.w_up]));
        let gate = (layer.w_gate.view(), &mut self.gate[..]);
        let up = (layer.w_up.view(), &mut self.up[..]);
        matmul_each(cpu, &self.acts, [gate, up]);
        swiglu(cpu, &mut self.gate, &self.up);

        watch(&[LayerWeight::WDown], &self.gate);
        self.acts.set(cpu, &self.gate, n_rows, c.hidden_dim, &types([&layer.w_down]));
        matmul(cpu, layer.w_down.view(), &self.acts, &mut self.h);
        add(cpu, &mut self.x, &self.h);
    }
}

/// Scores of the next token: `logits[t, v] = output · hidden`, `hidden` `[T, D]`.
pub(crate) fn output_logits(
    cpu: &Cpu,
    output: &Matrix,
    acts: &mut Activations,
    hidden: &[f32],
    logits: &mut [f32],
) {
    let dim = output.view().cols();
    acts.set(cpu, hidden, hidden.len() / dim, dim, &types([output]));
    matmul(cpu, output.view(), acts, logits);
}

fn types<const N: usize>(matrices: [&Matrix; N]) -> [DType; N] {
    matrices.map(Matrix::dtype)
}
