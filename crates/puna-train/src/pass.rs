//! A pass of whole sequences through the network, forward and back.
//!
//! Gradients accumulate into f32 one sequence at a time, in order; norms and embeddings row by row. So a batch may be
//! cut into micro-batches anywhere and the gradients are the same bits.
//!
//! # Where time would go
//! To memory. So a block is run by one group of a few sequences after the other, and within a group a task takes
//! some rows through all steps up to the next that looks beyond a row: what lies between its products stays
//! in a core's own cache. Inside a task, operations run on its thread alone. Weights are packed once for all groups.

use std::convert::identity;
use std::ops::Range;

use puna_core::{ModelConfig, WeightId};
use puna_kernels::{Cpu, RopeTable, add, rmsnorm, with_scratch};
use puna_ops::{
    BLOCK_K, Factor, HeadShape, Mat, Out, Precision, Products, attention, attention_backward,
    cross_entropy, embedding, embedding_backward, groups_to_rows, heads_to_rows, rmsnorm_backward,
    rows_to_groups, rows_to_heads, swiglu, swiglu_backward, task_rows,
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

/// Rows of a group, about: what lies between the steps of a block then stays in a cache that cores share.
pub(crate) const GROUP_ROWS: usize = 512;

/// What the backward pass of a block needs of its forward pass. Everything else is cheap to compute again.
#[derive(Debug, Default)]
struct Saved {
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

/// Some of a micro-batch's sequences, which pass through a block together.
#[derive(Debug)]
struct Group {
    /// Its rows in the micro-batch.
    rows: Range<usize>,
    shape: HeadShape,
    /// For each block; with recomputation one for all.
    saved: Vec<Saved>,
    /// The residual stream before each block and behind the last, `[B·T, D]`.
    xs: Vec<Vec<f32>>,
    /// Its gradient.
    dx: Vec<f32>,
}

/// Memory between the steps of a block.
#[derive(Debug)]
struct Between {
    factors: Factors,
    products: Products,
    /// `[B·T, D]` each.
    normed: Vec<f32>,
    d_normed: Vec<f32>,
    /// `[B·T, max(N·H, F)]`
    wide: Vec<f32>,
    /// `[B·T, N·H]`
    d_rows: Vec<f32>,
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

/// Weights as right factors of products: their transposes on the way forward, themselves on the way back.
#[derive(Debug)]
struct Factors {
    wqkv: Factor,
    wo: Factor,
    w_gate_up: Factor,
    w_down: Factor,
    /// The output matrix both ways.
    output: Factor,
    output_back: Factor,
}

impl Factors {
    fn new(precision: Precision) -> Self {
        let empty = || Factor::new(precision);
        Self {
            wqkv: empty(),
            wo: empty(),
            w_gate_up: empty(),
            w_down: empty(),
            output: empty(),
            output_back: empty(),
        }
    }

    /// A block's, all turned by `side`.
    fn pack<'a>(&mut self, cpu: &Cpu, w: &Layer<'a>, side: impl Fn(Mat<'a>) -> Mat<'a>) {
        let c = w.config;
        let pack =
            |factor: &mut Factor, w, rows, cols| factor.pack(cpu, side(Mat::new(w, rows, cols)));
        pack(&mut self.wqkv, w.wqkv(), w.wqkv().len() / c.dim, c.dim);
        pack(&mut self.wo, w.wo(), c.dim, c.q_dim());
        pack(&mut self.w_gate_up, w.w_gate_up(), 2 * c.hidden_dim, c.dim);
        pack(&mut self.w_down, w.w_down(), c.dim, c.hidden_dim);
    }
}

/// A network's passes over micro-batches of a fixed size, and the memory they take.
#[derive(Debug)]
pub struct Pass {
    layout: Layout,
    shape: HeadShape,
    precision: Precision,
    table: RopeTable,
    recompute: bool,
    groups: Vec<Group>,
    between: Between,
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
        let &ModelConfig { n_heads, n_kv_heads, head_dim, n_layers, .. } = config;
        let shape = HeadShape { n_seqs, seq_len, n_heads, n_kv_heads, head_dim };
        let freqs = puna_model::frequencies(config, seq_len);
        let table = RopeTable::new(&freqs, seq_len, puna_model::magnitude(config));
        let group_seqs = (GROUP_ROWS / seq_len).clamp(1, n_seqs);
        let (d, f, q) = (config.dim, config.hidden_dim, config.q_dim());
        let group = |seqs: Range<usize>| {
            let shape = HeadShape { n_seqs: seqs.len(), ..shape };
            let floats = |per_row: usize| vec![0.0; shape.n_rows() * per_row];
            let saved = (0..if recompute { 1 } else { n_layers }).map(|_| Saved {
                groups: floats(shape.row_len()),
                heads: floats(q),
                log_sums: floats(n_heads),
                x_mid: floats(d),
                gate_up: floats(2 * f),
            });
            Group {
                rows: seqs.start * seq_len..seqs.end * seq_len,
                shape,
                saved: saved.collect(),
                xs: (0..=n_layers).map(|_| floats(d)).collect(),
                dx: floats(d),
            }
        };
        let n = group_seqs * seq_len;
        let floats = |per_row: usize| vec![0.0; n * per_row];
        let between = Between {
            factors: Factors::new(precision),
            products: Products::new(precision),
            normed: floats(d),
            d_normed: floats(d),
            wide: floats(q.max(f)),
            d_rows: floats(q),
            d_widest: floats(shape.row_len().max(2 * f)),
            qkv: floats(shape.row_len()),
            d_heads: floats(q),
            norm_scales: floats(1),
            logits: vec![0.0; LOGIT_ROWS.min(n) * config.vocab_size],
        };
        Self {
            shape,
            precision,
            table,
            recompute,
            groups: cut(0..n_seqs, group_seqs).map(group).collect(),
            between,
            losses: vec![0.0; shape.n_rows()],
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
        let c = self.layout.config();
        let row = &weights[self.layout.score().expect("a layout with a scoring row")];
        let norm = &weights[self.layout.span(WeightId::Norm)];
        let mut scores = Vec::with_capacity(self.shape.n_rows());
        for group in &self.groups {
            let normed = &mut self.between.normed[..group.shape.n_rows() * c.dim];
            rmsnorm(cpu, &group.xs[c.n_layers], norm, c.norm_eps, normed);
            scores.extend(score::forward(normed, row));
        }
        scores
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
            if self.recompute {
                self.block(cpu, weights, batch, idx);
            }
            self.block_backward(cpu, weights, batch, idx, &mut grads.weights);
        }
        let table = &mut grads.weights[self.layout.span(WeightId::TokEmbeddings)];
        for group in &self.groups {
            embedding_backward(cpu, &batch.tokens[group.rows.clone()], &group.dx, table);
        }
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
        for group in &mut self.groups {
            embedding(cpu, table, &batch.tokens[group.rows.clone()], &mut group.xs[0]);
        }
        for idx in 0..self.layout.config().n_layers {
            self.block(cpu, weights, batch, idx);
        }
    }

    /// One block, from its input to its output, keeping what the way back needs.
    fn block(&mut self, cpu: &Cpu, weights: &[f32], batch: MicroBatch<'_>, idx: usize) {
        let w = Layer::new(&self.layout, weights, idx);
        self.between.factors.pack(cpu, &w, Mat::t);
        let how = How { cpu, precision: self.precision, table: &self.table };
        for group in &mut self.groups {
            group.block(how, &w, idx, batch.starts, &mut self.between);
        }
    }

    /// The way back through one block.
    fn block_backward(
        &mut self,
        cpu: &Cpu,
        weights: &[f32],
        batch: MicroBatch<'_>,
        idx: usize,
        grads: &mut [f32],
    ) {
        let w = Layer::new(&self.layout, weights, idx);
        self.between.factors.pack(cpu, &w, identity);
        let how = How { cpu, precision: self.precision, table: &self.table };
        for group in &mut self.groups {
            group.block_backward(how, &w, idx, batch.starts, &mut self.between, grads);
        }
    }

    /// The last norm, the output matrix and the losses; on the way back also the gradient of the residual stream, into
    /// `dx`.
    fn head(
        &mut self,
        cpu: &Cpu,
        weights: &[f32],
        batch: MicroBatch<'_>,
        mut back: Option<Back<'_>>,
    ) {
        let c = self.layout.config();
        let score = self.layout.score();
        let norm = self.layout.span(WeightId::Norm);
        let output = match c.tied_output {
            true => self.layout.span(WeightId::TokEmbeddings),
            false => self.layout.span(WeightId::Output),
        };
        let w = Mat::new(&weights[output.clone()], c.vocab_size, c.dim);
        let Factors { output: factor, output_back, .. } = &mut self.between.factors;
        // A network that only scores has no use for its output matrix.
        if batch.scales.iter().any(|&scale| scale != 0.0) {
            factor.pack(cpu, w.t());
            if back.is_some() {
                output_back.pack(cpu, w);
            }
        }
        for group in &mut self.groups {
            let back = back.as_mut().map(|Back { grads, d_scores }| {
                let Grads { weights: dw, tied } = &mut **grads;
                let spans = [norm.clone(), score.clone().unwrap_or(0..0)];
                let (output, [norm, d_score]) = match c.tied_output {
                    true => (&mut tied[..], dw.get_disjoint_mut(spans).expect("two weights")),
                    false => {
                        let [norm, score] = spans;
                        let spans = [output.clone(), norm, score];
                        let [output, norm, score] =
                            dw.get_disjoint_mut(spans).expect("three weights");
                        (output, [norm, score])
                    }
                };
                let scored = d_scores.map(|d_scores| Scored {
                    row: &weights[score.clone().expect("a layout with a scoring row")],
                    d_scores: &d_scores[group.rows.clone()],
                    d_row: d_score,
                });
                HeadGrads { output, norm, scored }
            });
            let of_group = MicroBatch {
                targets: &batch.targets[group.rows.clone()],
                scales: &batch.scales[group.rows.clone()],
                ..batch
            };
            let losses = &mut self.losses[group.rows.clone()];
            let norm = &weights[norm.clone()];
            group.head(cpu, c, norm, of_group, &mut self.between, losses, back);
        }
    }
}

/// Where gradients go, and those of scores, `[B, T]`, if tokens are scored.
struct Back<'a> {
    grads: &'a mut Grads,
    d_scores: Option<&'a [f32]>,
}

/// Where the gradients of what is behind the last block go.
struct HeadGrads<'a> {
    output: &'a mut [f32],
    norm: &'a mut [f32],
    scored: Option<Scored<'a>>,
}

/// The scoring row, the gradients of a group's scores, and where the row's own goes.
struct Scored<'a> {
    row: &'a [f32],
    d_scores: &'a [f32],
    d_row: &'a mut [f32],
}

/// What a group computes with.
#[derive(Clone, Copy)]
struct How<'a> {
    cpu: &'a Cpu,
    precision: Precision,
    table: &'a RopeTable,
}

impl Group {
    /// Which of `saved` is a block's.
    fn place(&self, layer_idx: usize) -> usize {
        layer_idx.min(self.saved.len() - 1)
    }

    /// One block, from its input to its output in `xs`.
    fn block(
        &mut self,
        how: How<'_>,
        w: &Layer<'_>,
        idx: usize,
        starts: Option<&[u32]>,
        between: &mut Between,
    ) {
        let How { cpu, precision, table } = how;
        let (d, f, q) = (w.config.dim, w.config.hidden_dim, w.config.q_dim());
        let (shape, n, eps) = (self.shape, self.shape.n_rows(), w.config.norm_eps);
        let starts = starts.map(|starts| &starts[self.rows.clone()]);
        let place = self.place(idx);
        let Saved { groups, heads, log_sums, x_mid, gate_up } = &mut self.saved[place];
        let (before, behind) = self.xs.split_at_mut(idx + 1);
        let (x, out) = (&before[idx], &mut behind[0]);
        let Between { factors, qkv, wide, .. } = between;
        let (qkv, attended) = (&mut qkv[..n * shape.row_len()], &mut wide[..n * q]);

        // Attention.
        run_rows(cpu, n, [qkv], |rows, [qkv]| {
            with_scratch(rows.len() * d, |normed| {
                rmsnorm(cpu, &x[rows.start * d..rows.end * d], w.attn_norm(), eps, normed);
                factors.wqkv.product(cpu, Mat::new(normed, rows.len(), d), qkv, Out::Set);
            });
        });
        rows_to_groups(cpu, shape, table, qkv, groups);
        attention(cpu, precision, shape, groups, starts, heads, log_sums);
        heads_to_rows(cpu, shape, heads, attended);

        // Rows from there on.
        run_rows(cpu, n, [x_mid, gate_up, out], |rows, [x_mid, gate_up, out]| {
            let n = rows.len();
            x_mid.copy_from_slice(&x[rows.start * d..rows.end * d]);
            let attended = Mat::new(&attended[rows.start * q..rows.end * q], n, q);
            factors.wo.product(cpu, attended, x_mid, Out::Add);
            with_scratch(n * d, |normed| {
                rmsnorm(cpu, x_mid, w.ffn_norm(), eps, normed);
                factors.w_gate_up.product(cpu, Mat::new(normed, n, d), gate_up, Out::Set);
            });
            out.copy_from_slice(x_mid);
            with_scratch(n * f, |act| {
                swiglu(cpu, f, gate_up, act);
                factors.w_down.product(cpu, Mat::new(act, n, f), out, Out::Add);
            });
        });
    }

    /// The way back through one block: from the gradient of its output to that of its input, both in `dx`.
    fn block_backward(
        &mut self,
        how: How<'_>,
        w: &Layer<'_>,
        idx: usize,
        starts: Option<&[u32]>,
        between: &mut Between,
        grads: &mut [f32],
    ) {
        let How { cpu, precision, table } = how;
        let (d, f, q) = (w.config.dim, w.config.hidden_dim, w.config.q_dim());
        let (shape, n, eps) = (self.shape, self.shape.n_rows(), w.config.norm_eps);
        let starts = starts.map(|starts| &starts[self.rows.clone()]);
        let place = self.place(idx);
        let Saved { groups, heads, log_sums, x_mid, gate_up } = &self.saved[place];
        let (x, dx) = (&self.xs[idx], &mut self.dx);
        let Between { factors, products, normed, d_normed, wide, d_rows, .. } = between;
        let Between { d_widest, qkv, d_heads, norm_scales, .. } = between;
        let (normed, d_normed) = (&mut normed[..n * d], &mut d_normed[..n * d]);
        let (d_rows, d_heads) = (&mut d_rows[..n * q], &mut d_heads[..n * q]);
        let (d_qkv, norm_scales) = (&mut qkv[..n * shape.row_len()], &mut norm_scales[..n]);

        // Feed-forward.
        let (act, d_gate_up) = (&mut wide[..n * f], &mut d_widest[..n * 2 * f]);
        let dy = &dx[..];
        run_rows(
            cpu,
            n,
            [&mut *act, &mut *d_gate_up, &mut *normed, &mut *d_normed],
            |rows, [act, d_gate_up, normed, d_normed]| {
                let n = rows.len();
                let gate_up = &gate_up[rows.start * 2 * f..rows.end * 2 * f];
                swiglu(cpu, f, gate_up, act);
                with_scratch(n * f, |d_act| {
                    let dy = Mat::new(&dy[rows.start * d..rows.end * d], n, d);
                    factors.w_down.product(cpu, dy, d_act, Out::Set);
                    swiglu_backward(cpu, f, gate_up, d_act, d_gate_up);
                });
                factors.w_gate_up.product(cpu, Mat::new(d_gate_up, n, 2 * f), d_normed, Out::Set);
                rmsnorm(cpu, &x_mid[rows.start * d..rows.end * d], w.ffn_norm(), eps, normed);
            },
        );
        weight_grad(cpu, products, shape, dx, act, &mut grads[w.spans.w_down.clone()]);
        weight_grad(cpu, products, shape, d_gate_up, normed, &mut grads[w.spans.w_gate_up.clone()]);
        let dw = &mut grads[w.spans.ffn_norm.clone()];
        rmsnorm_backward(cpu, x_mid, w.ffn_norm(), eps, d_normed, dx, dw, norm_scales);

        // Attention.
        let attended = &mut wide[..n * q];
        heads_to_rows(cpu, shape, heads, attended);
        weight_grad(cpu, products, shape, dx, attended, &mut grads[w.spans.wo.clone()]);
        run_rows(cpu, n, [&mut *d_rows], |rows, [d_rows]| {
            let dx = Mat::new(&dx[rows.start * d..rows.end * d], rows.len(), d);
            factors.wo.product(cpu, dx, d_rows, Out::Set);
        });
        rows_to_heads(cpu, shape, d_rows, d_heads);
        let d_groups = &mut d_widest[..n * shape.row_len()];
        attention_backward(
            cpu, precision, shape, groups, starts, heads, log_sums, d_heads, d_groups,
        );
        groups_to_rows(cpu, shape, table, d_groups, d_qkv);
        run_rows(cpu, n, [&mut *normed, &mut *d_normed], |rows, [normed, d_normed]| {
            let width = shape.row_len();
            let d_qkv = &d_qkv[rows.start * width..rows.end * width];
            factors.wqkv.product(cpu, Mat::new(d_qkv, rows.len(), width), d_normed, Out::Set);
            rmsnorm(cpu, &x[rows.start * d..rows.end * d], w.attn_norm(), eps, normed);
        });
        weight_grad(cpu, products, shape, d_qkv, normed, &mut grads[w.spans.wqkv.clone()]);
        let dw = &mut grads[w.spans.attn_norm.clone()];
        rmsnorm_backward(cpu, x, w.attn_norm(), eps, d_normed, dx, dw, norm_scales);
    }

    /// The last norm, the output matrix and the losses; with gradients of the output matrix and of the norm also the
    /// gradient of the residual stream, into `dx`. Logits of all tokens are never in memory together.
    #[expect(clippy::too_many_arguments, reason = "weights, targets, and what is computed")]
    fn head(
        &mut self,
        cpu: &Cpu,
        c: &ModelConfig,
        norm: &[f32],
        batch: MicroBatch<'_>,
        between: &mut Between,
        losses: &mut [f32],
        mut back: Option<HeadGrads<'_>>,
    ) {
        let (n, d, v) = (self.shape.n_rows(), c.dim, c.vocab_size);
        let x = &self.xs[c.n_layers];
        let Between { factors, products, normed, d_normed, norm_scales, logits, .. } = between;
        let (normed, d_normed) = (&mut normed[..n * d], &mut d_normed[..n * d]);
        rmsnorm(cpu, x, norm, c.norm_eps, normed);
        for piece in row_runs(self.shape).flat_map(|run| cut(run, LOGIT_ROWS)) {
            let logits = &mut logits[..piece.len() * v];
            let of_piece = piece.start * d..piece.end * d;
            let (x, dx) = (&normed[of_piece.clone()], &mut d_normed[of_piece]);
            let (targets, scales) = (&batch.targets[piece.clone()], &batch.scales[piece.clone()]);
            let losses = &mut losses[piece.clone()];
            // Nothing to learn here: a prompt, a filler, or all of a reward model's tokens.
            if scales.iter().all(|&scale| scale == 0.0) {
                losses.fill(0.0);
                dx.fill(0.0);
                continue;
            }
            let has_grads = back.is_some();
            run_rows(cpu, piece.len(), [&mut *logits, losses, dx], |rows, [logits, losses, dx]| {
                let x = Mat::new(&x[rows.start * d..rows.end * d], rows.len(), d);
                factors.output.product(cpu, x, logits, Out::Set);
                cross_entropy(cpu, logits, &targets[rows.clone()], &scales[rows.clone()], losses);
                if has_grads {
                    let d_logits = Mat::new(logits, rows.len(), v);
                    factors.output_back.product(cpu, d_logits, dx, Out::Set);
                }
            });
            if let Some(HeadGrads { output: dw, .. }) = &mut back {
                let x = Mat::new(x, piece.len(), d);
                products.gemm(cpu, Mat::new(logits, piece.len(), v).t(), x, dw, Out::Add);
            }
        }
        if let Some(HeadGrads { norm: dw, scored, .. }) = back {
            if let Some(Scored { row, d_scores, d_row }) = scored {
                score::backward_acc(normed, row, d_scores, d_normed, d_row);
            }
            self.dx.fill(0.0);
            let norm_scales = &mut norm_scales[..n];
            rmsnorm_backward(cpu, x, norm, c.norm_eps, d_normed, &mut self.dx, dw, norm_scales);
        }
    }
}

/// Calls `task` for some rows after the other, on all threads, with those rows of each of the outputs, which have
/// `n_rows` each.
fn run_rows<const N: usize>(
    cpu: &Cpu,
    n_rows: usize,
    outputs: [&mut [f32]; N],
    task: impl Fn(Range<usize>, [&mut [f32]; N]) + Sync,
) {
    let len = task_rows(n_rows, cpu.pool().n_threads());
    let outputs = outputs.map(|output| {
        let width = output.len() / n_rows;
        (output, len * width)
    });
    cpu.pool().run_zip(outputs, &|i, outputs| {
        task(i * len..n_rows.min((i + 1) * len), outputs);
    });
}

/// A block's weights.
struct Layer<'a> {
    spans: LayerSpans,
    weights: &'a [f32],
    config: &'a ModelConfig,
}

impl<'a> Layer<'a> {
    fn new(layout: &'a Layout, weights: &'a [f32], idx: usize) -> Self {
        Self { spans: layout.layer(idx), weights, config: layout.config() }
    }
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
