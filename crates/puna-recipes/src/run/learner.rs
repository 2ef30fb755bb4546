//! What every stage after pre-training has in memory: weights or adapters, their gradients, AdamW, and where the run is.

use std::ops::Range;
use std::path::Path;

use puna_kernels::Cpu;
use puna_train::{Grads, Layout, Lora, LoraShape, Optimizer, OptimizerConfig, grad_norm};

use super::checkpoint::{AdapterContents, Checkpoint, Contents, State};
use super::{Log, RunFolder};
use crate::tune::Base;
use crate::{RecipeError, Report, Start};

/// What a checkpoint of the weights is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A language model.
    Language,
    /// A language model for conversations in the Llama 2 form, which the checkpoint then says.
    Chat,
    /// A network that scores a text: `LlamaForSequenceClassification` with one label.
    Score,
}

/// Adapters, which are added to the weights of the base.
#[derive(Debug)]
struct Adapters {
    lora: Lora,
    values: Vec<f32>,
    grads: Vec<f32>,
}

/// Weights that are being trained.
#[derive(Debug)]
pub(crate) struct Learner<'a> {
    pub cpu: &'a Cpu,
    /// What it began with, which stays as it is.
    base: &'a Base,
    pub layout: Layout,
    /// Adapters included.
    pub weights: Vec<f32>,
    pub grads: Grads,
    adapters: Option<Adapters>,
    optimizer: Optimizer,
    numbers: OptimizerConfig,
    /// The learning rate of the layout's scoring row, where it is not that of all else.
    pub score_lr: Option<f64>,
    /// What the data lacks of its files, a line each, for the log of a run that begins.
    pub left_out: Vec<String>,
    pub state: State,
    saved_step: Option<u64>,
    form: Form,
}

impl<'a> Learner<'a> {
    /// Begins with the weights of `base`, in the order of `layout`; what that has beyond them is zeros.
    pub(crate) fn new(
        cpu: &'a Cpu,
        base: &'a Base,
        layout: Layout,
        numbers: OptimizerConfig,
        state: State,
        form: Form,
    ) -> Self {
        let mut weights = base.weights[..layout.n_network()].to_vec();
        weights.resize(layout.len(), 0.0);
        Self {
            cpu,
            base,
            grads: Grads::new(&layout),
            optimizer: Optimizer::new(layout.len()),
            layout,
            weights,
            adapters: None,
            numbers,
            score_lr: None,
            left_out: Vec::new(),
            state,
            saved_step: None,
            form,
        }
    }

    /// Trains adapters instead of the weights, and a scoring row as it is now.
    pub(crate) fn adapt(&mut self, shape: Option<&LoraShape>, seed: u64) {
        let Some(shape) = shape else { return };
        let lora = Lora::new(&self.layout, shape);
        let (values, grads) = (lora.init(&self.weights, seed), vec![0.0; lora.len()]);
        self.optimizer = Optimizer::new(lora.len());
        self.adapters = Some(Adapters { lora, values, grads });
    }

    /// The length of the gradient of a complete batch, of what is trained; not finite if a part of it is not.
    pub(crate) fn grad_norm(&mut self) -> f64 {
        let full = self.grads.complete(self.cpu);
        match &mut self.adapters {
            None => grad_norm(self.cpu, full),
            Some(Adapters { lora, values, grads }) => {
                lora.grads(self.cpu, values, full, grads);
                grad_norm(self.cpu, grads)
            }
        }
    }

    /// Updates what is trained by the gradients whose length [`Learner::grad_norm`] has measured, and begins a new batch.
    pub(crate) fn update(&mut self, lr: f64, norm: f64) {
        let Self { cpu, base, layout, weights, grads, adapters, optimizer, numbers, .. } = self;
        let score = adapters.as_ref().map_or_else(|| layout.score(), |a| a.lora.score());
        let score_lr = self.score_lr.unwrap_or(lr);
        let lr = |span: &Range<usize>| if Some(span) == score.as_ref() { score_lr } else { lr };
        match adapters {
            None => {
                let full = grads.complete(cpu);
                optimizer.update(cpu, layout.parts(), numbers, lr, weights, full, norm);
            }
            Some(Adapters { lora, values, grads }) => {
                optimizer.update(cpu, lora.parts(), numbers, lr, values, grads, norm);
                lora.merge(cpu, values, &base.weights, weights);
            }
        }
        self.grads.clear();
    }

    /// Fails where a tensor of the network has no gradient in the complete batch, as after a part of the network was left
    /// out by mistake. Embeddings of a row are touched where their token is, so they count as a whole.
    pub(crate) fn check_all_touched(&mut self) -> Result<(), RecipeError> {
        let grads = self.grads.complete(self.cpu);
        match self
            .layout
            .spans()
            .iter()
            .find(|(_, span)| grads[span.clone()].iter().all(|&g| g == 0.0))
        {
            None => Ok(()),
            Some((id, _)) => {
                Err(RecipeError::Check(format!("{id} received no gradient: please report this")))
            }
        }
    }

    /// Begins a new folder, or takes what an old one has; with its log.
    ///
    /// # Errors
    /// The folder is not as `start` needs it.
    pub(crate) fn start(
        &mut self,
        path: &Path,
        start: Start<'_>,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<(RunFolder, Log), RecipeError> {
        if let Start::New { config } = start {
            let folder = RunFolder::create(path, config)?;
            let mut log = Log::open(path, 0)?;
            self.left_out.drain(..).for_each(|line| log.tell(line));
            return Ok((folder, log));
        }
        let folder = RunFolder::open(path)?;
        let goes_on = self.load(&folder, on)?;
        let event = match goes_on {
            true => format!("going on after step {}", self.state.step),
            false => "no checkpoint yet: from the beginning".to_owned(),
        };
        let mut log = Log::open(path, self.state.step)?;
        if !goes_on {
            self.left_out.drain(..).for_each(|line| log.tell_once(line));
        }
        log.tell(event.clone());
        on(Report::Note(event));
        Ok((folder, log))
    }

    /// Takes the newest checkpoint of this very run that is whole; `false` if there is none at all.
    ///
    /// # Errors
    /// One is of another run, all are damaged, or the folder cannot be read.
    pub(crate) fn load(
        &mut self,
        folder: &RunFolder,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<bool, RecipeError> {
        let lora = self.adapters.as_ref().map(|adapters| &adapters.lora);
        let read = |path: &Path| Checkpoint::read(path, &self.layout, lora);
        let Some((step, checkpoint)) = folder.newest_whole(&self.state, read, on)? else {
            return Ok(false);
        };
        let Checkpoint { state, weights, optimizer, hash } = checkpoint;
        if let Some(note) = state.other_machine(&self.state) {
            on(Report::Note(note));
        }
        self.optimizer = optimizer;
        match &mut self.adapters {
            None => self.weights = weights,
            Some(Adapters { lora, values, .. }) => {
                *values = weights;
                lora.merge(self.cpu, values, &self.base.weights, &mut self.weights);
            }
        }
        self.state = state.going_on(&self.state.isa, hash);
        self.saved_step = Some(step);
        Ok(true)
    }

    /// Writes a checkpoint, and removes those that are not to be kept.
    ///
    /// # Errors
    /// The disk is full, or the system refuses.
    pub(crate) fn save(
        &mut self,
        folder: &RunFolder,
        keep: u64,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<(), RecipeError> {
        let step = self.state.step;
        // What is there already is not put at risk.
        if self.saved_step == Some(step) {
            return Ok(());
        }
        let contents =
            Contents {
                layout: &self.layout,
                weights: &self.weights,
                adapters: self.adapters.as_ref().map(|Adapters { lora, values, .. }| {
                    AdapterContents { lora, values, base: &self.base.origin }
                }),
                optimizer: &self.optimizer,
                tokenizer: &self.base.tokenizer_file,
                bos_eos: (self.base.bos_id, self.base.eos_id),
                form: self.form,
            };
        let hash = contents.write(&folder.checkpoint(step), self.state.clone())?;
        self.state.chain.parent = Some(hash);
        self.saved_step = Some(step);
        folder.prune(keep, self.state.best.map(|(step, _)| step))?;
        on(Report::Checkpoint { step });
        Ok(())
    }
}
