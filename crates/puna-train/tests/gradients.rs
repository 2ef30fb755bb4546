//! Every gradient of the network against finite differences of a network in f64.

mod common;

use common::{config, losses, tokens, weights};
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

fn check(config: &ModelConfig, within_documents: bool) {
    const STEP: f64 = 1e-5;
    let layout = Layout::new(config);
    let batch = Batch::new(config);
    let given = weights(&layout);
    let mut exact: Vec<f64> = given.iter().map(|&w| f64::from(w)).collect();
    let expected_losses = batch.exact(&layout, &exact, within_documents);
    let expected: Vec<f64> = (0..exact.len())
        .map(|i| {
            let w = exact[i];
            let mut at = |w: f64| {
                exact[i] = w;
                batch.total(&batch.exact(&layout, &exact, within_documents))
            };
            let slope = (at(w + STEP) - at(w - STEP)) / (2.0 * STEP);
            at(w);
            slope
        })
        .collect();
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
        let found = grads.complete(&cpu);
        for (id, span) in layout.spans() {
            let (found, expected) = (&found[span.clone()], &expected[span.clone()]);
            let peak = expected.iter().fold(0f64, |peak, e| peak.max(e.abs()));
            assert!(peak > 1e-6, "{id}: a gradient of zeros shows nothing");
            for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
                let error = (f64::from(f) - e).abs();
                assert!(error < 3e-5 * peak, "{isa} {id}[{i}]: {f}, expected {e}, largest {peak}");
            }
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
