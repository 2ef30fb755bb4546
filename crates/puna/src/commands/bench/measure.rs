//! The measurement: prefill and decode apart, each repeated, and the machine's peaks in the same run.
//!
//! One token goes through the network first, so that no figure contains the first touch of the weights.

use std::time::Instant;

use puna_core::Rng;
use puna_kernels::peak::{self, Peaks};
use puna_model::{Chunk, KvCache, Runner, Wants};

use crate::interrupt::Interrupt;
use crate::runtime::BATCH_TOKENS;

/// Unless told how often, prompts are read at least this often, and until [`MIN_SECS`] have passed.
const MIN_REPEATS: usize = 3;
/// See [`MIN_REPEATS`].
const MIN_SECS: f64 = 2.0;
/// However short they are, prompts are not read more often than this.
const MAX_REPEATS: usize = 100;

/// What to measure, in tokens.
pub(super) struct Bench {
    /// 0: no prefill.
    pub(super) n_prompt: usize,
    /// 0: no decode.
    pub(super) n_answer: usize,
    pub(super) depth: usize,
    /// How often the prompt is read; without it, until it was read often and long enough.
    pub(super) n_repeats: Option<usize>,
    /// Numbers of sequences that answer together, beside the one alone.
    pub(super) parallel: Vec<usize>,
}

/// One kind of work: seconds of each repetition, and the work of one repetition.
pub(super) struct Phase {
    /// Tokens of one repetition.
    pub(super) n_tokens: usize,
    /// Sorted.
    pub(super) secs: Vec<f64>,
    /// Multiplications and additions of one repetition.
    pub(super) n_ops: f64,
    /// Bytes of weights and cache that one repetition must read.
    pub(super) n_bytes: f64,
}

/// The outcome with one number of threads.
pub(super) struct Measured {
    pub(super) n_threads: usize,
    pub(super) isa: &'static str,
    pub(super) prefill: Option<Phase>,
    pub(super) decode: Option<Phase>,
    /// Decode of several sequences, with their number.
    pub(super) parallel: Vec<(usize, Phase)>,
    pub(super) peaks: Peaks,
}

impl Phase {
    fn new(n_tokens: usize, mut secs: Vec<f64>, n_ops: f64, n_bytes: f64) -> Self {
        secs.sort_by(f64::total_cmp);
        Self { n_tokens, secs, n_ops, n_bytes }
    }

    /// The time that a share `q` of the repetitions stayed below.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        self.secs[((self.secs.len() - 1) as f64 * q).round() as usize]
    }

    /// Half of the repetitions were faster.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

impl Bench {
    /// Positions of one sequence.
    pub(super) fn seq_len(&self) -> usize {
        self.depth + self.n_prompt.max(self.n_answer)
    }

    /// Blocks of the cache that hold all sequences at once.
    pub(super) fn n_blocks(&self) -> usize {
        self.n_seqs() * KvCache::blocks_for(self.seq_len())
    }

    fn n_seqs(&self) -> usize {
        self.parallel.iter().copied().max().unwrap_or(1)
    }

    /// Measures; `None` when Ctrl-C was pressed. The runner's cache has [`Self::n_blocks`].
    pub(super) fn run(&self, mut runner: Runner, interrupt: &Interrupt) -> Option<Measured> {
        let mut rng = Rng::new(0, 0);
        let vocab_size = runner.model().config().vocab_size as u32;
        let tokens: Vec<u32> = (0..self.seq_len()).map(|_| rng.next_u32() % vocab_size).collect();
        let blocks: Vec<u32> = (0..self.n_blocks() as u32).collect();
        let seqs: Vec<&[u32]> = blocks.chunks(KvCache::blocks_for(self.seq_len())).collect();

        read(&mut runner, &tokens[..1], 0, seqs[0], interrupt)?;
        for seq in &seqs {
            read(&mut runner, &tokens[..self.depth], 0, seq, interrupt)?;
        }
        let prefill = match self.n_prompt {
            0 => None,
            _ => Some(self.prefill(&mut runner, &tokens[self.depth..], seqs[0], interrupt)?),
        };
        let mut decode = |seqs| self.decode(&mut runner, &tokens, seqs, interrupt);
        let alone = if self.n_answer > 0 { Some(decode(&seqs[..1])?) } else { None };
        let mut parallel = Vec::with_capacity(self.parallel.len());
        for &n in &self.parallel {
            parallel.push((n, decode(&seqs[..n])?));
        }
        Some(Measured {
            n_threads: runner.cpu().pool().n_threads(),
            isa: runner.cpu().isa().name(),
            prefill,
            decode: alone,
            parallel,
            peaks: peak::measure(runner.cpu()),
        })
    }

    /// Reads the prompt again and again, from the depth on.
    fn prefill(
        &self,
        runner: &mut Runner,
        tokens: &[u32],
        blocks: &[u32],
        interrupt: &Interrupt,
    ) -> Option<Phase> {
        let mut secs = Vec::new();
        let enough = |secs: &[f64]| match self.n_repeats {
            Some(n) => secs.len() >= n,
            None => {
                let n = secs.len();
                n >= MAX_REPEATS || n >= MIN_REPEATS && secs.iter().sum::<f64>() >= MIN_SECS
            }
        };
        while !enough(&secs) {
            secs.push(read(runner, &tokens[..self.n_prompt], self.depth, blocks, interrupt)?);
        }
        Some(self.prefill_phase(runner, secs))
    }

    /// Answers in all sequences together, a token of each in every pass. `seqs` are their block tables.
    fn decode(
        &self,
        runner: &mut Runner,
        tokens: &[u32],
        seqs: &[&[u32]],
        interrupt: &Interrupt,
    ) -> Option<Phase> {
        let mut secs = Vec::with_capacity(self.n_answer);
        for (pos, token) in tokens.chunks(1).enumerate().skip(self.depth).take(self.n_answer) {
            if interrupt.is_set() {
                return None;
            }
            let chunk = |&blocks| Chunk { tokens: token, pos, blocks, wants: Wants::Last };
            let batch: Vec<Chunk<'_>> = seqs.iter().map(chunk).collect();
            let started = Instant::now();
            runner.forward(&batch);
            secs.push(started.elapsed().as_secs_f64());
        }
        Some(self.decode_phase(runner, seqs.len(), secs))
    }

    /// The work of a whole prompt. The output matrix is only multiplied with the last token; weights are read once
    /// in each pass.
    fn prefill_phase(&self, runner: &Runner, secs: Vec<f64>) -> Phase {
        let (model, n) = (runner.model(), self.n_prompt);
        let output = model.output();
        let inner_macs = (model.macs_per_token() - output.n_elements()) as f64;
        let macs =
            n as f64 * inner_macs + output.n_elements() as f64 + self.attention_macs(runner, n);
        let n_passes = n.div_ceil(BATCH_TOKENS) as f64;
        let weight_bytes = n_passes * (model.bytes_per_token() - output.n_bytes()) as f64;
        let n_bytes = weight_bytes + output.n_bytes() as f64;
        Phase::new(n, secs, 2.0 * macs, n_bytes)
    }

    /// The work of one token of each sequence, at the mean depth. Weights are read once for all.
    fn decode_phase(&self, runner: &Runner, n_seqs: usize, secs: Vec<f64>) -> Phase {
        let (model, n) = (runner.model(), self.n_answer as f64);
        let macs = model.macs_per_token() as f64 + self.attention_macs(runner, self.n_answer) / n;
        let c = model.config();
        let position_bytes =
            2 * c.n_layers * c.n_kv_heads * runner.cache().kv_type().row_bytes(c.head_dim);
        let mean_len = self.depth as f64 + (n + 1.0) / 2.0;
        let kv_bytes = n_seqs as f64 * mean_len * position_bytes as f64;
        let n_ops = 2.0 * n_seqs as f64 * macs;
        Phase::new(n_seqs, secs, n_ops, model.bytes_per_token() as f64 + kv_bytes)
    }

    /// Multiplications of attention for `n` tokens from the depth on: each reads all positions up to its own, for the
    /// scores and for the values.
    fn attention_macs(&self, runner: &Runner, n: usize) -> f64 {
        let c = runner.model().config();
        let positions = (0..n).map(|idx| (self.depth + idx + 1) as f64).sum::<f64>();
        2.0 * positions * (c.n_layers * c.q_dim()) as f64
    }
}

/// Runs `tokens` through the network from position `pos` on, in passes of at most [`BATCH_TOKENS`]; the seconds it took.
fn read(
    runner: &mut Runner,
    tokens: &[u32],
    pos: usize,
    blocks: &[u32],
    interrupt: &Interrupt,
) -> Option<f64> {
    let started = Instant::now();
    let last = tokens.len().div_ceil(BATCH_TOKENS);
    for (idx, part) in tokens.chunks(BATCH_TOKENS).enumerate() {
        if interrupt.is_set() {
            return None;
        }
        let wants = if idx + 1 == last { Wants::Last } else { Wants::Nothing };
        runner.forward(&[Chunk { tokens: part, pos: pos + idx * BATCH_TOKENS, blocks, wants }]);
    }
    Some(started.elapsed().as_secs_f64())
}
