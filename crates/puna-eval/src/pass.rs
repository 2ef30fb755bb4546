//! Windows of a text through one or two models, in groups that fit into memory.

use puna_core::{KvType, LayerWeight, TensorSource};
use puna_kernels::Cpu;
use puna_model::Layerwise;

use crate::EvalError;
use crate::text::Text;
use crate::windows::Window;

/// Bytes of residual streams of a group, for each model. A group is one reading of the model's files.
const GROUP_BYTES: usize = 1 << 28;
/// Tokens of a group, so that progress is told now and then.
const GROUP_TOKENS: usize = 1 << 14;
/// Rows of logits at a time.
const LOGIT_ROWS: usize = 64;

/// What is kept of one scored token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Scored {
    /// `−ln p` of the token by each model; the second is the child where there are two.
    pub(crate) nll: [f64; 2],
    /// `KL(parent‖child)`.
    pub(crate) kl: f64,
    /// Whether both have the same most likely token.
    pub(crate) same_top: bool,
    /// A model that gave logits that are no numbers.
    bad: Option<usize>,
}

/// How to run windows of a text through models.
pub(crate) struct Pass<'a> {
    pub(crate) text: &'a Text,
    pub(crate) windows: &'a [Window],
    /// Tokens of a window.
    pub(crate) ctx: usize,
    pub(crate) kv_type: KvType,
    pub(crate) cpu: &'a Cpu,
    /// Gets tokens·layers done and to do, and says whether to go on.
    pub(crate) progress: &'a mut dyn FnMut(u64, u64) -> bool,
}

/// Called with the index of a block, matrices of it that are about to be multiplied with the same input, and that
/// input, `[T, cols]`.
pub type Watch<'a> = &'a mut dyn FnMut(usize, &[LayerWeight], &[f32]);

/// Called with the models once they hold the hidden states of a group of windows, and those windows.
type OnGroup<'a> = &'a mut dyn FnMut(&mut [Layerwise<'_>], &[Window]) -> Result<(), EvalError>;

impl Pass<'_> {
    /// Carries the windows through all blocks, group by group, and hands each group over with its hidden states.
    pub(crate) fn run(
        &mut self,
        models: &[&dyn TensorSource],
        watch: Watch<'_>,
        on_group: OnGroup<'_>,
    ) -> Result<(), EvalError> {
        let mut runs = Vec::with_capacity(models.len());
        for model in models {
            runs.push(Layerwise::new(*model, self.cpu, self.kv_type, self.ctx)?);
        }
        let dim = runs.iter().map(|run| run.config().dim).max().unwrap_or(1);
        let group = (GROUP_BYTES / (4 * dim)).min(GROUP_TOKENS) / self.ctx;
        let n_layers: usize = runs.iter().map(|run| run.config().n_layers + 1).sum();
        let total = (self.windows.len() * self.ctx * n_layers) as u64;
        let mut done = 0;
        for windows in self.windows.chunks(group.max(1)) {
            let ids: Vec<_> = windows.iter().map(|w| self.text.window(w.start, self.ctx)).collect();
            let sequences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
            let mut step = || {
                done += (windows.len() * self.ctx) as u64;
                if (self.progress)(done, total) { Ok(()) } else { Err(EvalError::Stopped) }
            };
            for run in &mut runs {
                run.begin(&sequences);
                for idx in 0..run.config().n_layers {
                    run.layer(idx, &mut |weights, rows| watch(idx, weights, rows))?;
                    step()?;
                }
                run.finish();
                step()?;
            }
            on_group(&mut runs, windows)?;
        }
        Ok(())
    }

    /// Scores the tokens of all windows, in their order. `models` are one or two with the same vocabulary.
    pub(crate) fn score(&mut self, models: &[&dyn TensorSource]) -> Result<Vec<Scored>, EvalError> {
        let (text, ctx, cpu) = (self.text, self.ctx, self.cpu);
        let mut scores = Vec::new();
        self.run(models, &mut |_, _, _| {}, &mut |runs, windows| {
            score_group(runs, text, windows, ctx, cpu, &mut scores)
        })?;
        Ok(scores)
    }
}

/// Scores the windows whose hidden states `runs` hold.
fn score_group(
    runs: &mut [Layerwise<'_>],
    text: &Text,
    windows: &[Window],
    ctx: usize,
    cpu: &Cpu,
    scores: &mut Vec<Scored>,
) -> Result<(), EvalError> {
    for (idx, window) in windows.iter().enumerate() {
        let mut place = window.scored.start;
        while place < window.scored.end {
            let n_rows = LOGIT_ROWS.min(window.scored.end - place);
            // The row before a token predicts it.
            let first_row = idx * ctx + place - 1;
            let logits: Vec<&[f32]> =
                runs.iter_mut().map(|run| run.logits(first_row, n_rows)).collect();
            let first_token = window.start + place;
            let targets = &text.ids[first_token..][..n_rows];
            let start = scores.len();
            scores.resize(start + n_rows, Scored::default());
            score_rows(cpu, &logits, targets, &mut scores[start..]);
            if let Some((i, bad)) =
                scores[start..].iter().zip(0..).find_map(|(s, i)| Some((i, s.bad?)))
            {
                let model = if logits.len() > 1 && bad == 0 { "the parent" } else { "the model" };
                return Err(EvalError::NotFinite { model, position: first_token + i });
            }
            place += n_rows;
        }
    }
    Ok(())
}

/// Scores one token for each row of logits, the rows in parallel.
fn score_rows(cpu: &Cpu, logits: &[&[f32]], targets: &[u32], scores: &mut [Scored]) {
    let vocab_size = logits[0].len() / targets.len();
    cpu.pool().run_chunks(scores, 1, &|row, score| {
        let row_of = |model: usize| &logits[model][row * vocab_size..][..vocab_size];
        score[0] = match logits.len() {
            1 => score_one(row_of(0), targets[row]),
            _ => score_two(row_of(0), row_of(1), targets[row]),
        };
    });
}

fn score_one(logits: &[f32], target: u32) -> Scored {
    match Distribution::new(logits) {
        Some(p) => Scored { nll: [-p.ln(logits[target as usize]); 2], ..Scored::default() },
        None => Scored { bad: Some(0), ..Scored::default() },
    }
}

fn score_two(parent: &[f32], child: &[f32], target: u32) -> Scored {
    let (p, q) = match (Distribution::new(parent), Distribution::new(child)) {
        (Some(p), Some(q)) => (p, q),
        (None, _) => return Scored { bad: Some(0), ..Scored::default() },
        (_, None) => return Scored { bad: Some(1), ..Scored::default() },
    };
    let mut kl = 0.0;
    for (&a, &b) in parent.iter().zip(child) {
        let ln_p = p.ln(a);
        kl += ln_p.exp() * (ln_p - q.ln(b));
    }
    Scored {
        nll: [-p.ln(parent[target as usize]), -q.ln(child[target as usize])],
        kl,
        same_top: p.top == q.top,
        bad: None,
    }
}

/// `softmax(logits)` in f64.
struct Distribution {
    /// `ln Σ e^logit`.
    ln_total: f64,
    /// The most likely token, the first of equals.
    top: usize,
}

impl Distribution {
    /// `None` if a logit is not finite.
    fn new(logits: &[f32]) -> Option<Self> {
        let (mut top, mut max) = (0, f32::NEG_INFINITY);
        for (token, &logit) in logits.iter().enumerate() {
            if !logit.is_finite() {
                return None;
            }
            if logit > max {
                (top, max) = (token, logit);
            }
        }
        let max = f64::from(max);
        let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
        Some(Self { ln_total: max + total.ln(), top })
    }

    /// `ln p` of a token with this logit.
    fn ln(&self, logit: f32) -> f64 {
        f64::from(logit) - self.ln_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_by_hand() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 − 1/4 ln 2.
        let (p, q) = ([2f32.ln(), 0.0, 0.0], [0.0, 2f32.ln(), 0.0]);
        let score = score_two(&p, &q, 1);
        assert!((score.kl - 0.25 * 2f64.ln()).abs() < 1e-7);
        assert!((score.nll[0] - 4f64.ln()).abs() < 1e-7 && (score.nll[1] - 2f64.ln()).abs() < 1e-7);
        assert!(!score.same_top && score_two(&p, &p, 0).same_top);
        assert_eq!(score_two(&p, &p, 0).kl, 0.0);
        assert_eq!(score_one(&[0.0, f32::NAN], 0).bad, Some(0));
        assert_eq!(score_two(&p, &[f32::INFINITY, 0.0, 0.0], 0).bad, Some(1));
        // Large logits neither overflow nor vanish.
        assert!(
            (score_one(&[1e4, 1e4 - 1.0], 1).nll[0] - (1.0 + (-1f64).exp()).ln() - 1.0).abs()
                < 1e-9
        );
    }
}
