//! Every gradient of the network against finite differences of a network in f64.

mod common;

use common::{config, losses, scores, tokens, weights};
use puna_core::ModelConfig;
use puna_kernels::{Cpu, Isa};
use puna_ops::Precision;
use puna_train::{Grads, Layout, MicroBatch, Pass};

const N_SEQS: usize = 2;
const SEQ_LEN: usize = 6;
const N: usize = N_SEQS * SEQ_LEN;

/// What is learned from: one token is masked, the others count differently.
struct Batch {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    scales: Vec<f32>,
    starts: Vec<u32>,
}

impl Batch {
    fn new(config: &ModelConfig) -> Self {
        let mut scales: Vec<f32> = (0..N).map(|i| 0.05 + 0.01 * i as f32).collect();
        scales[3] = 0.0;
        Self {
            tokens: tokens(1, N, config.vocab_size),
            targets: tokens(2, N, config.vocab_size),
            scales,
            starts: [0, 0, 0, 3, 3, 3].repeat(N_SEQS),
        }
    }

    fn view(&self, within_documents: bool) -> MicroBatch<'_> {
        MicroBatch {
            tokens: &self.tokens,
            targets: &self.targets,
            scales: &self.scales,
            starts: within_documents.then_some(&self.starts[..]),
        }
    }

    /// The losses by the network in f64.
    fn exact(&self, layout: &Layout, weights: &[f64], within_documents: bool) -> Vec<f64> {
        (0..N_SEQS)
            .flat_map(|seq| {
                let range = seq * SEQ_LEN..(seq + 1) * SEQ_LEN;
                let starts = within_documents.then_some(&self.starts[range.clone()]);
                let (tokens, targets) = (&self.tokens[range.clone()], &self.targets[range]);
                losses(layout, weights, tokens, targets, starts)
            })
            .collect()
    }

    fn total(&self, losses: &[f64]) -> f64 {
        losses.iter().zip(&self.scales).map(|(l, &s)| l * f64::from(s)).sum()
    }
}

/// The slope of `total` by each weight.
fn slopes(exact: &mut [f64], total: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let n = exact.len();
    let mut slope = |i: usize| {
        let w = exact[i];
        let mut at = |w: f64| {
            exact[i] = w;
            total(exact)
        };
        let slope = (at(w + STEP) - at(w - STEP)) / (2.0 * STEP);
        at(w);
        slope
    };
    (0..n).map(&mut slope).collect()
}

fn check(config: &ModelConfig, within_documents: bool) {
    let layout = Layout::new(config);
    let batch = Batch::new(config);
    let given = weights(&layout);
    let mut exact: Vec<f64> = given.iter().map(|&w| f64::from(w)).collect();
    let expected_losses = batch.exact(&layout, &exact, within_documents);
    let expected = slopes(&mut exact, |w| batch.total(&batch.exact(&layout, w, within_documents)));
    for isa in Isa::available() {
        let cpu = Cpu::with_isa(isa, 2).unwrap();
        let mut pass = Pass::new(&layout, N_SEQS, SEQ_LEN, false, Precision::F32);
        let mut grads = Grads::new(&layout);
        let view = batch.view(within_documents);
        let found = pass.losses_and_grads(&cpu, &given, view, &mut grads);
        for (i, (&loss, exact)) in found.iter().zip(&expected_losses).enumerate() {
            let exact = if batch.scales[i] == 0.0 { 0.0 } else { *exact };
            assert!(
                (f64::from(loss) - exact).abs() < 1e-5 * exact.max(1.0),
                "{isa} loss {i}: {loss}, {exact}"
            );
        }
        check_grads(isa, &layout, grads.complete(&cpu), &expected);
    }
}

fn check_grads(isa: Isa, layout: &Layout, found: &[f32], expected: &[f64]) {
    let score = layout.score().map(|span| ("score".to_owned(), span));
    let spans = layout.spans().iter().map(|(id, span)| (id.to_string(), span.clone()));
    for (id, span) in spans.chain(score) {
        let (found, expected) = (&found[span.clone()], &expected[span]);
        let peak = expected.iter().fold(0f64, |peak, e| peak.max(e.abs()));
        assert!(peak > 1e-6, "{id}: a gradient of zeros shows nothing");
        for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(f) - e).abs();
            assert!(error < 3e-5 * peak, "{isa} {id}[{i}]: {f}, expected {e}, largest {peak}");
        }
    }
}

/// Log-probabilities that count for and against, and scores, as alignment has them.
#[test]
fn scored_tokens() {
    let config = config(4, 2, true);
    let layout = Layout::with_score(&config);
    let mut batch = Batch::new(&config);
    batch.scales.iter_mut().step_by(2).for_each(|scale| *scale *= -1.0);
    let mut d_scores = vec![0.0f32; N];
    (d_scores[4], d_scores[7]) = (0.3, -0.7);
    let mut given = weights(&layout);
    given[layout.score().unwrap()].copy_from_slice(&layout.init_score(1));
    let mut exact: Vec<f64> = given.iter().map(|&w| f64::from(w)).collect();
    let all_scores = |w: &[f64]| -> Vec<f64> {
        let starts = &batch.starts[..SEQ_LEN];
        let of = |tokens: &[u32]| scores(&layout, w, tokens, Some(starts));
        batch.tokens.chunks(SEQ_LEN).flat_map(of).collect()
    };
    let expected_scores = all_scores(&exact);
    let expected = slopes(&mut exact, |w| {
        let scored =
            all_scores(w).iter().zip(&d_scores).map(|(s, &d)| s * f64::from(d)).sum::<f64>();
        batch.total(&batch.exact(&layout, w, true)) + scored
    });
    for isa in Isa::available() {
        let cpu = Cpu::with_isa(isa, 2).unwrap();
        for recompute in [false, true] {
            let mut pass = Pass::new(&layout, N_SEQS, SEQ_LEN, recompute, Precision::F32);
            let mut grads = Grads::new(&layout);
            let view = batch.view(true);
            let alone = pass.scores(&cpu, &given, Some(view));
            pass.losses(&cpu, &given, view);
            let found = pass.scores(&cpu, &given, None);
            assert_eq!(found, alone);
            for (found, exact) in found.iter().zip(&expected_scores) {
                assert!((f64::from(*found) - exact).abs() < 1e-5 * exact.abs().max(1.0));
            }
            pass.add_grads(&cpu, &given, view, Some(&d_scores), &mut grads);
            check_grads(isa, &layout, grads.complete(&cpu), &expected);
        }
    }
}

#[test]
fn multi_head() {
    check(&config(3, 3, false), false);
}

#[test]
fn grouped_queries() {
    check(&config(4, 2, false), false);
}

#[test]
fn tied_output() {
    check(&config(2, 1, true), false);
}

#[test]
fn within_documents() {
    check(&config(4, 2, false), true);
}
