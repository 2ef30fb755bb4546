//! Whole texts through the network a layer at a time: every block's weights are taken from the checkpoint once,
//! used for all sequences, and let go. So a model larger than memory is read from its files once, in order.

use puna_core::{KvType, LayerWeight, ModelConfig, TensorSource, WeightId};
use puna_kernels::{Cpu, RopeTable, Span, rmsnorm};

use crate::block::{Place, Scratch, output_logits};
use crate::weights::{load_matrix, load_norm};
use crate::{KvCache, Layer, Matrix, ModelError, rope};

/// Most rows of one pass through a block.
const BATCH_ROWS: usize = 512;

/// A pass over many sequences, all of whose logits are wanted; the arithmetic, and so every bit, is that of
/// [`Runner`](crate::Runner).
///
/// Memory: the residual streams, `[Σ T, D]` as `f32`, and for one block its weights, its keys and values, and
/// the intermediate values of 512 rows.
pub struct Layerwise<'a> {
    source: &'a dyn TensorSource,
    cpu: &'a Cpu,
    config: ModelConfig,
    ctx: usize,
    rope_table: RopeTable,
    tok_embeddings: Matrix,
    norm: Vec<f32>,
    /// `None`: tied to the embeddings.
    output: Option<Matrix>,
    /// Keys and values of the block at work.
    cache: KvCache,
    /// Sequences whose keys and values the cache holds at once.
    n_slots: usize,
    scratch: Scratch,
    /// Tokens of each sequence.
    lens: Vec<usize>,
    /// Residual streams of all sequences, then their hidden states, `[Σ T, D]`.
    x: Vec<f32>,
    /// The block whose turn it is.
    next: usize,
    logits: Vec<f32>,
}

impl<'a> Layerwise<'a> {
    /// Prepares for sequences of up to `ctx` tokens.
    ///
    /// # Errors
    /// The checkpoint lacks a tensor outside the blocks, or has a wrong one.
    pub fn new(
        source: &'a dyn TensorSource,
        cpu: &'a Cpu,
        kv_type: KvType,
        ctx: usize,
    ) -> Result<Self, ModelError> {
        let config = source.config().clone();
        config.validate()?;
        let matrix = |id| load_matrix(source, &config, id);
        let n_slots = (BATCH_ROWS / ctx).max(1);
        let one_layer = ModelConfig { n_layers: 1, ..config.clone() };
        Ok(Self {
            rope_table: rope::table(&config, ctx),
            tok_embeddings: matrix(WeightId::TokEmbeddings)?,
            norm: load_norm(source, &config, WeightId::Norm)?,
            output: (!config.tied_output).then(|| matrix(WeightId::Output)).transpose()?,
            cache: KvCache::new(&one_layer, kv_type, n_slots * KvCache::blocks_for(ctx)),
            scratch: Scratch::default(),
            lens: Vec::new(),
            x: Vec::new(),
            next: 0,
            logits: Vec::new(),
            source,
            cpu,
            config,
            ctx,
            n_slots,
        })
    }

    /// The network's dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Takes the sequences' embeddings; what was computed for earlier ones is gone.
    ///
    /// # Panics
    /// If a sequence is empty, longer than `ctx`, or holds a token outside the vocabulary.
    pub fn begin(&mut self, sequences: &[&[u32]]) {
        for sequence in sequences {
            let (len, ctx) = (sequence.len(), self.ctx);
            assert!((1..=ctx).contains(&len), "a sequence of {len} in a context of {ctx}");
            let size = self.config.vocab_size;
            let largest = sequence.iter().max().map_or(0, |&token| token as usize);
            assert!(largest < size, "token {largest} of a vocabulary of {size}");
        }
        self.lens = sequences.iter().map(|sequence| sequence.len()).collect();
        self.x.resize(self.lens.iter().sum::<usize>() * self.config.dim, 0.0);
        self.tok_embeddings.rows(sequences.iter().copied().flatten(), &mut self.x);
        self.next = 0;
    }

    /// Carries all sequences through block `idx`. `watch` is called, for each batch of rows, with the matrices that are
    /// about to be multiplied with the same input and with that input, `[T, cols]`; the rows come in the order of
    /// the tokens.
    ///
    /// # Errors
    /// The block's tensors cannot be had.
    ///
    /// # Panics
    /// If it is another block's turn.
    pub fn layer(
        &mut self,
        idx: usize,
        watch: &mut dyn FnMut(&[LayerWeight], &[f32]),
    ) -> Result<(), ModelError> {
        assert_eq!(idx, self.next, "blocks take their turns");
        let layer = Layer::load(self.source, &self.config, idx)?;
        let mut first_row = 0;
        for lens in self.lens.chunks(self.n_slots) {
            let longest = lens.iter().copied().max().unwrap_or(0);
            let n_rows: usize = lens.iter().sum();
            let dim = self.config.dim;
            let x = &mut self.x[first_row * dim..][..n_rows * dim];
            // More than one sequence at a time fit into one batch whole; a long one comes in pieces.
            for start in (0..longest).step_by(BATCH_ROWS) {
                let batch_rows =
                    if lens.len() > 1 { n_rows } else { BATCH_ROWS.min(longest - start) };
                let rows = &mut x[start * dim..][..batch_rows * dim];
                let tables = block_tables(lens.len(), KvCache::blocks_for(self.ctx));
                let spans = spans(lens, start, &tables);
                self.scratch.resize(&self.config, &spans);
                self.scratch.x.copy_from_slice(rows);
                let mut place = Place {
                    config: &self.config,
                    rope_table: &self.rope_table,
                    cpu: self.cpu,
                    cache: &mut self.cache,
                    cache_idx: 0,
                    spans: &spans,
                };
                self.scratch.block(&layer, &mut place, watch);
                rows.copy_from_slice(&self.scratch.x);
            }
            first_row += n_rows;
        }
        self.next += 1;
        Ok(())
    }

    /// Turns the residual streams into hidden states, after the last block.
    ///
    /// # Panics
    /// If a block's turn is still to come.
    pub fn finish(&mut self) {
        assert_eq!(self.next, self.config.n_layers, "blocks that have run");
        let mut hidden = vec![0.0; self.x.len()];
        rmsnorm(self.cpu, &self.x, &self.norm, self.config.norm_eps, &mut hidden);
        self.x = hidden;
    }

    /// Hidden states after the last norm, `[Σ T, D]`, once [`Layerwise::finish`] was called.
    pub fn hidden(&self) -> &[f32] {
        &self.x
    }

    /// Scores of the next token for `n_rows` rows of the hidden states from `first_row` on, `[n_rows, V]`.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn logits(&mut self, first_row: usize, n_rows: usize) -> &[f32] {
        let dim = self.config.dim;
        let hidden = &self.x[first_row * dim..][..n_rows * dim];
        self.logits.resize(n_rows * self.config.vocab_size, 0.0);
        let output = self.output.as_ref().unwrap_or(&self.tok_embeddings);
        output_logits(self.cpu, output, &mut self.scratch.acts, hidden, &mut self.logits);
        &self.logits
    }
}

/// Block tables of `n` sequences, `n_blocks` each, one after another.
fn block_tables(n: usize, n_blocks: usize) -> Vec<Vec<u32>> {
    let table = |slot: usize| (slot * n_blocks..(slot + 1) * n_blocks).map(|b| b as u32).collect();
    (0..n).map(table).collect()
}

/// The part of each sequence that a batch holds: all of it, or, of one alone, the piece from `start` on.
fn spans<'t>(lens: &[usize], start: usize, tables: &'t [Vec<u32>]) -> Vec<Span<'t>> {
    let mut first_row = 0;
    let mut spans = Vec::with_capacity(lens.len());
    for (&len, blocks) in lens.iter().zip(tables) {
        let n_tokens = (len - start).min(BATCH_ROWS);
        spans.push(Span { first_row, n_tokens, pos: start, blocks });
        first_row += n_tokens;
    }
    spans
}
