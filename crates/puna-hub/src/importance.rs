//! Collects an importance matrix: how large the inputs of each matrix are on a text.

use std::collections::BTreeMap;

use puna_core::{LayerWeight, WeightId};
use puna_eval::{Options, Text, watch_inputs};
use puna_formats::Imatrix;
use puna_kernels::Cpu;

use crate::{HubError, Opened};

/// Sums of squares of the inputs of matrices that share them, `[cols]`.
struct Sums {
    matrices: Vec<LayerWeight>,
    squares: Vec<f64>,
}

/// Runs `text` through the model and returns the mean square of every input of the matrices in its blocks, over all
/// tokens of all windows. Squares are summed in f64 in the order of the text, so the result is the same for any
/// number of threads.
///
/// # Errors
/// The text is shorter than a window, the model cannot run, or values on the way are not finite.
pub fn importance(
    model: &Opened,
    text: &Text,
    options: Options,
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Imatrix, HubError> {
    let source = &*model.checkpoint.source;
    // By block and first matrix.
    let mut sums: BTreeMap<(usize, LayerWeight), Sums> = BTreeMap::new();
    let mut watch = |idx: usize, matrices: &[LayerWeight], rows: &[f32]| {
        let cols = WeightId::Layer(idx, matrices[0]).shape(source.config())[1];
        let sums = sums
            .entry((idx, matrices[0]))
            .or_insert_with(|| Sums { matrices: matrices.to_vec(), squares: vec![0.0; cols] });
        for row in rows.chunks_exact(cols) {
            for (sum, &x) in sums.squares.iter_mut().zip(row) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
    };
    let n_chunks = watch_inputs(source, text, options, cpu, progress, &mut watch)?;
    let n_inputs = (n_chunks * options.ctx) as u64;
    let mut entries = BTreeMap::new();
    for ((idx, _), Sums { matrices, squares }) in sums {
        let means: Vec<f32> = squares.iter().map(|sum| (sum / n_inputs as f64) as f32).collect();
        if means.iter().any(|mean| !mean.is_finite()) {
            let matrix = WeightId::Layer(idx, matrices[0]).to_string();
            return Err(HubError::InputNotFinite { model: model.name.clone(), matrix });
        }
        for weight in matrices {
            entries.insert(WeightId::Layer(idx, weight), means.clone());
        }
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Imatrix {
        entries,
        n_inputs,
        n_chunks: count(n_chunks),
        chunk_len: count(options.ctx),
        datasets: vec![text.name.clone()],
    })
}

#[cfg(test)]
mod tests {
    use puna_core::KvType;
    use serde_json::Value;

    use super::*;

    /// `testdata/scripts/perplexity_golden.py` made the file, with a numpy network.
    #[test]
    fn means_equal_numpys() {
        let model = crate::open("stories260K", &crate::OpenOptions::default()).unwrap();
        let golden = std::fs::read_to_string(puna_testkit::testdata("perplexity.json")).unwrap();
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let text = golden["text"].as_str().unwrap();
        let text = Text::new("t", text.as_bytes(), &model.tokenizer, model.bos_id).unwrap();
        let options = Options { ctx: 64, stride: None, kv_type: KvType::F32 };
        let of = |n_threads| {
            let cpu = Cpu::new(n_threads).unwrap();
            importance(&model, &text, options, &cpu, &mut |_, _| true).unwrap()
        };
        let found = of(2);
        assert!(found == of(1), "any number of threads");
        found.check("t", model.checkpoint.source.config()).unwrap();
        assert_eq!((found.n_chunks, found.chunk_len, found.n_inputs), (4, 64, 256));
        let mut n_checked = 0;
        for (name, expected) in golden["mean_squares"].as_object().unwrap() {
            let id = puna_formats::gguf::id(name).unwrap();
            for (found, expected) in found.entries[&id].iter().zip(expected.as_array().unwrap()) {
                let expected = expected.as_f64().unwrap();
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 1e-4 * expected, "{name}: {found}, {expected}");
                n_checked += 1;
            }
        }
        assert_eq!(n_checked, 2 * (64 * 3 + 172));
    }
}
