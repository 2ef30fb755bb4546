//! The mixes against llama.cpp's; `testdata/scripts/mixes_golden.py` made the file.

use puna_core::{DType, ModelConfig, WeightId};
use puna_formats::gguf;
use serde_json::Value;

use super::{Mix, fitting_type};

fn config(case: &Value) -> ModelConfig {
    let count = |key: &str| case[key].as_u64().unwrap() as usize;
    ModelConfig {
        dim: count("dim"),
        hidden_dim: count("hidden_dim"),
        n_layers: count("n_layers"),
        n_heads: count("n_heads"),
        n_kv_heads: count("n_kv_heads"),
        head_dim: count("dim") / count("n_heads"),
        vocab_size: 64,
        tied_output: case["tied_output"].as_bool().unwrap(),
        ..puna_testkit::tiny_config()
    }
}

/// The recorded type of a matrix.
fn recorded(types: &Value, id: WeightId) -> DType {
    let name = gguf::name(id);
    let (key, layer) = match id {
        WeightId::Layer(idx, _) => (name.replace(&format!("blk.{idx}."), "blk."), idx),
        _ => (name, 0),
    };
    let listed: Vec<&str> = types[&key].as_str().unwrap().split(' ').collect();
    listed.get(layer).unwrap_or(&listed[0]).parse().unwrap()
}

#[test]
fn every_matrix_gets_the_type_that_llama_cpp_gives_it() {
    let text = std::fs::read_to_string(puna_testkit::testdata("mixes.json")).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let mut n_checked = 0;
    for case in cases.as_array().unwrap() {
        let config = config(case);
        for mix in Mix::ALL {
            let Some(types) = case["mixes"].get(mix.name()) else { continue };
            for id in WeightId::all(&config) {
                let [_, cols] = id.shape(&config)[..] else {
                    assert_eq!(mix.wanted(id, &config, false), DType::F32, "{id}");
                    continue;
                };
                let found = fitting_type(mix.wanted(id, &config, false), cols);
                assert_eq!(found, recorded(types, id), "{}, {mix}: {id}", case["name"]);
                n_checked += 1;
            }
        }
    }
    assert!(n_checked > 10_000, "{n_checked} matrices");
}

#[test]
fn types_fit_their_rows() {
    for wanted in DType::ALL {
        for cols in [4096, 288, 100] {
            let got = fitting_type(wanted, cols);
            assert!(got.row_bytes(cols).is_some(), "{wanted} at {cols}");
            assert!(cols != 4096 || got == wanted);
        }
    }
    assert_eq!(fitting_type(DType::Q4_K, 288), DType::Q5_0);
}

#[test]
fn an_importance_matrix_guards_the_first_layers_of_plain_types() {
    let config = ModelConfig { n_layers: 16, ..puna_testkit::tiny_config() };
    let down = |idx| WeightId::Layer(idx, puna_core::LayerWeight::WDown);
    assert_eq!(Mix::Q4_0.wanted(down(1), &config, true), DType::Q4_1);
    assert_eq!(Mix::Q4_0.wanted(down(2), &config, true), DType::Q4_0);
    assert_eq!(Mix::Q5_0.wanted(down(0), &config, true), DType::Q5_1);
    assert_eq!(Mix::Q4_0.wanted(down(0), &config, false), DType::Q4_0);
}

#[test]
fn names_parse_back() {
    for mix in Mix::ALL {
        assert_eq!(mix.name().to_uppercase().parse(), Ok(mix));
    }
    assert!("q4_k".parse::<Mix>().unwrap_err().to_string().contains("q4_k_m"));
}
