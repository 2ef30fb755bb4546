//! A pass of whole sequences through the network, forward and back.
//!
//! Gradients accumulate into f32 one sequence at a time, in order; norms and embeddings row by row. So a batch may be
//! cut into micro-batches anywhere and the gradients are the same bits.

use std::convert::identity;
use std::ops::Range;

use puna_core::{ModelConfig, WeightId};
use puna_kernels::{Buffer, Cpu, RopeTable, add, rmsnorm};
use puna_ops::{HeadShape, Mat, Precision, cut, embedding, embedding_backward};

use crate::group::{Between, Factors, GROUP_ROWS, Group, HeadGrads, How, Layer, Scored};
use crate::score;
use crate::weights::Layout;

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
    weights: Buffer,
    tied: Buffer,
}

impl Grads {
    /// Zeros for each weight.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        let config = layout.config();
        let n_tied = if config.tied_output { config.vocab_size * config.dim } else { 0 };
        Self { weights: Buffer::zeros(layout.len()), tied: Buffer::zeros(n_tied) }
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
        let &ModelConfig { n_heads, n_kv_heads, head_dim, .. } = config;
        let shape = HeadShape { n_seqs, seq_len, n_heads, n_kv_heads, head_dim };
        let freqs = puna_model::frequencies(config, seq_len);
        let table = RopeTable::new(&freqs, seq_len, puna_model::magnitude(config));
        let group_seqs = (GROUP_ROWS / seq_len).clamp(1, n_seqs);
        let group = |seqs: Range<usize>| {
            let rows = seqs.start * seq_len..seqs.end * seq_len;
            Group::new(config, HeadShape { n_seqs: seqs.len(), ..shape }, rows, recompute)
        };
        let largest = HeadShape { n_seqs: group_seqs, ..shape };
        Self {
            shape,
            precision,
            table,
            recompute,
            groups: cut(0..n_seqs, group_seqs).map(group).collect(),
            between: Between::new(config, largest, precision),
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
