//! Supervised fine-tuning (arXiv 2307.09288, section 3.1): from a base model to one that answers.
//!
//! Conversations in the Llama 2 chat form are packed into rows, each seeing itself alone; the loss counts the assistant's
//! tokens, and is divided by their number in the batch. Where the paper is silent: a cosine to 10 % and a warm-up of 3 %
//! of all steps, as its reward models have; gradients clipped at 1.0, as in pre-training.
//!
//! **Exact.** On one instruction set the weights after each step are a function of the settings, the data and the base
//! model: not of threads, micro-batches or interruptions.

mod audit;
mod config;
mod data;

use std::cell::RefCell;
use std::path::Path;

use puna_data::Sha256;
use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_ops::Precision;
use puna_train::{Layout, LoraShape, MemoryNeeds, Pass, flops_per_token};

pub(crate) use config::{DataTable, Learn, SftConfig, Unfit};
use data::Counts;

use crate::numbers::Count;
use crate::run::{Chain, Form, Learner, State};
use crate::tune::{
    Base, Item, Learned, Packed, Place, RowBatch, Supervised, Writer, adapters_line, in_words,
    left_out, needs, pack, prompt_ids,
};
use crate::{Ending, Recipe, RecipeError, Report, Start, StepRecord};

/// The paper's learning rate.
const LR: f64 = 2e-5;

/// A fine-tuning run: what it is made of, before anything is trained.
#[derive(Debug)]
pub struct Sft<'a> {
    config: SftConfig,
    cpu: &'a Cpu,
    base: Base,
    precision: Precision,
    lora: Option<LoraShape>,
    items: Vec<Item>,
    held_out: Vec<Item>,
    counts: Counts,
    data: Sha256,
    seq_len: usize,
    micro_batch: usize,
    /// For each epoch.
    packed: Vec<Packed>,
    /// For each epoch, the steps before its end.
    ends: Vec<u64>,
    prompts: Vec<Vec<u32>>,
    /// Told in the log, too: what was left out before of what the conversations were made of.
    pub(crate) also_left_out: Vec<String>,
}

impl<'a> Sft<'a> {
    /// Reads a configuration, the model and all conversations; `folder` is where the configuration's paths start.
    ///
    /// # Errors
    /// A setting out of range, with line and column; a model or a file that cannot be read; a conversation that cannot be
    /// used, where these are refused; one that would train nothing.
    pub fn new(
        file: &str,
        text: &str,
        folder: &Path,
        options: &OpenOptions,
        cpu: &'a Cpu,
    ) -> Result<Self, RecipeError> {
        let place = Place { file, text, folder };
        Self::of_config(place.parse()?, &place, options, cpu)
    }

    /// The same of a configuration that is read; `place` is for its messages and paths.
    pub(crate) fn of_config(
        config: SftConfig,
        place: &Place<'_>,
        options: &OpenOptions,
        cpu: &'a Cpu,
    ) -> Result<Self, RecipeError> {
        config.optimizer.check(place)?;
        place.part("fraction", config.eval.fraction)?;
        let lora = config.lora.as_ref().map(|table| table.shape(place)).transpose()?;
        let precision = place.precision(config.precision, cpu)?;
        let base = Base::open(&place.model(&config.model), options)?;
        let seq_len = place.seq_len(config.seq_len, &base)?;
        let batch = config.batch;
        let micro_batch = config.micro_batch.unwrap_or((2048 / seq_len).clamp(1, batch.max(1)));
        place.at_least_one("batch", batch)?;
        place.at_least_one("epochs", config.epochs as usize)?;
        place.at_least_one("micro_batch", micro_batch)?;
        let data::Conversations { items, held_out, counts, hash } =
            data::read(&config, place, &base, seq_len)?;
        let lens: Vec<usize> = items.iter().map(|item| item.ids.len()).collect();
        let packed: Vec<Packed> =
            (0..config.epochs).map(|epoch| pack(&lens, seq_len, config.seed, epoch)).collect();
        let mut n_steps = 0;
        let ends = packed.iter().map(|packed| {
            n_steps += packed.rows.len().div_ceil(batch) as u64;
            n_steps
        });
        let ends = ends.collect();
        let prompts = config.eval.prompts.iter().map(|text| prompt_ids(&base.tokenizer, text));
        let prompts = prompts.collect::<Result<_, _>>()?;
        Ok(Self {
            lora,
            precision,
            items,
            held_out,
            counts,
            data: hash,
            seq_len,
            micro_batch,
            packed,
            ends,
            prompts,
            also_left_out: Vec::new(),
            config,
            cpu,
            base,
        })
    }

    fn layout(&self) -> Layout {
        Layout::new(&self.base.config)
    }

    fn learner(&self) -> Learner<'_> {
        let config = &self.config;
        let settings = in_words([
            ("recipe", "sft".to_owned()),
            ("model", self.base.hash().to_string()),
            ("seq_len", self.seq_len.to_string()),
            ("batch", config.batch.to_string()),
            ("epochs", config.epochs.to_string()),
            ("seed", config.seed.to_string()),
            ("precision", self.precision.name().to_owned()),
            ("lora", format!("{:?}", self.lora)),
            ("optimizer", format!("{:?}", config.optimizer)),
        ]);
        let chain = Chain::new(&settings, self.data, &self.base.tokenizer_file);
        let state = State::new(self.cpu.isa(), settings, chain);
        let numbers = config.optimizer.numbers();
        let mut learner =
            Learner::new(self.cpu, &self.base, self.layout(), numbers, state, Form::Chat);
        learner.adapt(self.lora.as_ref(), config.seed);
        learner
    }

    fn supervised(&self) -> Supervised<'_> {
        let config = &self.config;
        Supervised {
            optimizer: &config.optimizer,
            lr: config.optimizer.lr.unwrap_or(LR),
            n_steps: self.n_steps(),
            eval_every: config.eval.every,
            checkpoint: config.checkpoint,
        }
    }

    /// Runs, as [`Recipe::run`] does, and gives the weights at the end.
    pub(crate) fn train(
        &self,
        path: &Path,
        start: Start<'_>,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<(Ending, Vec<f32>), RecipeError> {
        let mut learner = self.learner();
        learner.left_out.extend(self.also_left_out.iter().cloned().chain(left_out(&self.plan())));
        let (n, recompute) = (self.micro_batch, self.config.recompute);
        let pass = Pass::new(&self.layout(), n, self.seq_len, recompute, self.precision);
        let pass = RefCell::new(pass);
        let mut batch = |learner: &mut Learner<'_>, step| {
            Ok(self.batch_grads(learner, &mut pass.borrow_mut(), step))
        };
        let mut evaluate = |learner: &Learner<'_>, record: &mut StepRecord| {
            self.evaluate(learner, &mut pass.borrow_mut(), record)
        };
        let supervised = self.supervised();
        let ending =
            supervised.run(&mut learner, path, start, stop, on, &mut batch, &mut evaluate)?;
        Ok((ending, learner.weights))
    }

    /// Gradients of a batch.
    fn batch_grads(&self, learner: &mut Learner<'_>, pass: &mut Pass, step: u64) -> Learned {
        let batch = self.config.batch;
        let epoch = self.ends.iter().position(|&end| step < end).expect("a step of the run");
        let before = if epoch == 0 { 0 } else { self.ends[epoch - 1] };
        let packed = &self.packed[epoch];
        let first = (step - before) as usize * batch;
        let rows = first..(first + batch).min(packed.rows.len());
        let n_learned: usize = packed.rows[rows.clone()]
            .iter()
            .flatten()
            .map(|&(item, _)| self.items[item].learned.iter().filter(|learned| **learned).count())
            .sum();
        let mut total = 0.0;
        for first in rows.clone().step_by(self.micro_batch) {
            let part = first..(first + self.micro_batch).min(rows.end);
            let mut batch = RowBatch::new(packed, part, self.micro_batch, |item| &self.items[item]);
            batch.scales.iter_mut().for_each(|scale| *scale /= n_learned as f32);
            let Learner { cpu, weights, grads, .. } = learner;
            let losses = pass.losses_and_grads(cpu, weights, batch.view(), grads);
            losses.iter().for_each(|&loss| total += f64::from(loss));
        }
        Learned {
            loss: total / n_learned as f64,
            n_tokens: rows.len() * self.seq_len,
            metrics: vec![("learned_tokens", n_learned as f64)],
        }
    }

    /// The loss on held-out conversations, and answers.
    fn evaluate(
        &self,
        learner: &Learner<'_>,
        pass: &mut Pass,
        record: &mut StepRecord,
    ) -> Result<(), RecipeError> {
        let lens: Vec<usize> = self.held_out.iter().map(|item| item.ids.len()).collect();
        let packed = pack(&lens, self.seq_len, 0, 0);
        let (mut total, mut n) = (0.0, 0);
        for first in (0..packed.rows.len()).step_by(self.micro_batch) {
            let part = first..(first + self.micro_batch).min(packed.rows.len());
            let batch = RowBatch::new(&packed, part, self.micro_batch, |item| &self.held_out[item]);
            n += batch.scales.iter().filter(|&&scale| scale > 0.0).count();
            let losses = pass.losses(self.cpu, &learner.weights, batch.view());
            losses.iter().for_each(|&loss| total += f64::from(loss));
        }
        if n > 0 {
            record.metrics.insert("held_out_loss".to_owned(), total / n as f64);
        }
        if !self.prompts.is_empty() && self.config.eval.sample_tokens > 0 {
            let mut writer = Writer::new(
                self.cpu,
                &learner.layout,
                &learner.weights,
                self.base.config.max_seq_len,
                self.base.eos_id,
            )?;
            let prompts: Vec<&[u32]> = self.prompts.iter().map(Vec::as_slice).collect();
            let sampling =
                |seed| Sampling { temperature: 0.8, seed: seed as u64, ..Sampling::default() };
            let drawn = writer.write(&prompts, self.config.eval.sample_tokens, sampling)?;
            let answers = drawn.iter().map(|drawn| self.base.tokenizer.decode(&drawn.tokens));
            record.samples = self
                .config
                .eval
                .prompts
                .iter()
                .zip(answers)
                .map(|(p, a)| format!("{p}\n→ {}", a.trim()))
                .collect();
        }
        Ok(())
    }
}

impl Recipe for Sft<'_> {
    fn out(&self) -> Option<&Path> {
        self.config.out.as_deref()
    }

    fn n_steps(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn memory(&self) -> u64 {
        let config = &self.base.config;
        let of = MemoryNeeds::new(config, self.micro_batch, self.seq_len, self.config.recompute);
        needs(of, config, self.lora.as_ref())
    }

    fn plan(&self) -> Vec<String> {
        let (config, c) = (&self.config, &self.base.config);
        let n_learned = |items: &[Item]| {
            items.iter().map(|i| i.learned.iter().filter(|l| **l).count()).sum::<usize>()
        };
        let n_tokens: usize = self.items.iter().map(|item| item.ids.len()).sum();
        let n_rows: usize = self.packed.iter().map(|packed| packed.rows.len()).sum();
        let filled =
            n_tokens as f64 * self.packed.len() as f64 / (n_rows * self.seq_len).max(1) as f64;
        let flops = flops_per_token(c, self.seq_len) * (n_rows * self.seq_len) as f64;
        let mut lines = vec![format!(
            "model       {}: {} parameters",
            self.base.name,
            Count(c.n_params() as f64)
        )];
        lines.extend(self.counts.lines());
        lines.extend([
            format!(
                "tokens      {} an epoch, {} of them the assistant's, which are learned; {} conversations held out",
                Count(n_tokens as f64), Count(n_learned(&self.items) as f64), self.held_out.len()
            ),
            format!(
                "rows        {n_rows} of {} tokens in {} epochs, {:.1} % full; {} a batch, {} at a time",
                self.seq_len, self.packed.len(), 100.0 * filled, config.batch, self.micro_batch
            ),
            format!("run         {} steps, {} FLOP; products in {}", self.n_steps(), Count(flops), self.precision.name()),
            format!("memory      {:.1} MB", self.memory() as f64 / 1e6),
            self.supervised().plan(),
        ]);
        lines.extend(adapters_line(self.lora.as_ref()));
        lines
    }

    fn run(
        &self,
        path: &Path,
        start: Start<'_>,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Ending, RecipeError> {
        Ok(self.train(path, start, stop, on)?.0)
    }
}
