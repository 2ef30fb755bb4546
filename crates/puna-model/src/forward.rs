//! The forward pass: prefill and decode are the same loop over layers, for many rows or for one.

use std::sync::Arc;

use puna_core::KvType;
use puna_kernels::{Cpu, KV_BLOCK_LEN, Span, rmsnorm};

use crate::block::{Place, Scratch, output_logits};
use crate::{Chunk, KvCache, Model, Wants};

/// What a forward pass leaves behind for the rows that were wanted.
pub struct Output<'a> {
    /// Scores of the next token, `[n_scored, V]`, in the order of the chunks.
    pub logits: &'a [f32],
    /// Hidden states after the final norm, `[n_wanted, D]`: first those of the rows that have logits, then those of
    /// [`Wants::Hidden`], both in the order of the chunks.
    pub hidden: &'a [f32],
}

/// A model with what it needs to run: processor, cache, and buffers that are reused from pass to pass.
pub struct Runner {
    model: Arc<Model>,
    cpu: Cpu,
    cache: KvCache,
    scratch: Scratch,
    /// Rows that come out, `[n_wanted, D]`.
    hidden: Vec<f32>,
    /// `[n_scored, V]`.
    logits: Vec<f32>,
}

impl Runner {
    /// A runner whose cache holds `n_blocks` blocks of `KV_BLOCK_LEN` positions.
    pub fn new(model: Arc<Model>, cpu: Cpu, kv_type: KvType, n_blocks: usize) -> Self {
        let cache = KvCache::new(&model.config, kv_type, n_blocks);
        let (hidden, logits) = (Vec::new(), Vec::new());
        Self { model, cpu, cache, scratch: Scratch::default(), hidden, logits }
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
        let Self { model, cpu, cache, scratch, .. } = self;
        let spans = check(batch, model, cache.n_blocks());
        scratch.resize(&model.config, &spans);
        let tokens = batch.iter().flat_map(|chunk| chunk.tokens);
        model.tok_embeddings.rows(tokens, &mut scratch.x);
        for (cache_idx, layer) in model.layers.iter().enumerate() {
            let (config, rope_table) = (&model.config, &model.rope_table);
            let mut place = Place { config, rope_table, cpu, cache, cache_idx, spans: &spans };
            scratch.block(layer, &mut place, &mut |_, _| {});
        }
        self.output(batch);
        Output { logits: &self.logits, hidden: &self.hidden }
    }

    /// `hidden = rmsnorm(x)` and `logits = output · hidden` for the rows that are wanted.
    fn output(&mut self, batch: &[Chunk<'_>]) {
        let Self { model, cpu, scratch: s, hidden, logits, .. } = self;
        let c = &model.config;
        let n_wanted: usize = batch.iter().map(Chunk::n_wanted).sum();
        let n_scored: usize = batch.iter().map(Chunk::n_scored).sum();
        hidden.resize(n_wanted * c.dim, 0.0);
        logits.resize(n_scored * c.vocab_size, 0.0);
        if n_wanted == 0 {
            return;
        }
        // The wanted rows move to the front of `h`, which nothing needs any more.
        let mut n_moved = 0;
        for scored in [true, false] {
            let mut end = 0;
            for chunk in batch {
                end += chunk.tokens.len();
                if (chunk.wants != Wants::Hidden) == scored {
                    let rows = &s.x[(end - chunk.n_wanted()) * c.dim..end * c.dim];
                    s.h[n_moved..][..rows.len()].copy_from_slice(rows);
                    n_moved += rows.len();
                }
            }
        }
        rmsnorm(cpu, &s.h[..n_moved], &model.norm, c.norm_eps, hidden);
        if n_scored > 0 {
            let scored = &hidden[..n_scored * c.dim];
            output_logits(cpu, model.output(), &mut s.acts, scored, logits);
        }
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
