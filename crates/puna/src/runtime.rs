//! A model ready to answer: what `generate` and `chat` share. They are clients of the engine with one request at
//! a time.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use puna_core::{KvType, ModelConfig, SamplingHints, TensorSource};
use puna_engine::{Engine, EngineConfig, Event, FinishReason, Logprobs, Request, Usage};
use puna_hub::Opened;
use puna_kernels::Cpu;
use puna_model::{KvCache, MemoryPlan, Model, ModelError, Runner};
use puna_tokenizer::Tokenizer;
use puna_tokenizer::chat::ChatTemplate;
use serde_json::{Value, json};

use crate::args::ModelArgs;
use crate::interrupt::Interrupt;
use crate::progress::Watched;
use crate::{environment, memory, system, units};

/// Most rows of one forward pass: prompts are taken in pieces of this size.
pub(crate) const BATCH_TOKENS: usize = 512;

/// A loaded model with its engine.
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: ChatTemplate,
    /// The token to put before a prompt, where the model wants one.
    pub(crate) bos_id: Option<u32>,
    /// Tokens that end an answer.
    pub(crate) stop_ids: Vec<u32>,
    /// How its maker suggests to draw tokens.
    pub(crate) sampling: SamplingHints,
    /// Positions that the KV cache holds.
    pub(crate) ctx: usize,
    pub(crate) load_secs: f64,
    engine: Engine<Runner>,
    /// Where the network's bytes come from, most of them still in their files.
    source: Arc<dyn TensorSource>,
}

/// What came of a request.
pub(crate) struct Answer {
    pub(crate) text: String,
    /// The tokens, each with its log-probabilities where they were asked for.
    pub(crate) tokens: Vec<(u32, Option<Logprobs>)>,
    pub(crate) reason: FinishReason,
    pub(crate) usage: Usage,
    /// From the request to its first token.
    prompt_secs: f64,
    /// From the first token to the last.
    answer_secs: f64,
}

impl Runtime {
    /// Opens and loads `model`, after checking that it fits into memory. At most `max_draft` tokens are read
    /// ahead where an answer repeats itself.
    pub(crate) fn load(
        model: &str,
        args: &ModelArgs,
        n_threads: usize,
        max_draft: usize,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let Opened { name, checkpoint, tokenizer, template, bos_id, stop_ids, .. } =
            open(model, args)?;
        let source = &*checkpoint.source;
        let ctx = context_len(source.config(), args.ctx);
        let network = load_network(&name, source, args.kv_type, ctx)?;
        let cpu = Cpu::new(n_threads).context("PUNA_ISA")?;
        let runner = Runner::new(network, cpu, args.kv_type, KvCache::blocks_for(ctx));
        let (max_batch_tokens, max_seqs, prefix_cache) = (BATCH_TOKENS, 1, true);
        let config = EngineConfig { max_batch_tokens, max_seqs, prefix_cache, max_draft };
        let engine = Engine::new(runner, config);
        let load_secs = started.elapsed().as_secs_f64();
        let (source, sampling) = (checkpoint.source, checkpoint.sampling);
        Ok(Self {
            name,
            tokenizer,
            template,
            bos_id,
            stop_ids,
            sampling,
            ctx,
            load_secs,
            engine,
            source,
        })
    }

    /// Runs `request` to its end, or until Ctrl-C. `on_text` gets the text as it becomes certain, never a part of
    /// a character; the space before the first word is kept, since the text continues the prompt.
    pub(crate) fn answer(
        &mut self,
        request: Request,
        interrupt: &Interrupt,
        mut on_text: impl FnMut(&str) -> io::Result<()>,
    ) -> anyhow::Result<Answer> {
        let mut decoder = self.tokenizer.decoder();
        for &id in &request.prompt {
            decoder.push(id);
        }
        let started = Instant::now();
        let request_id = self.engine.submit(request)?;
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let mut first_token = None;
        let mut emit = |part: String, text: &mut String| -> io::Result<()> {
            text.push_str(&part);
            if part.is_empty() { Ok(()) } else { on_text(&part) }
        };
        loop {
            if interrupt.is_set() {
                self.engine.cancel(request_id);
            }
            let events = self.engine.step();
            // Nothing is said that bytes written meanwhile may have had a part in.
            self.source.check_unchanged()?;
            for event in events {
                match event {
                    Event::Token { token, logprobs, .. } => {
                        first_token.get_or_insert_with(Instant::now);
                        emit(decoder.push(token), &mut text)?;
                        tokens.push((token, logprobs));
                    }
                    Event::Finished { reason: FinishReason::Failed(failure), .. } => {
                        bail!(
                            "{name}: no token can be drawn: {failure}; \
                             puna inspect {name} --check looks for damaged weights",
                            name = self.name
                        )
                    }
                    Event::Hidden { .. } => {}
                    Event::Finished { reason, usage, .. } => {
                        emit(decoder.finish(), &mut text)?;
                        let first = first_token.unwrap_or_else(Instant::now);
                        let prompt_secs = first.duration_since(started).as_secs_f64();
                        let answer_secs = first.elapsed().as_secs_f64();
                        return Ok(Answer {
                            text,
                            tokens,
                            reason,
                            usage,
                            prompt_secs,
                            answer_secs,
                        });
                    }
                }
            }
        }
    }

    /// `load 0.21 s, memory 1.3 GB`, the second part where the system tells.
    pub(crate) fn load_line(&self) -> String {
        let load = format!("load {}", units::seconds(self.load_secs));
        match system::peak_memory() {
            Some(peak) => format!("{load} · memory {}", units::bytes(peak)),
            None => load,
        }
    }
}

/// Opens a model with its tokenizer as the options say.
pub(crate) fn open(model: &str, args: &ModelArgs) -> anyhow::Result<Opened> {
    Ok(puna_hub::open(
        model,
        &environment::open_options(args.tokenizer.as_ref(), args.lora.as_ref()),
    )?)
}

/// Loads the network for sequences of `ctx` positions, after checking that it fits into memory.
pub(crate) fn load_network(
    name: &str,
    source: &dyn TensorSource,
    kv_type: KvType,
    ctx: usize,
) -> anyhow::Result<Arc<Model>> {
    let plan = MemoryPlan::new(source, kv_type, ctx, BATCH_TOKENS);
    memory::check(source, kv_type, ctx, BATCH_TOKENS).with_context(|| name.to_owned())?;
    let watched = Watched::new(source, plan.mapped + plan.copied);
    match Model::load(&watched, ctx) {
        Ok(network) => Ok(Arc::new(network)),
        // Such an error names its file itself.
        Err(error @ ModelError::Source(_)) => Err(error.into()),
        Err(error) => Err(error).with_context(|| name.to_owned()),
    }
}

/// The context asked for, else the model's own; warns when it is longer than the model's.
pub(crate) fn context_len(config: &ModelConfig, asked: Option<usize>) -> usize {
    let trained = config.max_seq_len;
    let ctx = asked.unwrap_or(trained);
    if ctx > trained {
        note!(
            "\x1b[1;33mwarning:\x1b[0m --ctx {ctx} is longer than this model's {trained}: the text may degrade"
        );
    }
    ctx
}

impl Answer {
    /// Prompt tokens that had to be computed.
    fn n_prefilled(&self) -> usize {
        self.usage.n_prompt - self.usage.n_cached
    }

    /// Tokens between the first and the last.
    fn n_decoded(&self) -> usize {
        self.tokens.len().saturating_sub(1)
    }

    /// `prompt 6 tokens, 812 tokens/s · answer 120 tokens (17 of 24 drafted were right), 1050 tokens/s`.
    pub(crate) fn stats_line(&self) -> String {
        let Usage { n_prompt, n_cached, n_generated, n_drafted, n_accepted } = self.usage;
        let cached = if n_cached > 0 { format!(" ({n_cached} cached)") } else { String::new() };
        let drafted = match n_drafted {
            0 => String::new(),
            _ => format!(" ({n_accepted} of {n_drafted} drafted were right)"),
        };
        format!(
            "prompt {}{cached}, {} tokens/s · answer {}{drafted}, {} tokens/s",
            units::plural(n_prompt, "token"),
            units::rate(self.n_prefilled(), self.prompt_secs),
            units::plural(n_generated, "token"),
            units::rate(self.n_decoded(), self.answer_secs),
        )
    }

    /// The reason in one word, as JSON has it.
    pub(crate) fn reason_name(&self) -> &'static str {
        match self.reason {
            FinishReason::Stop(_) => "stop",
            FinishReason::Length => "length",
            FinishReason::Context => "context",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Read => "read",
            FinishReason::Failed(_) => "failed",
        }
    }

    /// Token counts.
    pub(crate) fn usage_json(&self) -> Value {
        let Usage { n_prompt, n_cached, n_generated, n_drafted, n_accepted } = self.usage;
        json!({ "prompt_tokens": n_prompt, "cached_tokens": n_cached, "generated_tokens": n_generated,
                "drafted_tokens": n_drafted, "accepted_tokens": n_accepted })
    }

    /// Seconds and speeds.
    pub(crate) fn timings_json(&self, load_secs: f64) -> Value {
        let per_sec = |n: usize, secs: f64| (n > 0 && secs > 0.0).then(|| n as f64 / secs);
        json!({
            "load_secs": load_secs,
            "prompt_secs": self.prompt_secs,
            "answer_secs": self.answer_secs,
            "prompt_tokens_per_sec": per_sec(self.n_prefilled(), self.prompt_secs),
            "answer_tokens_per_sec": per_sec(self.n_decoded(), self.answer_secs),
            "peak_memory_bytes": system::peak_memory(),
        })
    }
}
