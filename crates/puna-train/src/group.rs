//! A block, and what is behind the last one, for some sequences of a micro-batch.
//!
//! # Where time would go
//! To memory. So a block is run by one group of a few sequences after the other, and within a group a task takes
//! some rows through all steps up to the next that looks beyond a row: what lies between its products stays
//! in a core's own cache. Inside a task, operations run on its thread alone. Weights are packed once for all groups.

use std::ops::Range;

use puna_core::ModelConfig;
use puna_kernels::{Buffer, Cpu, RopeTable, rmsnorm, with_scratch};
use puna_ops::{
    BLOCK_K, Factor, HeadShape, Mat, Out, Precision, Products, attention, attention_backward,
    cross_entropy, cut, groups_to_rows, heads_to_rows, rmsnorm_backward, round_row, rounded_len,
    rows_to_groups, rows_to_heads, swiglu, swiglu_backward, task_rows,
};

use crate::pass::MicroBatch;
use crate::score;
use crate::weights::{LayerSpans, Layout};

/// Tokens whose logits are in memory at once: whole blocks of terms, so that it does not change the sums.
pub(crate) const LOGIT_ROWS: usize = 2 * BLOCK_K;

/// Rows of a group, about: what lies between the steps of a block then stays in a cache that cores share.
pub(crate) const GROUP_ROWS: usize = 512;

/// What the backward pass of a block needs of its forward pass. Everything else is cheap to compute again.
#[derive(Debug, Default)]
struct Saved {
    /// Turned queries and keys, and values, `[B, K, N/K + 2, T, H]`.
    groups: Buffer,
    /// Attention's outputs `[B, N, T, H]`, and logarithms of its denominators `[B, N, T]`.
    heads: Buffer,
    log_sums: Buffer,
    /// After attention, `[B·T, D]`.
    x_mid: Buffer,
    /// `[B·T, 2F]`
    gate_up: Buffer,
}

/// Some of a micro-batch's sequences, which pass through a block together.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its rows in the micro-batch.
    pub rows: Range<usize>,
    pub shape: HeadShape,
    /// For each block; with recomputation one for all.
    saved: Vec<Saved>,
    /// The residual stream before each block and behind the last, `[B·T, D]`.
    pub xs: Vec<Buffer>,
    /// Its gradient.
    pub dx: Buffer,
}

impl Group {
    /// Sequences of this shape, which are these rows of the micro-batch.
    pub(crate) fn new(
        c: &ModelConfig,
        shape: HeadShape,
        rows: Range<usize>,
        recompute: bool,
    ) -> Self {
        let floats = |per_row: usize| Buffer::zeros(shape.n_rows() * per_row);
        let saved = (0..if recompute { 1 } else { c.n_layers }).map(|_| Saved {
            groups: floats(shape.row_len()),
            heads: floats(c.q_dim()),
            log_sums: floats(c.n_heads),
            x_mid: floats(c.dim),
            gate_up: floats(2 * c.hidden_dim),
        });
        let saved = saved.collect();
        let xs = (0..=c.n_layers).map(|_| floats(c.dim)).collect();
        Self { rows, shape, saved, xs, dx: floats(c.dim) }
    }
}

/// Memory between the steps of a block.
#[derive(Debug)]
pub(crate) struct Between {
    pub factors: Factors,
    products: Products,
    /// `[B·T, D]` each.
    pub normed: Buffer,
    d_normed: Buffer,
    /// `[B·T, max(N·H, F)]`
    wide: Buffer,
    /// `[B·T, N·H]`
    d_rows: Buffer,
    /// `[B·T, max((N + 2K)·H, 2F)]`
    d_widest: Buffer,
    /// `[B·T, (N + 2K)·H]`
    qkv: Buffer,
    /// `[B, N, T, H]`
    d_heads: Buffer,
    /// `[B·T]`
    norm_scales: Buffer,
    /// Gradients of a piece's logits, rounded where products round them.
    d_logits: Buffer,
}

/// Floats that a row of [`Between::d_logits`] takes.
fn logits_len(vocab_size: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 => vocab_size,
        Precision::Bf16 => rounded_len(vocab_size),
    }
}

impl Between {
    /// For groups of this shape, and smaller ones.
    pub(crate) fn new(c: &ModelConfig, shape: HeadShape, precision: Precision) -> Self {
        let n = shape.n_rows();
        let floats = |per_row: usize| Buffer::zeros(n * per_row);
        let (d, f, q) = (c.dim, c.hidden_dim, c.q_dim());
        Self {
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
            d_logits: Buffer::zeros(LOGIT_ROWS.min(n) * logits_len(c.vocab_size, precision)),
        }
    }
}

/// Weights as right factors of products: their transposes on the way forward, themselves on the way back.
#[derive(Debug)]
pub(crate) struct Factors {
    precision: Precision,
    wqkv: Factor,
    wo: Factor,
    w_gate_up: Factor,
    w_down: Factor,
    /// The output matrix both ways.
    pub output: Factor,
    pub output_back: Factor,
}

impl Factors {
    fn new(precision: Precision) -> Self {
        let empty = || Factor::new(precision);
        Self {
            precision,
            wqkv: empty(),
            wo: empty(),
            w_gate_up: empty(),
            w_down: empty(),
            output: empty(),
            output_back: empty(),
        }
    }

    /// A block's, all turned by `side`.
    pub(crate) fn pack<'a>(&mut self, cpu: &Cpu, w: &Layer<'a>, side: impl Fn(Mat<'a>) -> Mat<'a>) {
        let c = w.config;
        let pack =
            |factor: &mut Factor, w, rows, cols| factor.pack(cpu, side(Mat::new(w, rows, cols)));
        pack(&mut self.wqkv, w.wqkv(), w.wqkv().len() / c.dim, c.dim);
        pack(&mut self.wo, w.wo(), c.dim, c.q_dim());
        pack(&mut self.w_gate_up, w.w_gate_up(), 2 * c.hidden_dim, c.dim);
        pack(&mut self.w_down, w.w_down(), c.dim, c.hidden_dim);
    }
}

/// Where the gradients of what is behind the last block go.
pub(crate) struct HeadGrads<'a> {
    pub output: &'a mut [f32],
    pub norm: &'a mut [f32],
    pub scored: Option<Scored<'a>>,
}

/// The scoring row, the gradients of a group's scores, and where the row's own goes.
pub(crate) struct Scored<'a> {
    pub row: &'a [f32],
    pub d_scores: &'a [f32],
    pub d_row: &'a mut [f32],
}

/// What a group computes with.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    pub cpu: &'a Cpu,
    pub precision: Precision,
    pub table: &'a RopeTable,
}

impl Group {
    /// Which of `saved` is a block's.
    fn place(&self, layer_idx: usize) -> usize {
        layer_idx.min(self.saved.len() - 1)
    }

    /// One block, from its input to its output in `xs`.
    pub(crate) fn block(
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
    pub(crate) fn block_backward(
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
                let dy = Mat::new(&dy[rows.start * d..rows.end * d], n, d);
                factors.w_down.product(cpu, dy, act, Out::Set);
                swiglu_backward(cpu, f, gate_up, act, d_gate_up);
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
    pub(crate) fn head(
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
        let Between { factors, products, normed, d_normed, norm_scales, d_logits, .. } = between;
        let precision = factors.precision;
        let (normed, d_normed) = (&mut normed[..n * d], &mut d_normed[..n * d]);
        rmsnorm(cpu, x, norm, c.norm_eps, normed);
        for piece in row_runs(self.shape).flat_map(|run| cut(run, LOGIT_ROWS)) {
            let d_logits = &mut d_logits[..piece.len() * logits_len(v, precision)];
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
            run_rows(
                cpu,
                piece.len(),
                [&mut *d_logits, losses, dx],
                |rows, [d_logits, losses, dx]| {
                    let n = rows.len();
                    let x = Mat::new(&x[rows.start * d..rows.end * d], n, d);
                    let (targets, scales) = (&targets[rows.clone()], &scales[rows]);
                    match precision {
                        Precision::F32 => {
                            factors.output.product(cpu, x, d_logits, Out::Set);
                            cross_entropy(cpu, d_logits, targets, scales, losses);
                        }
                        // Rounded as products would: fewer bytes to write, and to read twice.
                        Precision::Bf16 => with_scratch(n * v, |logits| {
                            factors.output.product(cpu, x, logits, Out::Set);
                            let rows =
                                logits.chunks_mut(v).zip(d_logits.chunks_mut(rounded_len(v)));
                            for (i, (logits, d_logits)) in rows.enumerate() {
                                let one = i..i + 1;
                                let (targets, scales) =
                                    (&targets[one.clone()], &scales[one.clone()]);
                                cross_entropy(cpu, logits, targets, scales, &mut losses[one]);
                                round_row(cpu, logits, d_logits);
                            }
                        }),
                    }
                    if has_grads {
                        let d_logits = logits_mat(d_logits, n, v, precision);
                        factors.output_back.product(cpu, d_logits, dx, Out::Set);
                    }
                },
            );
            if let Some(HeadGrads { output: dw, .. }) = &mut back {
                let x = Mat::new(x, piece.len(), d);
                let d_logits = logits_mat(d_logits, piece.len(), v, precision);
                products.gemm(cpu, d_logits.t(), x, dw, Out::Add);
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

/// Rows of [`Between::d_logits`].
fn logits_mat(d_logits: &[f32], rows: usize, vocab_size: usize, precision: Precision) -> Mat<'_> {
    match precision {
        Precision::F32 => Mat::new(d_logits, rows, vocab_size),
        Precision::Bf16 => Mat::rounded(d_logits, rows, vocab_size),
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
pub(crate) struct Layer<'a> {
    spans: LayerSpans,
    weights: &'a [f32],
    config: &'a ModelConfig,
}

impl<'a> Layer<'a> {
    pub(crate) fn new(layout: &'a Layout, weights: &'a [f32], idx: usize) -> Self {
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
