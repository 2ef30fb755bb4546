//! Ten steps of training by PyTorch: losses, every gradient, and the weights that come out.

#![expect(clippy::print_stdout, reason = "tells the errors it found")]

use std::collections::HashMap;
use std::path::PathBuf;

use puna_core::{ModelConfig, Rope, RopeLayout, RopeScaling};
use puna_kernels::{Cpu, Isa};
use puna_ops::Precision;
use puna_testkit::assert_within_peak;
use puna_train::{Grads, Layout, MicroBatch, Optimizer, OptimizerConfig, Pass, grad_norm};
use safetensors::SafeTensors;

/// The largest error, as a part of the largest value. Found: 3·10⁻⁵.
const BOUND_F32: f32 = 1e-4;
/// The same where factors of products are rounded to bf16, whose step is 2⁻⁸, beside PyTorch in f32: of the first
/// gradients and of ten losses. Steps as large as these soon part the weights.
const BOUND_BF16: f32 = 0.06;

struct Golden {
    config: ModelConfig,
    arrays: HashMap<String, Vec<u8>>,
}

impl Golden {
    fn load(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../testdata/train/{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        let number = |key: &str| metadata[key].parse::<usize>().unwrap();
        let config = ModelConfig {
            dim: number("n_heads") * number("head_dim"),
            hidden_dim: number("hidden_dim"),
            n_layers: 2,
            n_heads: number("n_heads"),
            n_kv_heads: number("n_kv_heads"),
            head_dim: number("head_dim"),
            vocab_size: 31,
            max_seq_len: 9,
            norm_eps: 1e-5,
            rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
            tied_output: number("tied") == 1,
        };
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let arrays = tensors.tensors().into_iter().map(|(n, t)| (n, t.data().to_vec())).collect();
        Self { config, arrays }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let numbers = self.arrays[name].as_chunks::<4>().0.iter();
        numbers.map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let numbers = self.arrays[name].as_chunks::<8>().0.iter();
        numbers.map(|&bytes| i64::from_le_bytes(bytes) as u32).collect()
    }

    /// All tensors whose names begin so, in the order of the layout.
    fn all(&self, layout: &Layout, prefix: &str) -> Vec<f32> {
        layout.spans().iter().flat_map(|(id, _)| self.floats(&format!("{prefix}{id}"))).collect()
    }
}

fn check(name: &str) {
    let golden = Golden::load(name);
    let layout = Layout::new(&golden.config);
    let (tokens, targets) = (golden.ids("tokens"), golden.ids("targets"));
    let mask = golden.floats("mask");
    let n_tokens: f32 = mask.iter().sum();
    let scales: Vec<f32> = mask.iter().map(|m| m / n_tokens).collect();
    let batch = MicroBatch { tokens: &tokens, targets: &targets, scales: &scales, starts: None };
    let both = [(Precision::F32, BOUND_F32), (Precision::Bf16, BOUND_BF16)];
    for (isa, (precision, bound)) in
        Isa::available().into_iter().flat_map(|isa| both.map(|precision| (isa, precision)))
    {
        if !precision.is_available(isa) {
            continue;
        }
        let cpu = Cpu::with_isa(isa, 2).unwrap();
        let mut weights = golden.all(&layout, "");
        let (mut optimizer, numbers) = (Optimizer::new(layout.len()), OptimizerConfig::default());
        let mut pass = Pass::new(&layout, 2, 9, false, precision);
        let mut grads = Grads::new(&layout);
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for step in 1..=10 {
            grads.clear();
            let found = pass.losses_and_grads(&cpu, &weights, batch, &mut grads);
            losses.push(found.iter().sum::<f32>() / n_tokens);
            let grads = grads.complete(&cpu);
            if step == 1 {
                for (id, span) in layout.spans() {
                    let expected = golden.floats(&format!("grad.{id}"));
                    assert_within_peak(
                        &format!("{isa} {precision:?} {id}"),
                        &grads[span.clone()],
                        &expected,
                        bound,
                    );
                }
            }
            let norm = grad_norm(&cpu, grads);
            norms.push(norm as f32);
            optimizer.update(&cpu, layout.parts(), &numbers, |_| 0.01, &mut weights, grads, norm);
        }
        let mut errors =
            vec![assert_within_peak("losses", &losses, &golden.floats("losses"), bound)];
        if precision == Precision::F32 {
            errors.push(assert_within_peak("norms", &norms, &golden.floats("norms"), bound));
            errors.push(assert_within_peak(
                "weights",
                &weights,
                &golden.all(&layout, "after."),
                bound,
            ));
        }
        println!("{name} {isa} {precision:?}: errors of losses (and norms, weights) {errors:?}");
    }
}

#[test]
fn multi_head() {
    check("multi_head");
}

#[test]
fn grouped_query() {
    check("grouped_query");
}

#[test]
fn tied() {
    check("tied");
}
