//! Reward models (arXiv 2307.09288, section 3.2): from a model that answers to one that scores answers.
//!
//! The next-token head is replaced by a row that gives one number, read at the answer's last token. A pair's loss is
//! `−ln σ(chosen − rejected − margin)`, and where answers are labelled as safe or not a binary cross-entropy beside it.
//! Helpfulness and safety are two runs of this recipe, with other data. Both answers to a prompt lie in one row, and
//! each sees itself alone.
//!
//! **Exact**, as pre-training is: the weights do not depend on threads, micro-batches or interruptions.

mod config;
mod judges;
mod measure;
mod scorer;

use std::cell::RefCell;
use std::path::Path;

use puna_data::Sha256;
use puna_data::chat::SafetyLabel;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_ops::Precision;
use puna_train::rl::{PairLabels, RewardLoss};
use puna_train::{Layout, LoraShape, MemoryNeeds, Pass, flops_per_token};

use config::RewardConfig;
pub(crate) use judges::{Author, Judges, Verdict};
pub use scorer::{Score, Scorer};

use crate::numbers::Count;
use crate::run::{Chain, Form, Learner, State};
use crate::tune::{
    Base, Learned, Pair, PairBatch, Pairs, Place, RowBatch, Supervised, adapters_line, batches,
    in_words, left_out, needs, read_pairs,
};
use crate::{Ending, Recipe, RecipeError, Report, Start, StepRecord};

/// The paper's learning rate.
const LR: f64 = 1e-5;

/// The training of a reward model: what it is made of, before anything is trained.
pub struct Reward<'a> {
    config: RewardConfig,
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

impl<'a> Reward<'a> {
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
        let config: RewardConfig = place.parse()?;
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
        for (key, found) in
            [("safety_weight", config.safety_weight), ("center_weight", config.center_weight)]
        {
            place.check(key, found >= 0.0 && found.is_finite(), "a number, 0 or more", found)?;
        }
        let Pairs { train, held_out, mut lines, hash } = read_pairs(
            &config.data,
            &place,
            &base,
            seq_len,
            config.unfit.into(),
            config.seed,
            config.eval.fraction,
        )?;
        let n_unlabelled = train.iter().filter(|pair| pair.strength.is_none()).count();
        if config.margin != config::MarginChoice::None && n_unlabelled > 0 {
            lines.push(format!(
                "note        {n_unlabelled} pairs have no strength: their margin is 0"
            ));
        }
        let n_safety = train.iter().filter(|pair| pair.safety.is_some()).count();
        if config.safety_weight > 0.0 && n_safety == 0 {
            let message = "safety_weight: expected pairs with a safety label, found none";
            return Err(place.error(place.find("safety_weight"), message));
        }
        let epochs = 0..config.epochs;
        let batches = epochs
            .flat_map(|epoch| batches(&train, config.batch, seq_len, config.seed, epoch))
            .collect();
        // A network that scores has no output matrix.
        let network = puna_core::ModelConfig { tied_output: true, ..base.config.clone() };
        let layout = Layout::with_score(&network);
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
            ("recipe", "reward".to_owned()),
            ("model", self.base.hash().to_string()),
            ("seq_len", self.seq_len.to_string()),
            ("batch", config.batch.to_string()),
            ("epochs", config.epochs.to_string()),
            ("seed", config.seed.to_string()),
            ("margin", format!("{:?}", config.margin)),
            ("safety_weight", config.safety_weight.to_string()),
            ("center_weight", config.center_weight.to_string()),
            ("precision", self.precision.name().to_owned()),
            ("lora", format!("{:?}", self.lora)),
            ("optimizer", format!("{:?}", config.optimizer)),
        ]);
        let chain = Chain::new(&settings, self.data, &self.base.tokenizer_file);
        let state = State::new(self.cpu.isa(), settings, chain);
        let numbers = config.optimizer.numbers();
        let mut learner =
            Learner::new(self.cpu, &self.base, self.layout.clone(), numbers, state, Form::Score);
        let row = self.layout.score().expect("a layout with a scoring row");
        learner.weights[row].copy_from_slice(&self.layout.init_score(config.seed));
        learner.adapt(self.lora.as_ref(), config.seed);
        learner
    }

    /// Gradients of a batch of pairs.
    fn batch_grads(&self, learner: &mut Learner<'_>, pass: &mut Pass, step: u64) -> Learned {
        let batch = &self.batches[step as usize];
        let n_pairs = batch.pairs.len() as f64;
        let loss = RewardLoss {
            safety_weight: self.config.safety_weight,
            center_weight: self.config.center_weight,
        };
        let (mut total, mut n_right) = (0.0, 0);
        let n_rows = batch.packed.rows.len();
        for first in (0..n_rows).step_by(self.micro_batch) {
            let part = first..(first + self.micro_batch).min(n_rows);
            let pair = |i: usize| &self.train[batch.pairs[i]];
            let mut rows = RowBatch::new(&batch.packed, part, self.micro_batch, |i| &pair(i).item);
            rows.scales.fill(0.0);
            let Learner { cpu, weights, grads, .. } = learner;
            let scores = pass.scores(cpu, weights, Some(rows.view()));
            let mut d_scores = vec![0.0; scores.len()];
            for &(i, place) in &rows.items {
                let [at_chosen, at_rejected] = last_tokens(pair(i), place);
                let (chosen, rejected) =
                    (f64::from(scores[at_chosen]), f64::from(scores[at_rejected]));
                let found = loss.pair(chosen, rejected, &self.labels(pair(i)));
                total += found.loss;
                n_right += usize::from(chosen > rejected);
                d_scores[at_chosen] = (found.d_chosen / n_pairs) as f32;
                d_scores[at_rejected] = (found.d_rejected / n_pairs) as f32;
            }
            pass.add_grads(cpu, weights, rows.view(), Some(&d_scores), grads);
        }
        Learned {
            loss: total / n_pairs,
            n_tokens: n_rows * self.seq_len,
            metrics: vec![("accuracy", n_right as f64 / n_pairs)],
        }
    }

    /// What the loss needs to know of a pair.
    fn labels(&self, pair: &Pair) -> PairLabels {
        let margins = puna_train::rl::Margins::from(self.config.margin);
        let chosen_safe = pair.safety.map(SafetyLabel::chosen_safe);
        let rejected_safe = pair.safety.map(SafetyLabel::rejected_safe);
        let margin = pair.strength.map_or(0.0, |strength| margins.of(strength));
        PairLabels { margin, chosen_safe, rejected_safe }
    }

    /// Scores of held-out pairs, and what they tell.
    fn evaluate(&self, learner: &Learner<'_>, pass: &mut Pass, record: &mut StepRecord) {
        let mut scored = Vec::new();
        for batch in batches(&self.held_out, usize::MAX, self.seq_len, 0, 0) {
            let n_rows = batch.packed.rows.len();
            for first in (0..n_rows).step_by(self.micro_batch) {
                let part = first..(first + self.micro_batch).min(n_rows);
                let pair = |i: usize| &self.held_out[batch.pairs[i]];
                let rows = RowBatch::new(&batch.packed, part, self.micro_batch, |i| &pair(i).item);
                let scores = pass.scores(self.cpu, &learner.weights, Some(rows.view()));
                for &(i, place) in &rows.items {
                    let [chosen, rejected] =
                        last_tokens(pair(i), place).map(|t| f64::from(scores[t]));
                    scored.push(measure::Scored {
                        chosen,
                        rejected,
                        strength: pair(i).strength,
                        safety: pair(i).safety,
                    });
                }
            }
        }
        record.metrics.extend(measure::metrics(&scored));
    }
}

/// Where both answers of a pair end, in rows where it begins at `place`.
fn last_tokens(pair: &Pair, place: usize) -> [usize; 2] {
    [pair.item.ends[0], pair.item.ends[1]].map(|end| place + end - 1)
}

impl Recipe for Reward<'_> {
    fn plan(&self) -> Vec<String> {
        let (config, c) = (&self.config, self.layout.config());
        let n_rows: usize = self.batches.iter().map(|batch| batch.packed.rows.len()).sum();
        let flops = flops_per_token(c, self.seq_len) * (n_rows * self.seq_len) as f64;
        let mut lines = vec![format!(
            "model       {}: {} parameters, and a head that gives one number",
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
            format!(
                "loss        margin {}, safety loss {}, for rewards around 0 {}",
                format!("{:?}", config.margin).to_lowercase(),
                config.safety_weight,
                config.center_weight
            ),
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
        let (config, recompute) = (self.layout.config(), self.config.recompute);
        let of = MemoryNeeds::new(config, self.micro_batch, self.seq_len, recompute);
        needs(of, &self.base.config, self.lora.as_ref())
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
        let pass =
            RefCell::new(Pass::new(&self.layout, n, self.seq_len, recompute, self.precision));
        let mut batch = |learner: &mut Learner<'_>, step| {
            Ok(self.batch_grads(learner, &mut pass.borrow_mut(), step))
        };
        let mut evaluate = |learner: &Learner<'_>, record: &mut StepRecord| {
            self.evaluate(learner, &mut pass.borrow_mut(), record);
            Ok(())
        };
        self.supervised().run(&mut learner, path, start, stop, on, &mut batch, &mut evaluate)
    }
}
