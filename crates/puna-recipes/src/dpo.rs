//! Direct preference optimisation (arXiv 2305.18290): a policy from pairs, without a reward model. It is not in the Llama 2
//! paper; its users expect it today.
//!
//! The frozen reference is the model that the run begins with; its log-probabilities of all answers are computed once,
//! before the first step. **Exact**, as pre-training is.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use puna_data::Sha256;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_ops::Precision;
use puna_train::rl::dpo_loss;
use puna_train::{Layout, LoraShape, MemoryNeeds, Pass, flops_per_token};
use serde::Deserialize;

use crate::numbers::Count;
use crate::pretrain::PrecisionChoice;
use crate::run::{Chain, Form, Learner, State};
use crate::sft::Unfit;
use crate::tune::{
    Base, CheckpointTable, Learned, LoraTable, OptimizerTable, Pair, PairBatch, Pairs, PairsTable,
    Place, RowBatch, Supervised, adapters_line, batches, in_words, left_out, needs, read_pairs,
};
use crate::{Ending, Recipe, RecipeError, Report, Start, StepRecord};

/// What to train, on what, and how. Defaults are those of the method's paper (appendix B) where it has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DpoConfig {
    /// The model to begin with, which is also the frozen reference.
    model: String,
    /// The folder of the run.
    out: Option<PathBuf>,
    /// Files of pairs.
    data: Vec<PairsTable>,
    /// Tokens of a row, into which pairs are packed: both answers of one lie in one row. Twice the model's context.
    seq_len: Option<usize>,
    /// Pairs of a batch: one update.
    #[serde(default = "batch")]
    batch: usize,
    /// Times that every pair is seen.
    #[serde(default = "epochs")]
    epochs: u64,
    /// How dearly distance from the reference is paid.
    #[serde(default = "beta")]
    beta: f64,
    /// Rows that pass together: a matter of speed and memory, never of results.
    micro_batch: Option<usize>,
    #[serde(default)]
    recompute: bool,
    precision: Option<PrecisionChoice>,
    /// Of the order of pairs and of new adapters.
    #[serde(default)]
    seed: u64,
    /// What to do with pairs that do not fit a row, or that their file has wrong.
    #[serde(default)]
    unfit: Unfit,
    /// Adapters instead of all weights.
    lora: Option<LoraTable>,
    /// AdamW and the learning rate; 1e-6.
    #[serde(default)]
    optimizer: OptimizerTable,
    #[serde(default)]
    eval: EvalTable,
    #[serde(default)]
    checkpoint: CheckpointTable,
}

/// What is measured on the way.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EvalTable {
    /// Steps from one measurement to the next; zero for none but the last.
    every: u64,
    /// The part of all pairs that is held out for it, by a hash of the prompt.
    fraction: f64,
}

impl Default for EvalTable {
    fn default() -> Self {
        Self { every: 25, fraction: 0.05 }
    }
}

fn batch() -> usize {
    64
}

fn epochs() -> u64 {
    1
}

fn beta() -> f64 {
    0.1
}

const LR: f64 = 1e-6;

/// A run of DPO: what it is made of, before anything is trained.
pub struct Dpo<'a> {
    config: DpoConfig,
    cpu: &'a Cpu,
    base: Base,
    layout: Layout,
    precision: Precision,
    lora: Option<LoraShape>,
    train: Vec<Pair>,
    held_out: Vec<Pair>,
    lines: Vec<String>,
    data: Sha256,
    seq_len: usize,
    micro_batch: usize,
    batches: Vec<PairBatch>,
}

/// Log-probabilities of a pair's answers, the chosen one first.
type Logprobs = [f64; 2];

impl<'a> Dpo<'a> {
    /// Reads a configuration, the model and all pairs; `folder` is where the configuration's paths start.
    ///
    /// # Errors
    /// A setting out of range, with line and column; a model or a file that cannot be read; a pair that cannot be used,
    /// where these are refused.
    pub fn new(
        file: &str,
        text: &str,
        folder: &Path,
        options: &OpenOptions,
        cpu: &'a Cpu,
    ) -> Result<Self, RecipeError> {
        let place = Place { file, text, folder };
        let config: DpoConfig = place.parse()?;
        config.optimizer.check(&place)?;
        place.part("fraction", config.eval.fraction)?;
        let lora = config.lora.as_ref().map(|table| table.shape(&place)).transpose()?;
        let precision = place.precision(config.precision, cpu)?;
        let base = Base::open(&place.model(&config.model), options)?;
        let seq_len = place.pair_len(config.seq_len, &base)?;
        let micro_batch = config.micro_batch.unwrap_or((2048 / seq_len).max(1));
        place.at_least_one("batch", config.batch)?;
        place.at_least_one("epochs", config.epochs as usize)?;
        place.at_least_one("micro_batch", micro_batch)?;
        place.check("beta", config.beta > 0.0, "a number above 0", config.beta)?;
        let (on_problem, fraction) = (config.unfit.into(), config.eval.fraction);
        let Pairs { train, held_out, lines, hash } =
            read_pairs(&config.data, &place, &base, seq_len, on_problem, config.seed, fraction)?;
        let of_epoch = |epoch| batches(&train, config.batch, seq_len, config.seed, epoch);
        let batches = (0..config.epochs).flat_map(of_epoch).collect();
        let layout = Layout::new(&base.config);
        Ok(Self {
            lora,
            precision,
            train,
            held_out,
            lines,
            data: hash,
            seq_len,
            micro_batch,
            batches,
            layout,
            config,
            cpu,
            base,
        })
    }

    fn supervised(&self) -> Supervised<'_> {
        let config = &self.config;
        Supervised {
            optimizer: &config.optimizer,
            lr: config.optimizer.lr.unwrap_or(LR),
            n_steps: self.batches.len() as u64,
            eval_every: if config.eval.every == 0 { u64::MAX } else { config.eval.every },
            checkpoint: config.checkpoint,
        }
    }

    fn learner(&self) -> Learner<'_> {
        let config = &self.config;
        let settings = in_words([
            ("recipe", "dpo".to_owned()),
            ("model", self.base.hash().to_string()),
            ("seq_len", self.seq_len.to_string()),
            ("batch", config.batch.to_string()),
            ("epochs", config.epochs.to_string()),
            ("beta", config.beta.to_string()),
            ("seed", config.seed.to_string()),
            ("precision", self.precision.name().to_owned()),
            ("lora", format!("{:?}", self.lora)),
            ("optimizer", format!("{:?}", config.optimizer)),
        ]);
        let chain = Chain::new(&settings, self.data, &self.base.tokenizer_file);
        let state = State::new(self.cpu.isa(), settings, chain);
        let (layout, numbers) = (self.layout.clone(), config.optimizer.numbers());
        let mut learner = Learner::new(self.cpu, &self.base, layout, numbers, state, Form::Chat);
        learner.adapt(self.lora.as_ref(), config.seed);
        learner
    }

    fn rows(&self, pairs: &[Pair], batch: &PairBatch, first: usize) -> RowBatch {
        let part = first..(first + self.micro_batch).min(batch.packed.rows.len());
        RowBatch::new(&batch.packed, part, self.micro_batch, |i| &pairs[batch.pairs[i]].item)
    }

    /// Log-probabilities of answers by `weights`, by index of pair, computed in the rows of `batches`: in the same rows the
    /// same weights give the same bits.
    fn logprobs(
        &self,
        pass: &mut Pass,
        weights: &[f32],
        pairs: &[Pair],
        batch: &PairBatch,
    ) -> Vec<(usize, Logprobs)> {
        let mut found = Vec::new();
        for first in (0..batch.packed.rows.len()).step_by(self.micro_batch) {
            let rows = self.rows(pairs, batch, first);
            let losses = pass.losses(self.cpu, weights, rows.view());
            found.extend(
                rows.items.iter().map(|&(i, place)| {
                    (batch.pairs[i], sums(&pairs[batch.pairs[i]], place, losses))
                }),
            );
        }
        found
    }

    /// Gradients of a batch of pairs; `reference` has the frozen model's log-probabilities for each pair of it.
    fn batch_grads(
        &self,
        learner: &mut Learner<'_>,
        pass: &mut Pass,
        step: u64,
        reference: &[Vec<(usize, Logprobs)>],
    ) -> Result<Learned, RecipeError> {
        let batch = &self.batches[step as usize];
        let reference = &reference[step as usize];
        let n_pairs = batch.pairs.len() as f64;
        let (mut total, mut n_right, mut margin, mut k) = (0.0, 0.0, 0.0, 0);
        for first in (0..batch.packed.rows.len()).step_by(self.micro_batch) {
            let mut rows = self.rows(&self.train, batch, first);
            let Learner { cpu, weights, grads, .. } = learner;
            let losses = pass.losses(cpu, weights, rows.view()).to_vec();
            for &(i, place) in &rows.items {
                let pair = &self.train[batch.pairs[i]];
                let [chosen, rejected] = sums(pair, place, &losses);
                let (_, [chosen_ref, rejected_ref]) = reference[k];
                k += 1;
                if step == 0 && (chosen, rejected) != (chosen_ref, rejected_ref) {
                    return Err(RecipeError::Check(
                        "before the first update policy and reference differ: please report this"
                            .to_owned(),
                    ));
                }
                let found = dpo_loss(chosen, rejected, chosen_ref, rejected_ref, self.config.beta);
                total += found.loss;
                margin += found.reward_chosen - found.reward_rejected;
                n_right += f64::from(u8::from(found.reward_chosen > found.reward_rejected));
                // The loss of a token is the negative of its log-probability.
                let d_loss = (-found.d_chosen / n_pairs) as f32;
                let item = &pair.item;
                for (sequence, d) in item.sequences().zip([d_loss, -d_loss]) {
                    for scale in &mut rows.scales[place + sequence.start..place + sequence.end] {
                        *scale *= d;
                    }
                }
            }
            pass.add_grads(cpu, weights, rows.view(), None, grads);
        }
        Ok(Learned {
            loss: total / n_pairs,
            n_tokens: batch.packed.rows.len() * self.seq_len,
            metrics: vec![("accuracy", n_right / n_pairs), ("reward_margin", margin / n_pairs)],
        })
    }

    /// Accuracy of the implied rewards on held-out pairs.
    fn evaluate(&self, learner: &Learner<'_>, pass: &mut Pass, record: &mut StepRecord) {
        let (mut loss, mut n_right, mut n) = (0.0, 0.0, 0.0);
        for batch in batches(&self.held_out, usize::MAX, self.seq_len, 0, 0) {
            let reference = self.logprobs(pass, &self.base.weights, &self.held_out, &batch);
            let policy = self.logprobs(pass, &learner.weights, &self.held_out, &batch);
            for ((_, [chosen, rejected]), (_, [chosen_ref, rejected_ref])) in
                policy.into_iter().zip(reference)
            {
                let found = dpo_loss(chosen, rejected, chosen_ref, rejected_ref, self.config.beta);
                loss += found.loss;
                n_right += f64::from(u8::from(found.reward_chosen > found.reward_rejected));
                n += 1.0;
            }
        }
        if n > 0.0 {
            record.metrics.insert("held_out_loss".to_owned(), loss / n);
            record.metrics.insert("held_out_accuracy".to_owned(), n_right / n);
        }
    }
}

/// Sums of the log-probabilities of both answers' tokens, for a pair that begins at `place`.
fn sums(pair: &Pair, place: usize, losses: &[f32]) -> Logprobs {
    let mut sequences = pair.item.sequences();
    [(); 2].map(|()| {
        let sequence = sequences.next().expect("two answers");
        let losses = &losses[place + sequence.start..place + sequence.end];
        -losses.iter().map(|&loss| f64::from(loss)).sum::<f64>()
    })
}

impl Recipe for Dpo<'_> {
    fn plan(&self) -> Vec<String> {
        let (config, c) = (&self.config, &self.base.config);
        let n_rows: usize = self.batches.iter().map(|batch| batch.packed.rows.len()).sum();
        let flops = flops_per_token(c, self.seq_len) * (n_rows * self.seq_len) as f64 * 4.0 / 3.0;
        let mut lines = vec![format!(
            "model       {}: {} parameters",
            self.base.name,
            Count(c.n_params() as f64)
        )];
        lines.extend(self.lines.iter().cloned());
        lines.extend([
            format!(
                "pairs       {} to train on, {} held out; {} a batch",
                self.train.len(),
                self.held_out.len(),
                config.batch
            ),
            format!("loss        beta {}", config.beta),
            format!(
                "run         {} steps, {} FLOP; products in {}",
                self.batches.len(),
                Count(flops),
                self.precision.name()
            ),
            format!("memory      {:.1} MB", self.memory() as f64 / 1e6),
            self.supervised().plan(),
        ]);
        lines.extend(adapters_line(self.lora.as_ref()));
        lines
    }

    fn n_steps(&self) -> u64 {
        self.batches.len() as u64
    }

    fn memory(&self) -> u64 {
        let (config, recompute) = (&self.base.config, self.config.recompute);
        let of = MemoryNeeds::new(config, self.micro_batch, self.seq_len, recompute);
        needs(of, config, self.lora.as_ref())
    }

    fn out(&self) -> Option<&Path> {
        self.config.out.as_deref()
    }

    fn run(
        &self,
        path: &Path,
        start: Start<'_>,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Ending, RecipeError> {
        let mut learner = self.learner();
        learner.left_out.extend(left_out(&self.plan()));
        let (n, recompute) = (self.micro_batch, self.config.recompute);
        let mut pass = Pass::new(&self.layout, n, self.seq_len, recompute, self.precision);
        on(Report::Note("computing the reference's log-probabilities".to_owned()));
        let reference: Vec<_> = self
            .batches
            .iter()
            .map(|batch| self.logprobs(&mut pass, &self.base.weights, &self.train, batch))
            .collect();
        let pass = RefCell::new(pass);
        let mut batch = |learner: &mut Learner<'_>, step| {
            self.batch_grads(learner, &mut pass.borrow_mut(), step, &reference)
        };
        let mut evaluate = |learner: &Learner<'_>, record: &mut StepRecord| {
            self.evaluate(learner, &mut pass.borrow_mut(), record);
            Ok(())
        };
        self.supervised().run(&mut learner, path, start, stop, on, &mut batch, &mut evaluate)
    }
}
