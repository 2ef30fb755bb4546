//! A pass of whole sequences through the network, forward and back.
//!
//! Gradients accumulate into f32 one sequence at a time, in order; norms and embeddings row by row. So a batch may be
//! cut into micro-batches anywhere and the gradients are the same bits.

use std::ops::Range;

use puna_core::WeightId;
use puna_kernels::{Cpu, RopeTable, add, rmsnorm};
use puna_ops::{
    BLOCK_K, HeadShape, Mat, Out, Precision, Products, attention, attention_backward,
    cross_entropy, embedding, embedding_backward, groups_to_rows, heads_to_rows, rmsnorm_backward,
    rows_to_groups, rows_to_heads, swiglu, swiglu_backward,
};

use crate::score;
use crate::weights::{LayerSpans, Layout};

/// Tokens whose logits are in memory at once: whole blocks of terms, so that it does not change the sums.
pub(crate) const LOGIT_ROWS: usize = 2 * BLOCK_K;

/// Whole sequences and what is to be learned from them; all are `[B, T]`.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatch<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// The id to follow each.
    pub targets: &'a [u32],
    /// What each token's loss counts: one over the tokens of the whole batch; zero for a token that is masked.
    pub scales: &'a [f32],
    /// The first position of its sequence that each token sees; `None` is all.
    pub starts: Option<&'a [u32]>,
}

/// Weights' gradients, and those of an output matrix that is tied: kept apart until the batch is complete, because
/// the two uses of the matrix are accumulated at different times.
#[derive(Debug)]
pub struct Grads {
    weights: Vec<f32>,
    tied: Vec<f32>,
}

impl Grads {
    /// Zeros for each weight.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        let config = layout.config();
        let n_tied = if config.tied_output { config.vocab_size * config.dim } else { 0 };
        Self { weights: vec![0.0; layout.len()], tied: vec![0.0; n_tied] }
    }

    /// Zeros again.
    pub fn clear(&mut self) {
        self.weights.fill(0.0);
        self.tied.fill(0.0);
    }

    /// The gradients of a complete batch, in the layout of the weights.
    pub fn complete(&mut self, cpu: &Cpu) -> &mut [f32] {
        let n = self.tied.len();
        add(cpu, &mut self.weights[..n], &self.tied);
        self.tied.fill(0.0);
        &mut self.weights
    }
}

/// What the backward pass of a block needs of its forward pass. Everything else is cheap to compute again.
#[derive(Debug, Default)]
struct Saved {
    /// Input, `[B·T, D]`.
    x: Vec<f32>,
    /// Turned queries and keys, and values, `[B, K, N/K + 2, T, H]`.
    groups: Vec<f32>,
    /// Attention's outputs `[B, N, T, H]`, and logarithms of its denominators `[B, N, T]`.
    heads: Vec<f32>,
    log_sums: Vec<f32>,
    /// After attention, `[B·T, D]`.
    x_mid: Vec<f32>,
    /// `[B·T, 2F]`
    gate_up: Vec<f32>,
}

/// Memory between the steps of a block.
#[derive(Debug)]
struct Between {
    products: Products,
    /// `[B·T, D]` each.
    normed: Vec<f32>,
    d_normed: Vec<f32>,
    /// `[B·T, max(N·H, F)]` each.
    wide: Vec<f32>,
    d_wide: Vec<f32>,
    /// `[B·T, max((N + 2K)·H, 2F)]`
    d_widest: Vec<f32>,
    /// `[B·T, (N + 2K)·H]`
    qkv: Vec<f32>,
    /// `[B, N, T, H]`
    d_heads: Vec<f32>,
    /// `[B·T]`
    norm_scales: Vec<f32>,
    logits: Vec<f32>,
}

/// A network's passes over micro-batches of a fixed size, and the memory they take.
#[derive(Debug)]
pub struct Pass {
    layout: Layout,
    shape: HeadShape,
    precision: Precision,
    table: RopeTable,
    /// For each block; with recomputation one for all, and `inputs` instead.
    saved: Vec<Saved>,
    /// With recomputation, the input of each block.
    inputs: Vec<Vec<f32>>,
    between: Between,
    /// `[B·T, D]`: the residual stream, and its gradient.
    x: Vec<f32>,
    dx: Vec<f32>,
    losses: Vec<f32>,
}

impl Pass {
    /// A pass of `n_seqs` sequences of `seq_len` tokens. With `recompute`, blocks keep their input alone and are run
    /// again on the way back: less memory for a third more work, and the same bits. Factors of products
    /// are rounded to `precision`; norms, softmax, losses and all sums are f32.
    #[must_use]
    pub fn new(
        layout: &Layout,
        n_seqs: usize,
        seq_len: usize,
        recompute: bool,
        precision: Precision,
    ) -> Self {
        let config = layout.config();
        let &puna_core::ModelConfig { n_heads, n_kv_heads, head_dim, n_layers, .. } = config;
        let shape = HeadShape { n_seqs, seq_len, n_heads, n_kv_heads, head_dim };
        let freqs = puna_model::frequencies(config, seq_len);
        let table = RopeTable::new(&freqs, seq_len, puna_model::magnitude(config));
        let (n, d) = (shape.n_rows(), config.dim);
        let floats = |per_row: usize| vec![0.0; n * per_row];
        let saved = (0..if recompute { 1 } else { n_layers }).map(|_| Saved {
            x: floats(d),
            groups: floats(shape.row_len()),
            heads: floats(config.q_dim()),
            log_sums: floats(n_heads),
            x_mid: floats(d),
            gate_up: floats(2 * config.hidden_dim),
        });
        let between = Between {
            products: Products::new(precision),
            normed: floats(d),
            d_normed: floats(d),
            wide: floats(config.q_dim().max(config.hidden_dim)),
            d_wide: floats(config.q_dim().max(config.hidden_dim)),
            d_widest: floats(shape.row_len().max(2 * config.hidden_dim)),
            qkv: floats(shape.row_len()),
            d_heads: floats(config.q_dim()),
            norm_scales: floats(1),
            logits: vec![0.0; LOGIT_ROWS.min(n) * config.vocab_size],
        };
        Self {
            shape,
            precision,
            table,
            saved: saved.collect(),
            inputs: if recompute { (0..n_layers).map(|_| floats(d)).collect() } else { Vec::new() },
            between,
            x: floats(d),
            dx: floats(d),
            losses: floats(1),
            layout: layout.clone(),
        }
    }

    /// Sequences of a micro-batch.
    #[must_use]
    pub fn n_seqs(&self) -> usize {
        self.shape.n_seqs
    }

    /// Tokens of a sequence.
    #[must_use]
    pub fn seq_len(&self) -> usize {
        self.shape.seq_len
    }

    /// The loss of each token, in nats, zero where it is masked: `[B, T]`.
    ///
    /// # Panics
    /// When the micro-batch is not of this pass' size, or a token is not in the vocabulary.
    pub fn losses(&mut self, cpu: &Cpu, weights: &[f32], batch: MicroBatch<'_>) -> &[f32] {
        self.forward(cpu, weights, batch);
        self.head(cpu, weights, batch, None);
        &self.losses
    }

    /// The same, and adds gradients of `Σ scales·losses` to `grads`.
    ///
    /// # Panics
    /// When the micro-batch is not of this pass' size, or a token is not in the vocabulary.
    pub fn losses_and_grads(
        &mut self,
        cpu: &Cpu,
        weights: &[f32],
        batch: MicroBatch<'_>,
        grads: &mut Grads,
    ) -> &[f32] {
        self.forward(cpu, weights, batch);
        self.add_grads(cpu, weights, batch, None, grads);
        &self.losses
    }

    /// Scores of tokens by the layout's scoring row, `[B, T]`: from the pass that [`Pass::losses`] made, if `batch` is
    /// `None`, else from one of its own, which needs no targets.
    ///
    /// # Panics
    /// When the micro-batch is not of this pass' size, a token is not in the vocabulary, or the layout has no such row.
    pub fn scores(
        &mut self,
        cpu: &Cpu,
        weights: &[f32],
        batch: Option<MicroBatch<'_>>,
    ) -> Vec<f32> {
        if let Some(batch) = batch {
            self.forward(cpu, weights, batch);
        }
        let row = self.layout.score().expect("a layout with a scoring row");
        let norm = &weights[self.layout.span(WeightId::Norm)];
        rmsnorm(cpu, &self.x, norm, self.layout.config().norm_eps, &mut self.between.normed);
        score::forward(&self.between.normed, &weights[row])
    }

    /// Adds gradients of `Σ scales·losses + Σ d_scores·scores` to `grads`, for the very batch whose [`Pass::losses`] or
    /// [`Pass::scores`] were asked for last. A scale may be of any sign, so any loss that is a function of the
    /// tokens' log-probabilities has its gradient here: its derivative by a loss is that token's scale.
    ///
    /// # Panics
    /// When sizes are not this pass', or there are `d_scores` and the layout has no scoring row.
    pub fn add_grads(
        &mut self,
        cpu: &Cpu,
        weights: &[f32],
        batch: MicroBatch<'_>,
        d_scores: Option<&[f32]>,
        grads: &mut Grads,
    ) {
        self.head(cpu, weights, batch, Some(Back { grads, d_scores }));
        for idx in (0..self.layout.config().n_layers).rev() {
            let w = Layer {
                spans: self.layout.layer(idx),
                weights,
                eps: self.layout.config().norm_eps,
            };
            let place = self.place(idx);
            if self.is_recomputing() {
                self.saved[0].x.copy_from_slice(&self.inputs[idx]);
                self.block(cpu, &w, place, batch.starts);
            }
            self.block_backward(cpu, &w, place, batch.starts, &mut grads.weights);
        }
        let table = self.layout.span(WeightId::TokEmbeddings);
        embedding_backward(cpu, batch.tokens, &self.dx, &mut grads.weights[table]);
    }

    fn is_recomputing(&self) -> bool {
        !self.inputs.is_empty()
    }

    /// Which of `saved` is a block's.
    fn place(&self, layer_idx: usize) -> usize {
        if self.is_recomputing() { 0 } else { layer_idx }
    }

    /// From tokens to the residual stream behind the last block.
    fn forward(&mut self, cpu: &Cpu, weights: &[f32], batch: MicroBatch<'_>) {
        let n = self.shape.n_rows();
        assert_eq!(weights.len(), self.layout.len(), "weights of the network");
        for (what, len) in [
            ("tokens", batch.tokens.len()),
            ("targets", batch.targets.len()),
            ("scales", batch.scales.len()),
        ] {
            assert_eq!(
                len, n,
                "{what} of {} sequences of {}",
                self.shape.n_seqs, self.shape.seq_len
            );
        }
        let table = &weights[self.layout.span(WeightId::TokEmbeddings)];
        embedding(cpu, table, batch.tokens, &mut self.x);
        for idx in 0..self.layout.config().n_layers {
            let w = Layer {
                spans: self.layout.layer(idx),
                weights,
                eps: self.layout.config().norm_eps,
            };
            let place = self.place(idx);
            self.saved[place].x.copy_from_slice(&self.x);
            if self.is_recomputing() {
                self.inputs[idx].copy_from_slice(&self.x);
            }
            self.block(cpu, &w, place, batch.starts);
        }
    }

    /// One block: from `saved.x` to the residual stream `x`, keeping what the way back needs.
    fn block(&mut self, cpu: &Cpu, w: &Layer<'_>, place: usize, starts: Option<&[u32]>) {
        let c = self.layout.config();
        let (n, d, f, q) = (self.shape.n_rows(), c.dim, c.hidden_dim, c.q_dim());
        let Saved { x, groups, heads, log_sums, x_mid, gate_up } = &mut self.saved[place];
        let Between { products, normed, wide, qkv, .. } = &mut self.between;
        let product = |products: &mut Products, x: &[f32], w: &[f32], y: &mut [f32], out| {
            let (cols, rows) = (x.len() / n, y.len() / n);
            products.gemm(cpu, Mat::new(x, n, cols), Mat::new(w, rows, cols).t(), y, out);
        };

        // Attention.
        rmsnorm(cpu, x, w.attn_norm(), w.eps, normed);
        product(products, normed, w.wqkv(), qkv, Out::Set);
        rows_to_groups(cpu, self.shape, &self.table, qkv, groups);
        attention(cpu, self.precision, self.shape, groups, starts, heads, log_sums);
        let rows = &mut wide[..n * q];
        heads_to_rows(cpu, self.shape, heads, rows);
        x_mid.copy_from_slice(x);
        product(products, rows, w.wo(), x_mid, Out::Add);

        // Feed-forward.
        rmsnorm(cpu, x_mid, w.ffn_norm(), w.eps, normed);
        product(products, normed, w.w_gate_up(), gate_up, Out::Set);
        let act = &mut wide[..n * f];
        swiglu(cpu, f, gate_up, act);
        debug_assert_eq!(self.x.len(), n * d);
        self.x.copy_from_slice(x_mid);
        product(products, act, w.w_down(), &mut self.x, Out::Add);
    }

    /// The way back through one block: from the gradient of its output to that of its input, both in `dx`.
    fn block_backward(
        &mut self,
        cpu: &Cpu,
        w: &Layer<'_>,
        place: usize,
        starts: Option<&[u32]>,
        grads: &mut [f32],
    ) {
        let c = self.layout.config();
        let (shape, n, f, q) = (self.shape, self.shape.n_rows(), c.hidden_dim, c.q_dim());
        let precision = self.precision;
        let Saved { x, groups, heads, log_sums, x_mid, gate_up } = &self.saved[place];
        let Between {
            products,
            normed,
            d_normed,
            wide,
            d_wide,
            d_widest,
            qkv,
            d_heads,
            norm_scales,
            ..
        } = &mut self.between;
        let dx = &mut self.dx;

        // Feed-forward.
        let (act, d_act) = (&mut wide[..n * f], &mut d_wide[..n * f]);
        let d_gate_up = &mut d_widest[..n * 2 * f];
        swiglu(cpu, f, gate_up, act);
        weight_grad(cpu, products, shape, dx, act, &mut grads[w.spans.w_down.clone()]);
        input_grad(cpu, products, n, dx, w.w_down(), d_act);
        swiglu_backward(cpu, f, gate_up, d_act, d_gate_up);
        rmsnorm(cpu, x_mid, w.ffn_norm(), w.eps, normed);
        weight_grad(cpu, products, shape, d_gate_up, normed, &mut grads[w.spans.w_gate_up.clone()]);
        input_grad(cpu, products, n, d_gate_up, w.w_gate_up(), d_normed);
        let dw = &mut grads[w.spans.ffn_norm.clone()];
        rmsnorm_backward(cpu, x_mid, w.ffn_norm(), w.eps, d_normed, dx, dw, norm_scales);

        // Attention.
        let (rows, d_rows) = (&mut wide[..n * q], &mut d_wide[..n * q]);
        heads_to_rows(cpu, shape, heads, rows);
        weight_grad(cpu, products, shape, dx, rows, &mut grads[w.spans.wo.clone()]);
        input_grad(cpu, products, n, dx, w.wo(), d_rows);
        rows_to_heads(cpu, shape, d_rows, d_heads);
        let d_groups = &mut d_widest[..n * shape.row_len()];
        attention_backward(
            cpu, precision, shape, groups, starts, heads, log_sums, d_heads, d_groups,
        );
        groups_to_rows(cpu, shape, &self.table, d_groups, qkv);
        rmsnorm(cpu, x, w.attn_norm(), w.eps, normed);
        weight_grad(cpu, products, shape, qkv, normed, &mut grads[w.spans.wqkv.clone()]);
        input_grad(cpu, products, n, qkv, w.wqkv(), d_normed);
        let dw = &mut grads[w.spans.attn_norm.clone()];
        rmsnorm_backward(cpu, x, w.attn_norm(), w.eps, d_normed, dx, dw, norm_scales);
    }

    /// The last norm, the output matrix and the losses; with `grads` also the gradient of the residual stream, into
    /// `dx`. Logits of all tokens are never in memory together.
    fn head(
        &mut self,
        cpu: &Cpu,
        weights: &[f32],
        batch: MicroBatch<'_>,
        mut back: Option<Back<'_>>,
    ) {
        let c = self.layout.config();
        let (n, d, v) = (self.shape.n_rows(), c.dim, c.vocab_size);
        let norm = self.layout.span(WeightId::Norm);
        let output = match c.tied_output {
            true => self.layout.span(WeightId::TokEmbeddings),
            false => self.layout.span(WeightId::Output),
        };
        let w = Mat::new(&weights[output.clone()], v, d);
        let Between { products, normed, d_normed, norm_scales, logits, .. } = &mut self.between;
        rmsnorm(cpu, &self.x, &weights[norm.clone()], c.norm_eps, normed);
        for rows in row_runs(self.shape).flat_map(|run| cut(run, LOGIT_ROWS)) {
            let (x, logits) =
                (&normed[rows.start * d..rows.end * d], &mut logits[..rows.len() * v]);
            let x = Mat::new(x, rows.len(), d);
            let (targets, scales) = (&batch.targets[rows.clone()], &batch.scales[rows.clone()]);
            // Nothing to learn here: a prompt, a filler, or all of a reward model's tokens.
            if scales.iter().all(|&scale| scale == 0.0) {
                self.losses[rows.clone()].fill(0.0);
                if back.is_some() {
                    d_normed[rows.start * d..rows.end * d].fill(0.0);
                }
                continue;
            }
            products.gemm(cpu, x, w.t(), logits, Out::Set);
            cross_entropy(cpu, logits, targets, scales, &mut self.losses[rows.clone()]);
            if let Some(Back { grads, .. }) = &mut back {
                let d_logits = Mat::new(logits, rows.len(), v);
                let dx = &mut d_normed[rows.start * d..rows.end * d];
                products.gemm(cpu, d_logits, w, dx, Out::Set);
                let dw = match c.tied_output {
                    true => &mut grads.tied[..],
                    false => &mut grads.weights[output.clone()],
                };
                products.gemm(cpu, d_logits.t(), x, dw, Out::Add);
            }
        }
        if let Some(Back { grads, d_scores }) = back {
            if let Some(d_scores) = d_scores {
                let row = self.layout.score().expect("a layout with a scoring row");
                let dw = &mut grads.weights[row.clone()];
                score::backward_acc(normed, &weights[row], d_scores, d_normed, dw);
            }
            debug_assert_eq!(self.dx.len(), n * d);
            self.dx.fill(0.0);
            let (x, dw) = (&self.x, &mut grads.weights[norm.clone()]);
            let (w, dx) = (&weights[norm], &mut self.dx);
            rmsnorm_backward(cpu, x, w, c.norm_eps, d_normed, dx, dw, norm_scales);
        }
    }
}

/// Where gradients go, and those of scores, `[B, T]`, if tokens are scored.
struct Back<'a> {
    grads: &'a mut Grads,
    d_scores: Option<&'a [f32]>,
}

/// A block's weights.
struct Layer<'a> {
    spans: LayerSpans,
    weights: &'a [f32],
    eps: f32,
}

macro_rules! tensors {
    ($($name:ident),*) => {
        impl<'a> Layer<'a> {
            $(fn $name(&self) -> &'a [f32] {
                &self.weights[self.spans.$name.clone()]
            })*
        }
    };
}

tensors!(attn_norm, wqkv, wo, ffn_norm, w_gate_up, w_down);

/// `dx[t, k] = Σ_r dy[t, r]·w[r, k]`
fn input_grad(cpu: &Cpu, products: &mut Products, n: usize, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (rows, cols) = (dy.len() / n, dx.len() / n);
    products.gemm(cpu, Mat::new(dy, n, rows), Mat::new(w, rows, cols), dx, Out::Set);
}

/// `dw[r, k] += Σ_t dy[t, r]·x[t, k]`, sequence by sequence.
fn weight_grad(
    cpu: &Cpu,
    products: &mut Products,
    shape: HeadShape,
    dy: &[f32],
    x: &[f32],
    dw: &mut [f32],
) {
    let (rows, cols) = (dy.len() / shape.n_rows(), x.len() / shape.n_rows());
    for run in row_runs(shape) {
        let dy = Mat::new(&dy[run.start * rows..run.end * rows], run.len(), rows);
        let x = Mat::new(&x[run.start * cols..run.end * cols], run.len(), cols);
        products.gemm(cpu, dy.t(), x, dw, Out::Add);
    }
}

/// Stretches of rows over which a product may sum at once: sequences; all of them together, where its blocks of terms
/// never reach from one into the next, which gives the same sums.
fn row_runs(shape: HeadShape) -> impl Iterator<Item = Range<usize>> {
    let n = shape.n_rows();
    let run = if shape.seq_len.is_multiple_of(BLOCK_K) { n.max(1) } else { shape.seq_len };
    cut(0..n, run)
}

/// Cuts a range into pieces of `len`; the last may be shorter.
fn cut(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(len).map(move |start| start..range.end.min(start + len))
}
