//! The loop of stages that learn from given data: a batch, an update, now and then a measurement and a checkpoint.

use std::path::Path;
use std::time::Instant;

use puna_train::Schedule;

use super::settings::{CheckpointTable, OptimizerTable};
use crate::run::Learner;
use crate::{Ending, RecipeError, Report, Start, StepRecord};

/// What such a run is, beside its batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supervised<'a> {
    pub optimizer: &'a OptimizerTable,
    /// The highest learning rate.
    pub lr: f64,
    pub n_steps: u64,
    /// Steps from one measurement to the next; zero for none.
    pub eval_every: u64,
    pub checkpoint: CheckpointTable,
}

/// What a batch tells beside its gradients, which are with the learner.
pub(crate) struct Learned {
    /// Mean loss.
    pub loss: f64,
    pub n_tokens: usize,
    /// Finite numbers worth a curve.
    pub metrics: Vec<(&'static str, f64)>,
}

impl Supervised<'_> {
    /// The schedule of its learning rate.
    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            peak: self.lr,
            n_warmup: self.optimizer.n_warmup(self.n_steps),
            n_steps: self.n_steps,
            min_ratio: self.optimizer.min_lr_ratio,
        }
    }

    /// Two lines for a plan.
    pub(crate) fn plan(&self) -> String {
        format!(
            "rate        up to {:e} in {} of {} steps, then a cosine to {:.0} %",
            self.lr,
            self.optimizer.n_warmup(self.n_steps),
            self.n_steps,
            100.0 * self.optimizer.min_lr_ratio
        )
    }

    /// Makes all steps that are left. `batch` adds the gradients of a step, counted from 0; `evaluate` adds what it
    /// measures to the record.
    #[expect(
        clippy::too_many_arguments,
        reason = "a run's place, its surroundings, and its two parts"
    )]
    pub(crate) fn run(
        &self,
        learner: &mut Learner<'_>,
        path: &Path,
        start: Start<'_>,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
        batch: &mut dyn FnMut(&mut Learner<'_>, u64) -> Result<Learned, RecipeError>,
        evaluate: &mut dyn FnMut(&Learner<'_>, &mut StepRecord) -> Result<(), RecipeError>,
    ) -> Result<Ending, RecipeError> {
        let (folder, mut log) = learner.start(path, start, on)?;
        let (schedule, CheckpointTable { every, keep }) = (self.schedule(), self.checkpoint);
        while learner.state.step < self.n_steps {
            if stop() {
                learner.save(&folder, keep, on)?;
                return Ok(Ending::Stopped);
            }
            let begun = Instant::now();
            let step = learner.state.step + 1;
            let learned = batch(learner, step - 1)?;
            if step == 1 {
                learner.check_all_touched()?;
            }
            let (loss, norm) = (learned.loss, learner.grad_norm());
            if !(loss.is_finite() && norm.is_finite()) {
                learner.save(&folder, keep, on)?;
                let fault =
                    format!("step {step}: loss {loss}, length of the gradient {norm}: not finite");
                return Ok(Ending::Fault(fault));
            }
            let lr = schedule.lr(step);
            learner.update(lr, norm);
            learner.state.step = step;
            let secs = begun.elapsed().as_secs_f64();
            let mut record = StepRecord {
                step,
                tokens: log.tokens() + learned.n_tokens as u64,
                loss: Some(loss),
                lr,
                grad_norm: Some(norm),
                tokens_per_sec: learned.n_tokens as f64 / secs,
                ..StepRecord::default()
            };
            for (name, value) in learned.metrics {
                record.metrics.insert(name.to_owned(), value);
            }
            let is_due =
                |every: u64| every > 0 && (step.is_multiple_of(every) || step == self.n_steps);
            if is_due(self.eval_every) {
                evaluate(learner, &mut record)?;
            }
            log.write(&mut record)?;
            on(Report::Step { record: &record, eta_secs: (self.n_steps - step) as f64 * secs });
            if is_due(every) {
                learner.save(&folder, keep, on)?;
            }
        }
        Ok(Ending::Complete)
    }
}
