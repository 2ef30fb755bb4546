//! What drafts are worth: the same answers with and without them, in the same run.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use puna_core::{KvType, Rng};
use puna_engine::{
    Chunk, Engine, EngineConfig, Event, FinishReason, Forward, Output, Request, Sampling, Usage,
    Wants,
};
use puna_kernels::Cpu;
use puna_model::{KvCache, Model, Runner};
use serde_json::{Value, json};

use crate::failure::Interrupted;
use crate::interrupt::Interrupt;
use crate::runtime::BATCH_TOKENS;
use crate::units;

/// What to measure.
pub(super) struct Speculation {
    pub(super) n_prompt: usize,
    pub(super) n_answer: usize,
    pub(super) max_draft: usize,
    /// Each text is written so often without drafts and with them, in turn.
    pub(super) n_rounds: usize,
}

/// A way to write a text.
struct Text {
    name: &'static str,
    sampling: Sampling,
    /// It is the prompt over and over, whatever the network would say.
    repeats_prompt: bool,
}

/// A network whose passes are made in full, and whose choice may then be replaced by a text that is known.
struct Scripted {
    runner: Runner,
    /// The text, over and over.
    script: Option<Vec<u32>>,
    /// `[n_wanted, V]`: one at the script's token, else zero.
    logits: Vec<f32>,
}

impl Forward for Scripted {
    fn vocab_size(&self) -> usize {
        self.runner.vocab_size()
    }

    fn dim(&self) -> usize {
        self.runner.dim()
    }

    fn n_blocks(&self) -> usize {
        self.runner.n_blocks()
    }

    fn max_seq_len(&self) -> usize {
        self.runner.max_seq_len()
    }

    fn forward(&mut self, batch: &[Chunk<'_>]) -> Output<'_> {
        let vocab_size = self.vocab_size();
        let Output { logits, hidden } = self.runner.forward(batch);
        let Some(script) = &self.script else { return Output { logits, hidden } };
        self.logits.clear();
        self.logits.resize(logits.len(), 0.0);
        let mut rows = self.logits.chunks_exact_mut(vocab_size);
        for chunk in batch {
            let end = chunk.pos + chunk.tokens.len();
            let first = if chunk.wants == Wants::All { chunk.pos } else { end - 1 };
            for (pos, row) in (first..end).zip(rows.by_ref().take(chunk.n_wanted())) {
                row[script[(pos + 1) % script.len()] as usize] = 1.0;
            }
        }
        Output { logits: &self.logits, hidden }
    }
}

/// One text by one number of threads.
pub(super) struct Measured {
    n_threads: usize,
    text: &'static str,
    n_tokens: usize,
    /// Tokens a second of each round, sorted.
    plain: Vec<f64>,
    drafting: Vec<f64>,
    /// Of the text with drafts.
    usage: Usage,
}

impl Speculation {
    /// Writes every text with each number of threads.
    ///
    /// # Errors
    /// If Ctrl-C was pressed, or drafts have changed a text, which would be a fault of the program.
    pub(super) fn run(
        &self,
        model: &Arc<Model>,
        kv_type: KvType,
        threads: &[usize],
        interrupt: &Interrupt,
    ) -> anyhow::Result<Vec<Measured>> {
        let mut found = Vec::new();
        for &n_threads in threads {
            note!("measuring with {}", units::plural(n_threads, "thread"));
            let engine = |max_draft, script| -> anyhow::Result<Engine<Scripted>> {
                let cpu = Cpu::new(n_threads).context("PUNA_ISA")?;
                let n_blocks = KvCache::blocks_for(self.n_prompt + self.n_answer);
                let runner = Runner::new(Arc::clone(model), cpu, kv_type, n_blocks);
                let (max_batch_tokens, max_seqs) = (BATCH_TOKENS, 1);
                let config =
                    EngineConfig { max_batch_tokens, max_seqs, prefix_cache: false, max_draft };
                Ok(Engine::new(Scripted { runner, script, logits: Vec::new() }, config))
            };
            for text in texts() {
                let prompt = self.prompt(model.config().vocab_size);
                let script = text.repeats_prompt.then(|| prompt.clone());
                let engine = |max_draft| engine(max_draft, script.clone());
                found.push(self.measure(&text, n_threads, &prompt, engine, interrupt)?);
            }
        }
        Ok(found)
    }

    /// Writes `text` with engines that draft nothing and those that do. Each is made anew, so that two caches are never in
    /// memory at once.
    fn measure(
        &self,
        text: &Text,
        n_threads: usize,
        prompt: &[u32],
        engine: impl Fn(usize) -> anyhow::Result<Engine<Scripted>>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Measured> {
        let (mut plain, mut drafting, mut usage) = (Vec::new(), Vec::new(), Usage::default());
        for _ in 0..self.n_rounds {
            let without = self.write(text, prompt, engine(0)?, interrupt)?;
            let with = self.write(text, prompt, engine(self.max_draft)?, interrupt)?;
            if with.tokens != without.tokens {
                bail!("{}: drafts have changed the text; please report this", text.name);
            }
            plain.push(without.tokens_per_sec);
            drafting.push(with.tokens_per_sec);
            usage = with.usage;
        }
        plain.sort_by(f64::total_cmp);
        drafting.sort_by(f64::total_cmp);
        Ok(Measured { n_threads, text: text.name, n_tokens: self.n_answer, plain, drafting, usage })
    }

    /// Random tokens.
    fn prompt(&self, vocab_size: usize) -> Vec<u32> {
        let mut rng = Rng::new(0, 0);
        (0..self.n_prompt).map(|_| rng.next_u32() % vocab_size as u32).collect()
    }

    /// Continues the prompt once.
    fn write(
        &self,
        text: &Text,
        prompt: &[u32],
        mut engine: Engine<Scripted>,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Written> {
        engine.submit(Request {
            prompt: prompt.to_vec(),
            max_new_tokens: Some(self.n_answer),
            sampling: text.sampling.clone(),
            stop_ids: Vec::new(),
            n_logprobs: None,
        })?;
        let (mut tokens, mut first_token) = (Vec::new(), None);
        loop {
            if interrupt.is_set() {
                bail!(Interrupted);
            }
            for event in engine.step() {
                match event {
                    Event::Token { token, .. } => {
                        first_token.get_or_insert_with(Instant::now);
                        tokens.push(token);
                    }
                    Event::Hidden { .. } => {}
                    Event::Finished { reason: FinishReason::Failed(failure), .. } => bail!(failure),
                    Event::Finished { usage, .. } => {
                        let secs = first_token.map_or(0.0, |first| first.elapsed().as_secs_f64());
                        let tokens_per_sec = (tokens.len() - 1) as f64 / secs;
                        return Ok(Written { tokens, tokens_per_sec, usage });
                    }
                }
            }
        }
    }

    /// The outcome as JSON.
    pub(super) fn to_json(&self, found: &[Measured]) -> Value {
        let texts: Vec<Value> = found.iter().map(Measured::to_json).collect();
        json!({ "prompt_tokens": self.n_prompt, "answer_tokens": self.n_answer,
                "max_draft": self.max_draft, "texts": texts })
    }
}

/// One text, and how fast it was written after its first token.
struct Written {
    tokens: Vec<u32>,
    tokens_per_sec: f64,
    usage: Usage,
}

/// One that repeats its context in any case, one that tends to repeat itself, since it always goes the likeliest way,
/// and one that hardly does.
fn texts() -> [Text; 3] {
    let text = |name, sampling, repeats_prompt| Text { name, sampling, repeats_prompt };
    [
        text("repeating", Sampling::greedy(), true),
        text("greedy", Sampling::greedy(), false),
        text("drawn", Sampling::default(), false),
    ]
}

impl Measured {
    fn median(speeds: &[f64]) -> f64 {
        speeds[speeds.len() / 2]
    }

    fn ratio(&self) -> f64 {
        Self::median(&self.drafting) / Self::median(&self.plain)
    }

    fn to_json(&self) -> Value {
        json!({
            "threads": self.n_threads,
            "text": self.text,
            "plain_tokens_per_sec": self.plain,
            "drafting_tokens_per_sec": self.drafting,
            "ratio": self.ratio(),
            "drafted_tokens": self.usage.n_drafted,
            "accepted_tokens": self.usage.n_accepted,
        })
    }
}

/// Writes the table: a line a text.
pub(super) fn write(out: &mut impl Write, found: &[Measured]) -> io::Result<()> {
    writeln!(
        out,
        "threads  text       tokens  plain tokens/s  with drafts  ratio  drafted  right  tokens a pass"
    )?;
    for m in found {
        let Usage { n_drafted, n_accepted, .. } = m.usage;
        let n_passes = m.n_tokens - n_accepted;
        writeln!(
            out,
            "{:>7}  {:<9} {:>7} {:>15.1} {:>12.1} {:>6.2} {n_drafted:>8} {n_accepted:>6} {:>14.2}",
            m.n_threads,
            m.text,
            m.n_tokens,
            Measured::median(&m.plain),
            Measured::median(&m.drafting),
            m.ratio(),
            m.n_tokens as f64 / n_passes as f64,
        )?;
    }
    writeln!(out, "the texts are the same with drafts and without, token for token")
}
