//! PPO (arXiv 2307.09288, section 3.2.3): the policy answers prompts, two reward models judge, and what they like becomes
//! likelier, at a price for every step away from the model that the run began with.
//!
//! An iteration answers a batch of prompts with the batching engine, on a copy of the very weights; scores answers by
//! `Rc = Rs if is_safety(prompt) or Rs < 0.15 else Rh`, whitens `logit(Rc)` over the batch, and gives each token
//! `−kl_coef·(ln π − ln π₀)`, the last one the score too. Then each mini-batch is learned from once: the clipped
//! objective for the policy, a clipped square for a value head, which is a row beside the output matrix on the same
//! network; the paper does not describe its critic. Advantages are generalised (GAE) and whitened over the batch.
//!
//! **Exact**: the weights after an iteration are a function of settings, prompts and models. Log-probabilities of the
//! answers are computed in the same rows as the update's, so before the first update every ratio is exactly 1, which
//! the program checks.

mod config;
mod rollout;
mod update;

use std::path::Path;
use std::time::Instant;

use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_ops::Precision;
use puna_train::rl::{logit, sigmoid};
use puna_train::{Layout, LoraShape, MemoryNeeds, Pass};

use config::PpoConfig;
use rollout::{Group, Rollout};

use crate::numbers::Count;
use crate::reward::{Author, Judges, Verdict};
use crate::run::{Chain, Form, Learner, State};
use crate::tune::{
    Base, Drawn, Place, Prompt, Prompts, Writer, adapters_line, answer_seed, in_words, left_out,
    needs, read_prompt_files, shuffled,
};
use crate::{Ending, Recipe, RecipeError, Report, Start, StepRecord};

/// The paper's learning rate.
const LR: f64 = 1e-6;

/// Stands where an iteration's number would, for answers to held-out prompts.
const HELD_OUT: u64 = u64::MAX;

/// A run of PPO: what it is made of, before anything is trained.
pub struct Ppo<'a> {
    config: PpoConfig,
    cpu: &'a Cpu,
    base: Base,
    layout: Layout,
    precision: Precision,
    lora: Option<LoraShape>,
    judges: Judges,
    prompts: Prompts,
    seq_len: usize,
    micro_batch: usize,
}

impl<'a> Ppo<'a> {
    /// Reads a configuration, all three models and the prompts; `folder` is where the configuration's paths start.
    ///
    /// # Errors
    /// A setting out of range, with line and column; a model or a file that cannot be read; models of different
    /// vocabularies; a prompt that leaves no room for its answer.
    pub fn new(
        file: &str,
        text: &str,
        folder: &Path,
        options: &OpenOptions,
        cpu: &'a Cpu,
    ) -> Result<Self, RecipeError> {
        let place = Place { file, text, folder };
        let config: PpoConfig = place.parse()?;
        config.check(&place)?;
        let lora = config.lora.as_ref().map(|table| table.shape(&place)).transpose()?;
        let precision = place.precision(config.precision, cpu)?;
        let mut base = Base::open(&place.model(&config.model), options)?;
        let (helpfulness, safety) = (&config.helpfulness, config.safety.as_deref());
        let judges = Judges::open(
            folder,
            helpfulness,
            safety,
            config.threshold,
            &Author::from(&base),
            options,
            precision,
        )?;
        let (max_new_tokens, fraction) = (config.max_new_tokens, config.eval.fraction);
        let prompts = read_prompt_files(
            &config.prompts,
            &place,
            &base,
            max_new_tokens,
            config.seed,
            fraction,
        )?;
        // Rows as short as the longest answer allows: attention costs less, and little is filler.
        let all = prompts.train.iter().chain(&prompts.held_out);
        let longest = all.map(|prompt| prompt.ids.len()).max().unwrap_or(0) + max_new_tokens + 1;
        let seq_len = longest.next_multiple_of(64).min(base.config.max_seq_len);
        let micro_batch = config.micro_batch.unwrap_or((2048 / seq_len).max(1));
        place.at_least_one("micro_batch", micro_batch)?;
        let layout = Layout::with_score(&base.config);
        // In the layout of the policy, it is the reference as it lies.
        base.weights.reserve_exact(base.config.dim);
        base.weights.resize(layout.len(), 0.0);
        Ok(Self {
            config,
            cpu,
            base,
            layout,
            precision,
            lora,
            judges,
            prompts,
            seq_len,
            micro_batch,
        })
    }

    fn learner(&self) -> Result<Learner<'_>, RecipeError> {
        let c = &self.config;
        let settings = in_words([
            ("recipe", "ppo".to_owned()),
            ("model", self.base.hash().to_string()),
            ("judges", self.judges.hash()?),
            ("batch", format!("{} in {}", c.batch, c.mini_batch)),
            ("answers", format!("{} at {}", c.max_new_tokens, c.temperature)),
            ("kl_coef", c.kl_coef.to_string()),
            ("cut_penalty", c.cut_penalty.to_string()),
            ("clip_range", format!("{}, of values {}", c.clip_range, c.value_clip)),
            ("gamma, lambda", format!("{}, {}", c.gamma, c.lambda)),
            ("value_coef, value_lr", format!("{}, {:e}", c.value_coef, self.value_lr())),
            ("threshold", c.threshold.to_string()),
            ("eval", format!("{:?}", c.eval)),
            ("seed", c.seed.to_string()),
            ("precision", self.precision.name().to_owned()),
            ("lora", format!("{:?}", self.lora)),
            ("optimizer", format!("{:?}", c.optimizer)),
        ]);
        let chain = Chain::new(&settings, self.prompts.hash, &self.base.tokenizer_file);
        let state = State::new(self.cpu.isa(), settings, chain);
        let (layout, numbers) = (self.layout.clone(), c.optimizer.numbers());
        let mut learner = Learner::new(self.cpu, &self.base, layout, numbers, state, Form::Chat);
        learner.score_lr = Some(self.value_lr());
        learner.adapt(self.lora.as_ref(), c.seed);
        Ok(learner)
    }

    fn lr(&self) -> f64 {
        self.config.optimizer.lr.unwrap_or(LR)
    }

    fn value_lr(&self) -> f64 {
        self.config.value_lr.unwrap_or(0.25 / self.base.config.dim as f64)
    }

    /// The prompts of an iteration, counted from 0: each is met once before any is met again.
    fn batch(&self, iteration: u64) -> Vec<&Prompt> {
        let n = self.prompts.train.len() as u64;
        let first = iteration * self.config.batch as u64;
        let (mut epoch, mut order) = (u64::MAX, Vec::new());
        (first..first + self.config.batch as u64)
            .map(|index| {
                if index / n != epoch {
                    epoch = index / n;
                    order = shuffled(n as usize, self.config.seed, epoch);
                }
                &self.prompts.train[order[(index % n) as usize]]
            })
            .collect()
    }

    /// Answers of the weights in an iteration.
    fn answers(
        &self,
        weights: &[f32],
        prompts: &[&Prompt],
        iteration: u64,
    ) -> Result<Vec<Drawn>, RecipeError> {
        let (config, network) = (&self.config, Layout::new(&self.base.config));
        let weights = &weights[..network.len()];
        let mut writer = Writer::new(
            self.cpu,
            &network,
            weights,
            self.base.config.max_seq_len,
            self.base.eos_id,
        )?;
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt.ids[..]).collect();
        writer.write(&ids, config.max_new_tokens, |i| Sampling {
            temperature: config.temperature,
            seed: answer_seed(config.seed, iteration, i as u64),
            ..Sampling::default()
        })
    }

    /// Verdicts on answers; those that are cut off pay for it.
    fn judge(&self, prompts: &[&Prompt], drawn: &[Drawn]) -> Result<Vec<Verdict>, RecipeError> {
        let answers: Vec<(&Prompt, &Drawn)> = prompts.iter().copied().zip(drawn).collect();
        let mut verdicts = self.judges.verdicts(self.cpu, &answers, self.base.eos_id)?;
        for (verdict, _) in verdicts.iter_mut().zip(drawn).filter(|(_, drawn)| !drawn.is_complete) {
            verdict.score = sigmoid(logit(verdict.score) - self.config.cut_penalty);
        }
        Ok(verdicts)
    }

    /// One iteration: answers, rewards, an update for each mini-batch. What is wrong with it, if something is.
    fn iteration(
        &self,
        learner: &mut Learner<'_>,
        pass: &mut Pass,
        record: &mut StepRecord,
    ) -> Result<Option<String>, RecipeError> {
        let config = &self.config;
        let iteration = learner.state.step;
        let begun = Instant::now();
        let prompts = self.batch(iteration);
        let drawn = self.answers(&learner.weights, &prompts, iteration)?;
        let rollout_secs = begun.elapsed().as_secs_f64();
        let verdicts = self.judge(&prompts, &drawn)?;
        let scores: Vec<f64> = verdicts.iter().map(|verdict| verdict.score).collect();
        rollout::check(&scores)?;
        let mut rollouts = rollout::begin(&prompts, &drawn, &scores, self.base.eos_id);
        let parts = rollouts.chunks_mut(config.mini_batch);
        let mut groups: Vec<Group<'_>> = parts.map(|part| Group::new(part, self.seq_len)).collect();
        // What reference and policy say before any update, in the rows of the updates.
        for group in &mut groups {
            self.observe(pass, &self.base.weights, group, |r, logprobs, _| {
                r.logprobs_ref = logprobs;
            });
            self.observe(pass, &learner.weights, group, |r, logprobs, values| {
                (r.logprobs_old, r.values_old) = (logprobs, values);
            });
        }
        let kl = rollout::advantages(&mut groups, config.kl_coef, config.gamma, config.lambda);
        let sums = match self.update(learner, pass, &groups)? {
            Ok(sums) => sums,
            Err(fault) => return Ok(Some(format!("iteration {}, {fault}", iteration + 1))),
        };
        let n = prompts.len() as f64;
        let mean = |of: fn(&Verdict) -> f64| verdicts.iter().map(of).sum::<f64>() / n;
        let old =
            groups.iter().flat_map(|group| group.rollouts.iter()).flat_map(|r| &r.logprobs_old);
        record.loss = Some(sums.policy_loss / sums.n_tokens);
        record.grad_norm = Some(sums.norms / groups.len() as f64);
        record.lr = self.lr();
        let n_drawn: usize = drawn.iter().map(|drawn| drawn.tokens.len()).sum();
        for (name, value) in [
            ("reward", mean(|v| v.score)),
            ("helpfulness", mean(|v| v.helpfulness)),
            ("safety", mean(|v| v.safety)),
            ("kl", kl),
            ("value_loss", sums.value_loss / sums.n_tokens),
            ("clip_fraction", sums.n_clipped / sums.n_tokens),
            // The mean over drawn tokens estimates it, where they are drawn at temperature 1.
            ("entropy", -old.sum::<f64>() / sums.n_tokens),
            ("answer_tokens", n_drawn as f64 / n),
            ("complete", drawn.iter().filter(|drawn| drawn.is_complete).count() as f64 / n),
            ("rollout_secs", rollout_secs),
        ] {
            record.metrics.insert(name.to_owned(), value);
        }
        Ok(None)
    }

    fn observe(
        &self,
        pass: &mut Pass,
        weights: &[f32],
        group: &mut Group<'_>,
        keep: impl Fn(&mut Rollout, Vec<f64>, Vec<f64>),
    ) {
        group.observe(pass, self.cpu, weights, self.micro_batch, keep);
    }

    /// Answers held-out prompts: what the objective is there, into the record; whether it was never better.
    fn evaluate(
        &self,
        learner: &mut Learner<'_>,
        pass: &mut Pass,
        record: &mut StepRecord,
    ) -> Result<bool, RecipeError> {
        let eval = &self.config.eval;
        let prompts: Vec<&Prompt> = self.prompts.held_out.iter().take(eval.at_most).collect();
        if prompts.is_empty() {
            return Ok(false);
        }
        let drawn = self.answers(&learner.weights, &prompts, HELD_OUT)?;
        let verdicts = self.judge(&prompts, &drawn)?;
        let scores: Vec<f64> = verdicts.iter().map(|verdict| verdict.score).collect();
        let mut rollouts = rollout::begin(&prompts, &drawn, &scores, self.base.eos_id);
        let mut group = Group::new(&mut rollouts, self.seq_len);
        self.observe(pass, &self.base.weights, &mut group, |r, logprobs, _| {
            r.logprobs_ref = logprobs;
        });
        self.observe(pass, &learner.weights, &mut group, |r, logprobs, _| {
            r.logprobs_old = logprobs;
        });
        let n = prompts.len() as f64;
        let kl = group.rollouts.iter().map(Rollout::kl).sum::<f64>() / n;
        let reward = scores.iter().sum::<f64>() / n;
        let objective = reward - self.config.kl_coef * kl;
        for (name, value) in
            [("held_out_reward", reward), ("held_out_kl", kl), ("held_out_objective", objective)]
        {
            record.metrics.insert(name.to_owned(), value);
        }
        let shown = prompts.iter().zip(&drawn).take(eval.samples);
        record.samples = shown.map(|(prompt, drawn)| self.shown(prompt, drawn)).collect();
        let best = learner.state.best;
        let is_best = best.is_none_or(|(_, best)| objective > f64::from_bits(best));
        if is_best {
            learner.state.best = Some((record.step, objective.to_bits()));
        }
        Ok(is_best)
    }

    /// A prompt's last message with its answer.
    fn shown(&self, prompt: &Prompt, drawn: &Drawn) -> String {
        let asked = prompt.messages.last().map_or("", |message| &message.content);
        format!("{asked}\n→ {}", self.base.tokenizer.decode(&drawn.tokens).trim())
    }
}

impl Recipe for Ppo<'_> {
    fn plan(&self) -> Vec<String> {
        let c = &self.config;
        let mut lines = vec![format!(
            "policy      {}: {} parameters, and a value head",
            self.base.name,
            Count(self.base.config.n_params() as f64)
        )];
        lines.extend(self.prompts.lines.iter().cloned());
        lines.extend([
            format!(
                "prompts     {} to train on, {} held out",
                self.prompts.train.len(),
                self.prompts.held_out.len()
            ),
            format!(
                "run         {} iterations of {} prompts in mini-batches of {}: {} updates; products in {}",
                c.iterations,
                c.batch,
                c.mini_batch,
                c.iterations * (c.batch / c.mini_batch) as u64,
                self.precision.name()
            ),
            format!("answers     up to {} tokens at temperature {}", c.max_new_tokens, c.temperature),
            format!(
                "objective   KL costs {}, a cut answer {}, ratios within {} of 1, gamma {}, lambda {}, value loss {}",
                c.kl_coef, c.cut_penalty, c.clip_range, c.gamma, c.lambda, c.value_coef
            ),
            format!("rate        {:e}, of the value head {:.1e}, constant", self.lr(), self.value_lr()),
            format!("memory      {:.1} MB", self.memory() as f64 / 1e6),
        ]);
        lines.extend(adapters_line(self.lora.as_ref()));
        lines
    }

    fn n_steps(&self) -> u64 {
        self.config.iterations
    }

    fn memory(&self) -> u64 {
        let recompute = self.config.recompute;
        let of = MemoryNeeds::new(&self.base.config, self.micro_batch, self.seq_len, recompute);
        // The reference is what the run begins with; networks that judge come beside.
        needs(of, &self.base.config, self.lora.as_ref()) + self.judges.n_bytes()
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
        let config = &self.config;
        let mut learner = self.learner()?;
        learner.left_out.extend(left_out(&self.plan()));
        let (folder, mut log) = learner.start(path, start, on)?;
        let (keep, n_rows) = (config.checkpoint.keep, self.micro_batch);
        let mut pass =
            Pass::new(&self.layout, n_rows, self.seq_len, config.recompute, self.precision);
        while learner.state.step < config.iterations {
            if stop() {
                learner.save(&folder, keep, on)?;
                return Ok(Ending::Stopped);
            }
            let begun = Instant::now();
            let step = learner.state.step + 1;
            let mut record = StepRecord { step, ..StepRecord::default() };
            if let Some(fault) = self.iteration(&mut learner, &mut pass, &mut record)? {
                return Ok(Ending::Fault(fault));
            }
            learner.state.step = step;
            let secs = begun.elapsed().as_secs_f64();
            let n_tokens = config.batch as f64 * record.metrics["answer_tokens"];
            record.tokens = log.tokens() + n_tokens.round() as u64;
            record.tokens_per_sec = n_tokens / secs;
            let is_due =
                |every: u64| every > 0 && (step.is_multiple_of(every) || step == config.iterations);
            let is_measured = is_due(config.eval.every);
            let is_best = is_measured && self.evaluate(&mut learner, &mut pass, &mut record)?;
            log.write(&mut record)?;
            let eta_secs = (config.iterations - step) as f64 * secs;
            on(Report::Step { record: &record, eta_secs });
            if is_due(config.checkpoint.every) || is_best {
                learner.save(&folder, keep, on)?;
            }
            let since_best = learner.state.best.map_or(0, |(best, _)| step - best);
            let patience = config.eval.patience * config.eval.every;
            if is_measured && patience > 0 && since_best >= patience {
                learner.save(&folder, keep, on)?;
                on(Report::Note(format!(
                    "no better on held-out prompts for {since_best} iterations: the run ends early"
                )));
                return Ok(Ending::Complete);
            }
        }
        Ok(Ending::Complete)
    }
}
