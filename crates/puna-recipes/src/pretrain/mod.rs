//! Pre-training (arXiv 2307.09288, section 2): from a corpus to a base model.
//!
//! The next token of packed text is learned by AdamW in f32, with linear warm-up, a cosine and clipped gradients. Factors
//! of products are rounded to bf16 where the CPU multiplies it. What is simplified beside the paper: one machine.
//!
//! **Exact.** On one instruction set the weights after each step are a function of the settings and the corpus alone:
//! not of threads, micro-batches or interruptions. A batch is whole sequences; gradients accumulate sequence by
//! sequence; the loss is divided by the tokens of the batch.

mod config;
mod eval;
mod plan;
mod presets;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use puna_data::{Corpus, MANIFEST, Sha256};
use puna_kernels::{Cpu, peak};
use puna_ops::Precision;
use puna_train::{Grads, INIT_STD, Layout, MicroBatch, Optimizer, Pass, Schedule, grad_norm};
use toml::Spanned;

use config::Settled;
pub use config::{Guard, OnFault, PretrainConfig};
pub(crate) use config::{PrecisionChoice, precision_of};
pub use plan::{MachineSpeed, Plan};
pub use presets::Preset;

use crate::RecipeError;
use crate::run::{
    Chain, Checkpoint, Contents, Ending, Form, Log, Report, RunFolder, State, StepRecord,
};

/// How much of the running mean of the loss a step replaces.
const MEAN_SHARE: f64 = 0.05;

/// How far the first loss may be from what new weights give, in nats.
const FIRST_LOSS_TOLERANCE: f64 = 0.5;

/// A pre-training run: what it is made of, before anything is in memory.
#[derive(Debug)]
pub struct Pretrain<'a> {
    config: &'a PretrainConfig,
    settled: Settled,
    precision: Precision,
    corpus: &'a Corpus,
    cpu: &'a Cpu,
    layout: Layout,
    plan: Plan,
    tokenizer: Vec<u8>,
    chain: Chain,
    settings: BTreeMap<String, String>,
}

impl<'a> Pretrain<'a> {
    /// Settles every number of a configuration for a corpus; `file` and `text` are the configuration's, for messages.
    ///
    /// # Errors
    /// Numbers that do not fit each other, a corpus whose tokenizer cannot be read.
    pub fn new(
        file: &str,
        text: &str,
        config: &'a PretrainConfig,
        corpus: &'a Corpus,
        cpu: &'a Cpu,
    ) -> Result<Self, RecipeError> {
        let manifest = corpus.manifest();
        let settled = config.settle(file, text, manifest.tokenizer.vocab_size as usize)?;
        let corpus_tokens = manifest.sources.iter().map(|source| source.train.tokens).sum();
        let precision = config.precision(file, text, cpu.isa())?;
        let plan = Plan::new(&settled, config, precision, corpus_tokens);
        let path = corpus.folder().join(&manifest.tokenizer.file);
        let tokenizer = fs::read(&path).map_err(RecipeError::io(&path))?;
        let path = corpus.folder().join(MANIFEST);
        let data = Sha256::of(&fs::read(&path).map_err(RecipeError::io(&path))?);
        let settings = settings(config, &settled);
        let chain = Chain::new(&settings, data, &tokenizer);
        let layout = Layout::new(&settled.model);
        Ok(Self {
            config,
            settled,
            precision,
            corpus,
            cpu,
            layout,
            plan,
            tokenizer,
            chain,
            settings,
        })
    }

    /// What the run will be.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What to say where `n_free` bytes of memory are too few: what is needed, and a setting that fits, if there is one.
    #[must_use]
    pub fn shortage(&self, n_free: u64) -> Option<String> {
        plan::shortage(&self.settled, self.config.recompute, n_free)
    }

    /// Trains on a micro-batch or a few, of new weights and the corpus' first sequences, and tells the speed.
    ///
    /// # Errors
    /// The corpus cannot be read.
    pub fn measure(&self) -> Result<MachineSpeed, RecipeError> {
        let mut run = Training::new(self);
        let mut n_tokens = 0;
        // The first pass meets memory that was never touched.
        run.micro_batch(0)?;
        let start = Instant::now();
        while n_tokens == 0 || start.elapsed().as_secs_f64() < 1.0 {
            run.micro_batch(0)?;
            n_tokens += self.settled.micro_batch * self.settled.seq_len;
        }
        Ok(MachineSpeed {
            n_threads: self.cpu.pool().n_threads(),
            tokens_per_sec: n_tokens as f64 / start.elapsed().as_secs_f64(),
            peak_gflops: self.peak_gflops(),
        })
    }

    /// What this machine does at most in the run's precision.
    fn peak_gflops(&self) -> f64 {
        match self.precision {
            Precision::F32 => peak::f32_gflops(self.cpu),
            // Plain code has no such instruction.
            Precision::Bf16 => {
                peak::bf16_gflops(self.cpu).unwrap_or_else(|| peak::f32_gflops(self.cpu))
            }
        }
    }

    /// Trains from the beginning, into the new folder `path`; `text` is the configuration's.
    ///
    /// # Errors
    /// The folder is not empty, a file cannot be read or written, or the program's own checks find something.
    pub fn begin(
        &self,
        path: &Path,
        text: &str,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Ending, RecipeError> {
        let folder = RunFolder::create(path, text)?;
        let log = Log::open(folder.path(), 0)?;
        Training::new(self).run(&folder, log, stop, on)
    }

    /// Goes on from the newest checkpoint in `path` that is whole; from the beginning if there is none.
    ///
    /// # Errors
    /// No run is there, or it is of another configuration, corpus or tokenizer; a file cannot be read or written.
    pub fn resume(
        &self,
        path: &Path,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Ending, RecipeError> {
        let folder = RunFolder::open(path)?;
        let mut training = Training::new(self);
        let event = match training.load(&folder, on)? {
            true => format!("going on after step {}", training.state.step),
            false => "no checkpoint yet: from the beginning".to_owned(),
        };
        let mut log = Log::open(folder.path(), training.state.step)?;
        log.tell(event.clone());
        on(Report::Note(event));
        training.run(&folder, log, stop, on)
    }
}

/// Every setting that the result depends on.
fn settings(config: &PretrainConfig, settled: &Settled) -> BTreeMap<String, String> {
    let Settled { model, seq_len, n_seqs, n_steps, n_warmup, lr, .. } = settled;
    let PretrainConfig { seed, precision, within_documents, optimizer, guard, .. } = config;
    [
        ("model", format!("{model:?}")),
        ("seq_len", seq_len.to_string()),
        ("batch_tokens", (n_seqs * seq_len).to_string()),
        ("steps", n_steps.to_string()),
        ("warmup_steps", n_warmup.to_string()),
        ("lr", lr.to_string()),
        ("min_lr_ratio", optimizer.min_lr_ratio.to_string()),
        ("optimizer", format!("{:?}", optimizer.numbers())),
        ("seed", seed.to_string()),
        ("precision", format!("{:?}", precision.as_ref().map(Spanned::get_ref))),
        ("within_documents", within_documents.to_string()),
        ("guard", format!("{guard:?}")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// A run in memory.
struct Training<'a> {
    of: &'a Pretrain<'a>,
    weights: Vec<f32>,
    grads: Grads,
    optimizer: Optimizer,
    pass: Pass,
    state: State,
    /// The step whose checkpoint holds this very state.
    saved_step: Option<u64>,
    /// Faults since the last new step that went well, and the last step that did not.
    n_faults: u64,
    faulty_step: u64,
    tokens: Vec<u32>,
    targets: Vec<u32>,
    starts: Vec<u32>,
    scales: Vec<f32>,
}

impl<'a> Training<'a> {
    fn new(of: &'a Pretrain<'a>) -> Self {
        let Settled { seq_len, n_seqs, micro_batch, .. } = of.settled;
        let scale = 1.0 / (n_seqs * seq_len) as f32;
        Self {
            weights: of.layout.init(of.config.seed),
            grads: Grads::new(&of.layout),
            optimizer: Optimizer::new(of.layout.len()),
            pass: Pass::new(&of.layout, micro_batch, seq_len, of.config.recompute, of.precision),
            state: State::new(of.cpu.isa(), of.settings.clone(), of.chain.clone()),
            saved_step: None,
            n_faults: 0,
            faulty_step: 0,
            tokens: Vec::new(),
            targets: Vec::new(),
            starts: Vec::new(),
            scales: vec![scale; micro_batch * seq_len],
            of,
        }
    }

    /// The loop.
    fn run(
        mut self,
        folder: &RunFolder,
        mut log: Log,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Ending, RecipeError> {
        let of = self.of;
        let Settled { seq_len, n_seqs, n_steps, .. } = of.settled;
        let batch_tokens = (n_seqs * seq_len) as u64;
        let peak_gflops = of.peak_gflops();
        while self.state.step < n_steps {
            if stop() {
                self.save(folder, on)?;
                return Ok(Ending::Stopped);
            }
            let start = Instant::now();
            let mut record = match self.step()? {
                Ok(record) => record,
                Err(fault) => {
                    if let Some(ending) = self.handle(&fault, folder, &mut log, on)? {
                        return Ok(ending);
                    }
                    continue;
                }
            };
            record.tokens_per_sec = batch_tokens as f64 / start.elapsed().as_secs_f64();
            let gflops = of.plan.flops_per_token * record.tokens_per_sec / 1e9;
            record.peak_share = Some(gflops / peak_gflops);
            let step = record.step;
            let is_due = |every: u64| every > 0 && (step.is_multiple_of(every) || step == n_steps);
            let is_best = is_due(of.config.eval.every) && self.evaluate(&mut record)?;
            log.write(&mut record)?;
            let eta_secs = ((n_steps - record.step) * batch_tokens) as f64 / record.tokens_per_sec;
            on(Report::Step { record: &record, eta_secs });
            if is_due(of.config.checkpoint.every) || is_best {
                self.save(folder, on)?;
            }
        }
        Ok(Ending::Complete)
    }

    /// One batch and one update. What is wrong with the batch, if something is, comes back before anything is changed.
    fn step(&mut self) -> Result<Result<StepRecord, String>, RecipeError> {
        let of = self.of;
        let Settled { seq_len, n_seqs, micro_batch, n_steps, n_warmup, lr: peak, .. } = of.settled;
        let first = self.state.next_sequence;
        if self.state.left_out.contains(&first) {
            return Ok(Err(format!("step {}: left out before", self.state.step + 1)));
        }
        self.grads.clear();
        let mut total = 0.0;
        for seq in (0..n_seqs).step_by(micro_batch) {
            total = self.micro_batch_onto(first + seq as u64, total)?;
        }
        let loss = total / (n_seqs * seq_len) as f64;
        let grads = self.grads.complete(of.cpu);
        let norm = grad_norm(of.cpu, grads);
        if self.state.step == 0 {
            check_first_step(&of.layout, loss, grads)?;
        }
        let step = self.state.step + 1;
        let mean = f64::from_bits(self.state.loss_mean_bits);
        if let Some(fault) = self.of.config.guard.fault(loss, norm, mean) {
            let last = first + n_seqs as u64 - 1;
            return Ok(Err(format!("step {step}, sequences {first} to {last}: {fault}")));
        }
        let schedule =
            Schedule { peak, n_warmup, n_steps, min_ratio: of.config.optimizer.min_lr_ratio };
        let (lr, numbers) = (schedule.lr(step), of.config.optimizer.numbers());
        let parts = of.layout.parts();
        self.optimizer.update(of.cpu, parts, &numbers, |_| lr, &mut self.weights, grads, norm);
        let mean = if mean.is_nan() { loss } else { mean + MEAN_SHARE * (loss - mean) };
        self.state.loss_mean_bits = mean.to_bits();
        self.advance();
        // Steps made again, after going back, tell nothing.
        if step > self.faulty_step {
            self.n_faults = 0;
        }
        Ok(Ok(StepRecord {
            step,
            tokens: step * (n_seqs * seq_len) as u64,
            loss: Some(loss),
            lr,
            grad_norm: Some(norm),
            ..StepRecord::default()
        }))
    }

    /// On to the next batch.
    fn advance(&mut self) {
        self.state.step += 1;
        self.state.next_sequence += self.of.settled.n_seqs as u64;
    }

    /// Forward and back, from the sequence `first` on; adds the losses to `total`, one by one.
    fn micro_batch_onto(&mut self, first: u64, mut total: f64) -> Result<f64, RecipeError> {
        for &loss in self.micro_batch(first)? {
            total += f64::from(loss);
        }
        Ok(total)
    }

    fn micro_batch(&mut self, first: u64) -> Result<&[f32], RecipeError> {
        let of = self.of;
        let Settled { seq_len, micro_batch, .. } = of.settled;
        let stream = of.corpus.training(seq_len, of.config.seed);
        for ids in [&mut self.tokens, &mut self.targets, &mut self.starts] {
            ids.clear();
        }
        for index in first..first + micro_batch as u64 {
            let sequence = stream.sequence(index)?;
            self.tokens.extend(&sequence.tokens[..seq_len]);
            self.targets.extend(&sequence.tokens[1..]);
            self.starts.extend(&sequence.document_starts[..seq_len]);
        }
        let batch = MicroBatch {
            tokens: &self.tokens,
            targets: &self.targets,
            scales: &self.scales,
            starts: of.config.within_documents.then_some(&self.starts),
        };
        Ok(self.pass.losses_and_grads(of.cpu, &self.weights, batch, &mut self.grads))
    }

    /// Follows the policy; an ending, if it is one.
    fn handle(
        &mut self,
        fault: &str,
        folder: &RunFolder,
        log: &mut Log,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Option<Ending>, RecipeError> {
        let first = self.state.next_sequence;
        let was_known = self.state.left_out.contains(&first);
        let Guard { on_fault, most_faults, .. } = self.of.config.guard;
        if !was_known {
            on(Report::Note(fault.to_owned()));
            self.n_faults += 1;
            self.faulty_step = self.state.step + 1;
            if on_fault == OnFault::Stop || self.n_faults > most_faults {
                self.save(folder, on)?;
                let hint = "the setting guard.on_fault says what else may follow";
                return Ok(Some(Ending::Fault(format!("{fault}; {hint}"))));
            }
            if on_fault == OnFault::RollBack {
                let mut left_out = self.state.left_out.clone();
                left_out.push(first);
                if !self.load(folder, on)? {
                    let (n_faults, faulty_step) = (self.n_faults, self.faulty_step);
                    *self = Self { n_faults, faulty_step, ..Self::new(self.of) };
                }
                self.state.left_out = left_out;
                log.go_back(folder.path(), self.state.step)?;
                log.tell(format!("back to step {}: {fault}", self.state.step));
                on(Report::Note(format!("back to step {}", self.state.step)));
                return Ok(None);
            }
            self.state.left_out.push(first);
        }
        self.advance();
        let mut record = StepRecord {
            step: self.state.step,
            fault: Some(fault.to_owned()),
            ..StepRecord::default()
        };
        log.write(&mut record)?;
        on(Report::Step { record: &record, eta_secs: f64::NAN });
        Ok(None)
    }

    /// Takes the newest checkpoint that is whole; `false` if there is none at all.
    fn load(
        &mut self,
        folder: &RunFolder,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<bool, RecipeError> {
        let layout = &self.of.layout;
        let read = |path: &Path| Checkpoint::read(path, layout, None);
        let Some((step, checkpoint)) = folder.newest_whole(&self.state, read, on)? else {
            return Ok(false);
        };
        let Checkpoint { state, weights, optimizer, hash } = checkpoint;
        if let Some(note) = state.other_machine(&self.state) {
            on(Report::Note(note));
        }
        (self.weights, self.optimizer) = (weights, optimizer);
        self.state = state.going_on(&self.state.isa, hash);
        self.saved_step = Some(step);
        Ok(true)
    }

    /// Writes a checkpoint, and removes those that are not to be kept.
    fn save(
        &mut self,
        folder: &RunFolder,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<(), RecipeError> {
        let (of, step) = (self.of, self.state.step);
        // What is there already is not put at risk.
        if self.saved_step == Some(step) {
            return Ok(());
        }
        let tokenizer = &of.corpus.manifest().tokenizer;
        let contents = Contents {
            layout: &of.layout,
            weights: &self.weights,
            adapters: None,
            optimizer: &self.optimizer,
            tokenizer: &of.tokenizer,
            bos_eos: (tokenizer.bos_id, tokenizer.eos_id),
            form: Form::Language,
        };
        let hash = contents.write(&folder.checkpoint(step), self.state.clone())?;
        self.state.chain.parent = Some(hash);
        self.saved_step = Some(step);
        folder.prune(of.config.checkpoint.keep, self.state.best.map(|(step, _)| step))?;
        on(Report::Checkpoint { step });
        Ok(())
    }
}

impl Guard {
    /// What is wrong with a batch, if something is.
    fn fault(&self, loss: f64, norm: f64, mean: f64) -> Option<String> {
        if !loss.is_finite() || !norm.is_finite() {
            return Some(format!("loss {loss}, length of the gradient {norm}: not finite"));
        }
        let limit = mean + self.spike;
        (loss > limit).then(|| format!("loss {loss:.4} is a spike above {limit:.4}"))
    }
}

/// At the first step, with new weights: every tensor has a gradient, and the loss is what guessing gives.
///
/// Logits of new weights are normal with variance `D·σ²`, which adds half of that to `ln V` (for `σ` see [`INIT_STD`]).
fn check_first_step(layout: &Layout, loss: f64, grads: &[f32]) -> Result<(), RecipeError> {
    let config = layout.config();
    let expected = (config.vocab_size as f64).ln() + config.dim as f64 * INIT_STD * INIT_STD / 2.0;
    // A loss that is not finite is a fault like any other.
    if (loss - expected).abs() > FIRST_LOSS_TOLERANCE {
        return Err(RecipeError::Check(format!(
            "the first loss is {loss:.4}, and new weights should give about {expected:.4}: please report this"
        )));
    }
    for (id, span) in layout.spans() {
        if grads[span.clone()].iter().all(|&g| g == 0.0) {
            return Err(RecipeError::Check(format!(
                "{id} received no gradient: please report this"
            )));
        }
    }
    Ok(())
}
