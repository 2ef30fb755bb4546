//! Figures of the built-in model against a numpy network; `testdata/scripts/perplexity_golden.py` made the file.

use puna_core::{
    KvType, ModelConfig, SharedBytes, SourceError, Tensor, TensorInfo, TensorSource, WeightId,
};
use puna_eval::{EvalError, Options, Text, compare, perplexity};
use puna_kernels::Cpu;
use puna_testkit::{testdata, workspace_root};
use puna_tokenizer::Tokenizer;
use serde_json::Value;

/// A checkpoint of f32 with only five bits of every mantissa in its matrices.
struct Coarse<'a>(&'a dyn TensorSource);

impl TensorSource for Coarse<'_> {
    fn config(&self) -> &ModelConfig {
        self.0.config()
    }

    fn info(&self, id: WeightId) -> Option<TensorInfo> {
        self.0.info(id)
    }

    fn load(&self, id: WeightId) -> Result<Tensor, SourceError> {
        let Tensor { info, data } = self.0.load(id)?;
        if info.shape.len() == 1 {
            return Ok(Tensor { info, data });
        }
        let words = data.as_chunks::<4>().0.iter();
        let words = words.map(|word| u32::from_le_bytes(*word) & 0xFFFC_0000);
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        Ok(Tensor { info, data: SharedBytes::new(bytes) })
    }

    fn copies(&self, _: WeightId) -> bool {
        true
    }
}

/// Compares within `bound`, relative or, below 1, absolute.
#[track_caller]
fn close(found: f64, expected: &Value, bound: f64, what: &str) {
    let expected = expected.as_f64().unwrap();
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error <= bound, "{what}: found {found}, expected {expected}");
}

#[test]
fn figures_equal_numpys() {
    let models = workspace_root().join("models");
    let checkpoint = puna_formats::open(&models.join("stories260K.bin")).unwrap();
    let pieces = std::fs::read(models.join("stories260K.tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_sentencepiece(&pieces).unwrap();
    let golden = std::fs::read_to_string(testdata("perplexity.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let text = golden["text"].as_str().unwrap();
    let text = Text::new("golden", text.as_bytes(), &tokenizer, tokenizer.bos_id()).unwrap();
    let source = &*checkpoint.source;
    let child = Coarse(source);
    for case in golden["cases"].as_array().unwrap() {
        let options = Options {
            ctx: case["ctx"].as_u64().unwrap() as usize,
            stride: case["stride"].as_u64().map(|n| n as usize),
            kv_type: KvType::F32,
        };
        let cpu = Cpu::new(2).unwrap();
        let found = compare(source, &child, &text, options, &cpu, &mut |_, _| true).unwrap();
        assert_eq!(found.parent.n_tokens as u64, case["n_tokens"].as_u64().unwrap());
        assert_eq!(found.parent.n_bytes as u64, case["n_bytes"].as_u64().unwrap());
        close(found.parent.nll.mean, &case["nll"][0], 1e-5, "nll");
        close(found.parent.nll.error, &case["nll"][1], 1e-5, "nll's error");
        close(found.child.nll.mean, &case["nll_child"][0], 1e-5, "the child's nll");
        close(found.same_top.mean, &case["same_top"], 1e-12, "top-1 agreement");
        close(found.kl.mean, &case["kl"][0], 1e-6, "KL");
        close(found.kl.error, &case["kl"][1], 1e-6, "KL's error");
        close(found.kl_p99, &case["kl_p99"], 1e-5, "KL, 99 %");

        let alone = perplexity(source, &text, options, &cpu, &mut |_, _| true).unwrap();
        assert_eq!(alone, found.parent, "alone and beside another");
        let cpu = Cpu::new(7).unwrap();
        let threads = compare(source, &child, &text, options, &cpu, &mut |_, _| true).unwrap();
        assert_eq!(threads, found, "7 threads");
        let stopped = perplexity(source, &text, options, &cpu, &mut |_, _| false);
        assert!(matches!(stopped, Err(EvalError::Stopped)));
    }
}

#[test]
fn models_of_other_vocabularies_cannot_be_compared() {
    let open = |name: &str| puna_formats::open(&testdata(name)).unwrap();
    let (a, b) = (open("models/mha/hf"), open("models/odd/hf"));
    let tokenizer = Tokenizer::from_sentencepiece(
        &std::fs::read(workspace_root().join("models/stories260K.tokenizer.model")).unwrap(),
    );
    let text = Text::new("t", b"text", &tokenizer.unwrap(), None).unwrap();
    let options = Options { ctx: 8, stride: None, kv_type: KvType::F32 };
    let cpu = Cpu::new(1).unwrap();
    let error = compare(&*a.source, &*b.source, &text, options, &cpu, &mut |_, _| true);
    assert!(error.unwrap_err().to_string().contains("vocabularies of 272 and"));
}
