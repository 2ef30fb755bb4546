//! The measurement: prefill and decode apart, each repeated, and the machine's peaks in the same run.

use std::time::Instant;

use puna_core::Rng;
use puna_kernels::peak::{self, Peaks};
use puna_model::{Chunk, Runner, Wants};

use crate::interrupt::Interrupt;
use crate::runtime::BATCH_TOKENS;

/// Prompts are read at least this often, and until [`MIN_SECS`] have passed.
const MIN_REPEATS: usize = 3;
/// See [`MIN_REPEATS`].
const MIN_SECS: f64 = 2.0;
/// However short they are, prompts are not read more often than this.
const MAX_REPEATS: usize = 100;

/// What to measure, in tokens.
pub(super) struct Bench {
    pub(super) n_prompt: usize,
    pub(super) n_answer: usize,
    pub(super) depth: usize,
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
    pub(super) prefill: Phase,
    pub(super) decode: Phase,
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
    /// Measures; `None` when Ctrl-C was pressed.
    pub(super) fn run(&self, mut runner: Runner, interrupt: &Interrupt) -> Option<Measured> {
        let mut rng = Rng::new(0, 0);
        let vocab_size = runner.model().config().vocab_size as u32;
        let n_tokens = self.depth + self.n_prompt.max(self.n_answer);
        let tokens: Vec<u32> = (0..n_tokens).map(|_| rng.next_u32() % vocab_size).collect();
        let blocks: Vec<u32> = (0..runner.cache().n_blocks() as u32).collect();

        read(&mut runner, &tokens[..self.depth], 0, &blocks, interrupt)?;
        let mut prefill = Vec::new();
        while prefill.len() < MIN_REPEATS
            || prefill.len() < MAX_REPEATS && prefill.iter().sum::<f64>() < MIN_SECS
        {
            let prompt = &tokens[self.depth..][..self.n_prompt];
            prefill.push(read(&mut runner, prompt, self.depth, &blocks, interrupt)?);
        }
        let mut decode = Vec::with_capacity(self.n_answer);
        for (pos, &token) in tokens.iter().enumerate().skip(self.depth).take(self.n_answer) {
            decode.push(read(&mut runner, &[token], pos, &blocks, interrupt)?);
        }
        Some(Measured {
            n_threads: runner.cpu().pool().n_threads(),
            isa: runner.cpu().isa().name(),
            prefill: self.prefill_phase(&runner, prefill),
            decode: self.decode_phase(&runner, decode),
            peaks: peak::measure(runner.cpu()),
        })
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

    /// The work of one token, at the mean depth.
    fn decode_phase(&self, runner: &Runner, secs: Vec<f64>) -> Phase {
        let (model, n) = (runner.model(), self.n_answer as f64);
        let macs = model.macs_per_token() as f64 + self.attention_macs(runner, self.n_answer) / n;
        let c = model.config();
        let position_bytes =
            2 * c.n_layers * c.n_kv_heads * runner.cache().kv_type().row_bytes(c.head_dim);
        let mean_len = self.depth as f64 + (n + 1.0) / 2.0;
        let n_bytes = model.bytes_per_token() as f64 + mean_len * position_bytes as f64;
        Phase::new(1, secs, 2.0 * macs, n_bytes)
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
