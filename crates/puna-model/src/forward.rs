//! The forward pass: prefill and decode are the same loop over layers, for many rows or for one.

use std::sync::Arc;

use puna_core::KvType;
use puna_kernels::{
    Activations, Cpu, KV_BLOCK_LEN, Span, add, attention, kv_store, matmul, rmsnorm, rope, swiglu,
};

use crate::{Chunk, KvCache, Layer, Matrix, Model, Wants};

/// What a forward pass leaves behind for the rows that were wanted, in the order of the chunks.
pub struct Output<'a> {
    /// Scores of the next token, `[n_wanted, V]`.
    pub logits: &'a [f32],
    /// Hidden states after the final norm, `[n_wanted, D]`.
    pub hidden: &'a [f32],
}

/// A model with what it needs to run: processor, cache, and buffers that are reused from pass to pass.
pub struct Runner {
    model: Arc<Model>,
    cpu: Cpu,
    cache: KvCache,
    scratch: Scratch,
}

/// Intermediate values of one pass. Vectors keep their capacity.
#[derive(Default)]
struct Scratch {
    acts: Activations,
    positions: Vec<usize>,
    /// Residual stream, `[T, D]`.
    x: Vec<f32>,
    /// Normalised input of a product, or output of `wo` and `w_down`, `[T, D]`.
    h: Vec<f32>,
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
    /// Rows that come out, `[n_wanted, D]`.
    hidden: Vec<f32>,
    /// `[n_wanted, V]`.
    logits: Vec<f32>,
}

impl Runner {
    /// A runner whose cache holds `n_blocks` blocks of `KV_BLOCK_LEN` positions.
    pub fn new(model: Arc<Model>, cpu: Cpu, kv_type: KvType, n_blocks: usize) -> Self {
        let cache = KvCache::new(&model.config, kv_type, n_blocks);
        Self { model, cpu, cache, scratch: Scratch::default() }
    }

    /// The network.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Where it computes.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// The KV cache.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Runs the network over `batch`: writes the chunks' keys and values into the cache and returns the rows
    /// that were wanted.
    ///
    /// # Panics
    /// If a chunk is empty, holds a token outside the vocabulary, goes beyond the context, or its block table
    /// does not reach to its end or names a block that does not exist.
    pub fn forward(&mut self, batch: &[Chunk<'_>]) -> Output<'_> {
        let Self { model, cpu, cache, scratch: s } = self;
        let spans = check(batch, model, cache.n_blocks());
        s.resize(model, batch);
        s.embed(model, batch);
        for (idx, layer) in model.layers.iter().enumerate() {
            s.attention_block(model, layer, cpu, cache, idx, &spans);
            s.feed_forward_block(model, layer, cpu);
        }
        s.output(model, cpu, batch);
        Output { logits: &s.logits, hidden: &s.hidden }
    }
}

/// Checks a batch against the model, and says where each chunk's rows lie.
fn check<'a>(batch: &[Chunk<'a>], model: &Model, n_blocks: usize) -> Vec<Span<'a>> {
    let mut first_row = 0;
    let span = |chunk: &Chunk<'a>| {
        let (n, end) = (chunk.tokens.len(), chunk.pos + chunk.tokens.len());
        assert!(n > 0, "a chunk has at least one token");
        assert!(end <= model.ctx, "position {end} is beyond the context of {}", model.ctx);
        let reach = chunk.blocks.len() * KV_BLOCK_LEN;
        assert!(end <= reach, "position {end} is beyond a block table of {reach} positions");
        for &block in chunk.blocks {
            assert!((block as usize) < n_blocks, "block {block} of {n_blocks}");
        }
        for &token in chunk.tokens {
            let size = model.config.vocab_size;
            assert!((token as usize) < size, "token {token} of a vocabulary of {size}");
        }
        let span = Span { first_row, n_tokens: n, pos: chunk.pos, blocks: chunk.blocks };
        first_row += n;
        span
    };
    batch.iter().map(span).collect()
}

impl Scratch {
    fn resize(&mut self, model: &Model, batch: &[Chunk<'_>]) {
        let c = &model.config;
        let n_rows: usize = batch.iter().map(|chunk| chunk.tokens.len()).sum();
        let n_wanted: usize = batch.iter().map(Chunk::n_wanted).sum();
        for (buffer, len) in [
            (&mut self.x, n_rows * c.dim),
            (&mut self.h, n_rows * c.dim),
            (&mut self.q, n_rows * c.q_dim()),
            (&mut self.k, n_rows * c.kv_dim()),
            (&mut self.v, n_rows * c.kv_dim()),
            (&mut self.attn, n_rows * c.q_dim()),
            (&mut self.gate, n_rows * c.hidden_dim),
            (&mut self.up, n_rows * c.hidden_dim),
            (&mut self.hidden, n_wanted * c.dim),
            (&mut self.logits, n_wanted * c.vocab_size),
        ] {
            buffer.resize(len, 0.0);
        }
        self.positions.clear();
        self.positions.extend(batch.iter().flat_map(|c| c.pos..c.pos + c.tokens.len()));
    }

    /// `x` = the tokens' rows of the embedding.
    fn embed(&mut self, model: &Model, batch: &[Chunk<'_>]) {
        let tokens = batch.iter().flat_map(|chunk| chunk.tokens);
        for (row, &token) in self.x.chunks_exact_mut(model.config.dim).zip(tokens) {
            model.tok_embeddings.row(token as usize, row);
        }
    }

    /// `x += wo · attention(rope(wq·h), rope(wk·h), wv·h)` with `h = rmsnorm(x)`.
    fn attention_block(
        &mut self,
        model: &Model,
        layer: &Layer,
        cpu: &Cpu,
        cache: &mut KvCache,
        idx: usize,
        spans: &[Span<'_>],
    ) {
        let c = &model.config;
        let n_rows = self.positions.len();

        rmsnorm(cpu, &self.x, &layer.attn_norm, c.norm_eps, &mut self.h);
        self.acts.set(cpu, &self.h, n_rows, c.dim, &types([&layer.wq, &layer.wk, &layer.wv]));
        matmul(cpu, layer.wq.view(), &self.acts, &mut self.q);
        matmul(cpu, layer.wk.view(), &self.acts, &mut self.k);
        matmul(cpu, layer.wv.view(), &self.acts, &mut self.v);

        let (table, layout) = (&model.rope_table, c.rope.layout);
        rope(cpu, &mut self.q, c.n_heads, &self.positions, table, layout);
        rope(cpu, &mut self.k, c.n_kv_heads, &self.positions, table, layout);

        kv_store(cpu, cache.layer_mut(idx), &self.k, &self.v, spans);
        let scale = 1.0 / (c.head_dim as f32).sqrt();
        let kv = cache.layer(idx);
        attention(cpu, &self.q, c.n_heads, kv, spans, scale, &mut self.attn);

        self.acts.set(cpu, &self.attn, n_rows, c.q_dim(), &types([&layer.wo]));
        matmul(cpu, layer.wo.view(), &self.acts, &mut self.h);
        add(cpu, &mut self.x, &self.h);
    }

    /// `x += w_down · (silu(w_gate·h) * (w_up·h))` with `h = rmsnorm(x)`.
    fn feed_forward_block(&mut self, model: &Model, layer: &Layer, cpu: &Cpu) {
        let c = &model.config;
        let n_rows = self.positions.len();

        rmsnorm(cpu, &self.x, &layer.ffn_norm, c.norm_eps, &mut self.h);
        self.acts.set(cpu, &self.h, n_rows, c.dim, &types([&layer.w_gate, &layer.w_up]));
        matmul(cpu, layer.w_gate.view(), &self.acts, &mut self.gate);
        matmul(cpu, layer.w_up.view(), &self.acts, &mut self.up);
        swiglu(cpu, &mut self.gate, &self.up);

        self.acts.set(cpu, &self.gate, n_rows, c.hidden_dim, &types([&layer.w_down]));
        matmul(cpu, layer.w_down.view(), &self.acts, &mut self.h);
        add(cpu, &mut self.x, &self.h);
    }

    /// `hidden = rmsnorm(x)` and `logits = output · hidden` for the rows that are wanted.
    fn output(&mut self, model: &Model, cpu: &Cpu, batch: &[Chunk<'_>]) {
        let c = &model.config;
        let n_wanted = self.hidden.len() / c.dim;
        if n_wanted == 0 {
            return;
        }
        // The wanted rows move to the front of `h`, which nothing needs any more.
        let (mut first_row, mut n_moved) = (0, 0);
        for chunk in batch {
            let end = first_row + chunk.tokens.len();
            let wanted = match chunk.wants {
                Wants::Nothing => end..end,
                Wants::Last => end - 1..end,
                Wants::All => first_row..end,
            };
            let rows = &self.x[wanted.start * c.dim..wanted.end * c.dim];
            self.h[n_moved..][..rows.len()].copy_from_slice(rows);
            n_moved += rows.len();
            first_row = end;
        }
        rmsnorm(cpu, &self.h[..n_moved], &model.norm, c.norm_eps, &mut self.hidden);
        self.acts.set(cpu, &self.hidden, n_wanted, c.dim, &types([model.output()]));
        matmul(cpu, model.output().view(), &self.acts, &mut self.logits);
    }
}

fn types<const N: usize>(matrices: [&Matrix; N]) -> [puna_core::DType; N] {
    matrices.map(Matrix::dtype)
}
