//! From scored tokens to figures.

use puna_core::{KvType, TensorSource};
use puna_kernels::Cpu;

use crate::estimate::percentile;
use crate::pass::{Pass, Scored, Watch};
use crate::windows::{Window, windows};
use crate::{Estimate, EvalError, Text};

/// How to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Tokens of a window.
    pub ctx: usize,
    /// Tokens from window to window; without one, windows do not overlap.
    pub stride: Option<usize>,
    /// How keys and values are stored.
    pub kv_type: KvType,
}

impl Options {
    /// Checks that `text` can be measured so, before any work.
    ///
    /// # Errors
    /// The text is shorter than a window, or the options cannot be met.
    pub fn check(&self, text: &Text) -> Result<(), EvalError> {
        windows(&text.name, text.n_tokens(), self.ctx, self.stride).map(drop)
    }
}

/// How well a model predicts a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Tokens that were scored.
    pub n_tokens: usize,
    /// `−ln p` of a token, in nats.
    pub nll: Estimate,
    /// Bytes of text that the scored tokens stand for.
    pub n_bytes: usize,
}

/// How far a model is from its parent on a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The parent by itself.
    pub parent: Perplexity,
    /// The model by itself.
    pub child: Perplexity,
    /// `KL(parent‖child)` of the next token's distributions, in nats.
    pub kl: Estimate,
    /// The divergence that 99 of 100 positions do not exceed, in nats.
    pub kl_p99: f64,
    /// The largest divergence, in nats.
    pub kl_max: f64,
    /// Share of positions at which both have the same most likely token.
    pub same_top: Estimate,
    /// `ln(perplexity of the child / perplexity of the parent)`, token by token on the same text: its error is far
    /// smaller than that of either.
    pub ln_ratio: Estimate,
}

impl Perplexity {
    /// `e^nll` with its standard error.
    pub fn perplexity(&self) -> Estimate {
        let mean = self.nll.mean.exp();
        Estimate { mean, error: mean * self.nll.error }
    }

    /// Bits per byte of text with the standard error.
    pub fn bits_per_byte(&self) -> Estimate {
        let per_nat = self.n_tokens as f64 / std::f64::consts::LN_2 / (self.n_bytes.max(1) as f64);
        Estimate { mean: self.nll.mean * per_nat, error: self.nll.error * per_nat }
    }

    fn new(scores: &[Scored], model: usize, n_bytes: usize) -> Self {
        let nll = Estimate::of(scores.iter().map(|s| s.nll[model]));
        Self { n_tokens: scores.len(), nll, n_bytes }
    }
}

/// Measures `model` on `text`. `progress` gets work done and work to do, and says whether to go on.
///
/// # Errors
/// The text is shorter than a window, options cannot be met, or the model cannot run.
pub fn perplexity(
    model: &dyn TensorSource,
    text: &Text,
    options: Options,
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Perplexity, EvalError> {
    let Options { ctx, stride, kv_type } = options;
    let windows = windows(&text.name, text.n_tokens(), ctx, stride)?;
    let mut pass = Pass { text, windows: &windows, ctx, kv_type, cpu, progress };
    let scores = pass.score(&[model])?;
    Ok(Perplexity::new(&scores, 0, scored_bytes(text, &windows)))
}

/// Measures `parent` and `child` on the same positions of `text`, which is in the tokens of both.
///
/// # Errors
/// As [`perplexity`], or the two have vocabularies of different sizes.
pub fn compare(
    parent: &dyn TensorSource,
    child: &dyn TensorSource,
    text: &Text,
    options: Options,
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Comparison, EvalError> {
    let sizes = [parent, child].map(|model| model.config().vocab_size);
    if sizes[0] != sizes[1] {
        return Err(EvalError::Vocabulary { parent: sizes[0], child: sizes[1] });
    }
    let Options { ctx, stride, kv_type } = options;
    let windows = windows(&text.name, text.n_tokens(), ctx, stride)?;
    let mut pass = Pass { text, windows: &windows, ctx, kv_type, cpu, progress };
    let scores = pass.score(&[parent, child])?;
    let n_bytes = scored_bytes(text, &windows);
    let mut divergences: Vec<f64> = scores.iter().map(|s| s.kl).collect();
    divergences.sort_by(f64::total_cmp);
    Ok(Comparison {
        parent: Perplexity::new(&scores, 0, n_bytes),
        child: Perplexity::new(&scores, 1, n_bytes),
        kl: Estimate::of(scores.iter().map(|s| s.kl)),
        kl_p99: percentile(&divergences, 0.99),
        kl_max: divergences[divergences.len() - 1],
        same_top: Estimate::of(scores.iter().map(|s| f64::from(u8::from(s.same_top)))),
        ln_ratio: Estimate::of(scores.iter().map(|s| s.nll[1] - s.nll[0])),
    })
}

/// Runs all whole windows of `text` through `model` and shows `watch` every input of its matrices: the index of the
/// block, the matrices that share the input, and the rows, `[T, cols]`, in the order of the text. Returns the number of
/// windows.
///
/// # Errors
/// As [`perplexity`].
pub fn watch_inputs(
    model: &dyn TensorSource,
    text: &Text,
    options: Options,
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64, u64) -> bool,
    watch: Watch<'_>,
) -> Result<usize, EvalError> {
    let Options { ctx, stride, kv_type } = options;
    let windows = windows(&text.name, text.n_tokens(), ctx, stride)?;
    let mut pass = Pass { text, windows: &windows, ctx, kv_type, cpu, progress };
    pass.run(&[model], watch, &mut |_, _| Ok(()))?;
    Ok(windows.len())
}

fn scored_bytes(text: &Text, windows: &[Window]) -> usize {
    let scored = |w: &Window| w.start + w.scored.start..w.start + w.scored.end;
    windows.iter().map(|w| text.n_bytes[scored(w)].iter().sum::<usize>()).sum()
}
