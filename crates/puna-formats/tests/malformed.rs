//! One test for each kind of malformed file or folder, but for GGUF and `torch.save`, which have files of
//! their own: take a sound model, break it, expect the message.

mod common;

use std::path::Path;

use common::ModelCopy;
use puna_core::{LayerWeight, SharedBytes, WeightId};
use puna_testkit::{testdata, workspace_root};

#[track_caller]
fn check_path(expected: &str, path: &Path) {
    let message = puna_formats::open(path).err().expect("an error").to_string();
    assert!(message.contains(expected), "{message}");
}

/// Breaks a copy of a model and expects a message on opening it.
#[track_caller]
fn check(model: &str, expected: &str, break_it: impl FnOnce(&ModelCopy)) {
    let copy = ModelCopy::of(model);
    break_it(&copy);
    check_path(expected, copy.folder());
}

/// Replaces some text of `config.json` and expects a message.
#[track_caller]
fn check_config(from: &str, to: &str, expected: &str) {
    check("mha/hf", expected, |copy| copy.replace("config.json", from, to));
}

#[test]
fn networks_of_another_kind() {
    let other = |from, to, expected| check_config(from, to, expected);
    other("\"model_type\": \"llama\"", "\"model_type\": \"qwen2\"", "model_type: qwen2 is not");
    other(
        "\"model_type\": \"llama\"",
        "\"model_type\": null",
        "model_type: expected llama, found none",
    );
    other("LlamaForCausalLM", "LlamaModel", "architectures: [\"LlamaModel\"] is not supported");
    other("\"silu\"", "\"gelu\"", "hidden_act: gelu is not supported; supported: silu");
    other("\"pretraining_tp\": 1", "\"attention_bias\": true", "attention_bias: true is not");
    other("\"pretraining_tp\": 1", "\"mlp_bias\": true", "mlp_bias: true is not supported");
    let quantised = "\"quantization_config\": {\"bits\": 4}";
    other("\"pretraining_tp\": 1", quantised, "quantization_config: {\"bits\":4} is not supported");
    let partial = "\"partial_rotary_factor\": 0.5";
    other("\"pretraining_tp\": 1", partial, "partial_rotary_factor: 0.5 is not supported");
}

#[test]
fn rotations_of_another_kind() {
    let scaling = |json: &str, expected| {
        check_config("\"rope_scaling\": null", &format!("\"rope_scaling\": {json}"), expected);
    };
    scaling(r#"{"rope_type": "llama3"}"#, "rope_scaling.rope_type: llama3 is not supported");
    scaling(r#"{"type": "su"}"#, "rope_scaling.type: su is not supported");
    scaling(r#"{"type": "linear"}"#, "rope_scaling.factor: expected a number, found none");
    scaling(r#"{"type": "linear", "factor": 0}"#, "factor: expected a positive number, found 0");
    scaling(r#"{"type": "yarn", "truncate": false}"#, "rope_scaling.truncate: false is not");
    scaling("[]", "rope_scaling: expected an object, found []");
}

#[test]
fn fields_that_make_no_network() {
    check_config("\"hidden_size\": 32", "\"hidden_size\": \"32\"", "hidden_size: expected a count");
    check_config("\"hidden_size\": 32", "\"hidden_size\": -32", "expected a count, found -32");
    let heads = "\"num_attention_heads\": 4";
    check_config(heads, "\"num_attention_heads\": 0", "n_heads: expected 1 to 16777216, found 0");
    check_config(
        heads,
        "\"num_attention_heads\": 6",
        "n_kv_heads: expected a divisor of n_heads = 6",
    );
    check_config("{", "", "config.json: document: expected a JSON object");
}

#[test]
fn a_configuration_that_disagrees_with_its_tensors() {
    check_config(
        "\"hidden_size\": 32",
        "\"hidden_size\": 64",
        "model.safetensors: tensor model.embed_tokens.weight: expected shape [272, 64] by the \
         configuration, found [272, 32]",
    );
    check_config(
        "\"vocab_size\": 272",
        "\"vocab_size\": 300",
        "tensor model.embed_tokens.weight: expected shape [300, 32]",
    );
    check_config(
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 3",
        "tensor model.layers.2.input_layernorm.weight: expected a tensor of shape [32], found none",
    );
    check_config(
        "\"num_hidden_layers\": 2",
        "\"num_hidden_layers\": 1",
        "expected only 1 layers, as the configuration says",
    );
    check_config(
        "\"tie_word_embeddings\": false",
        "\"tie_word_embeddings\": true",
        "tensor lm_head.weight: expected the embedding's values, as tie_word_embeddings is true",
    );
}

#[test]
fn a_tied_model_without_a_sign_of_it() {
    check("tied/hf", "tensor lm_head.weight: expected a tensor of shape", |copy| {
        copy.replace("config.json", "\"tie_word_embeddings\": true", "\"other\": 0");
    });
}

#[test]
fn files_that_are_not_there() {
    check(
        "gqa/hf",
        "model-00002-of-00002.safetensors is missing: model.safetensors.index.json",
        |c| {
            c.remove("model-00002-of-00002.safetensors");
        },
    );
    check("mha/hf", "model.safetensors is missing: so are model.safetensors.index.json", |copy| {
        copy.remove("model.safetensors");
    });
    check("mha/hf", "config.json is missing: the weights of a Hugging Face model are", |copy| {
        copy.remove("config.json");
    });
    check("mha/meta", "params.json is missing: the weights of one of Meta's", |copy| {
        copy.remove("params.json");
    });
    check("mha/meta-2", "consolidated.00.pth is missing: there is a consolidated.01.pth", |copy| {
        copy.remove("consolidated.00.pth");
    });
    check("mha/meta", "consolidated.00.pth is missing: params.json is there", |copy| {
        copy.remove("consolidated.00.pth");
    });
}

#[test]
fn an_index_that_is_wrong() {
    let index = "model.safetensors.index.json";
    let with = |from: &'static str, to: &'static str, expected: &str| {
        check("gqa/hf", expected, |copy| copy.replace(index, from, to));
    };
    with("model-00001-of", "../model-00001-of", "expected the name of a file in the same folder");
    with(
        "\"lm_head.weight\"",
        "\"other.weight\"",
        "tensor other.weight: expected to be in this file",
    );
    with("\"weight_map\"", "\"weights\"", "index: expected a JSON object with weight_map");
}

#[test]
fn one_tensor_in_two_files() {
    check("gqa/hf", "expected one tensor of this name, found a second one", |copy| {
        let [first, second] = ["1", "2"].map(|n| format!("model-0000{n}-of-00002.safetensors"));
        std::fs::copy(copy.path(&first), copy.path(&second)).unwrap();
        let name = puna_formats::hf::name(WeightId::Layer(0, LayerWeight::Wq));
        let index = format!(
            r#"{{"weight_map": {{"{name}": "{second}", "model.embed_tokens.weight": "{first}"}}}}"#
        );
        std::fs::write(copy.path("model.safetensors.index.json"), index).unwrap();
    });
}

#[test]
fn files_that_are_truncated() {
    let cut = |model: &str, name: &'static str, expected: &str| {
        check(model, expected, |copy| copy.truncate(name, 100));
    };
    cut("mha/hf", "model.safetensors", "the file is truncated or damaged");
    cut("mha/meta", "consolidated.00.pth", "zip directory: expected a sound one");
    cut("mha/hf-bin", "pytorch_model-00001-of-00002.bin", "zip directory: expected a sound one");
}

#[test]
fn shards_that_do_not_fit_together() {
    check("mha/meta-2", "expected the same values as in", |copy| {
        // The last norm's first byte: the same file again would join to wrong values, but not to a fault.
        let path = copy.path("consolidated.01.pth");
        let mut bytes = std::fs::read(&path).unwrap();
        let norm = first_bytes_of_norm(&copy.path("consolidated.00.pth"));
        let at = bytes.windows(norm.len()).position(|window| window == norm).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    });
    check("mha/meta-2", "expected type f16, shape [272, 16] as in", |copy| {
        let whole = testdata("models/mha/meta/consolidated.00.pth");
        std::fs::copy(whole, copy.path("consolidated.01.pth")).unwrap();
    });
    let expected = "consolidated.01.pth is missing: tensors were cut into 2 parts, and there are 1";
    check("mha/meta-2", expected, |copy| copy.remove("consolidated.01.pth"));
    check("mha/meta-2", "expected shape [272, 32] by the configuration, found [272, 48]", |copy| {
        std::fs::copy(copy.path("consolidated.01.pth"), copy.path("consolidated.02.pth")).unwrap();
    });
}

fn first_bytes_of_norm(path: &Path) -> Vec<u8> {
    let folder = path.parent().unwrap();
    let source = puna_formats::open(folder).unwrap().source;
    source.load(WeightId::Norm).unwrap().data.to_vec()
}

#[test]
fn params_that_disagree_with_the_tensors() {
    check("mha/meta", "tensor tok_embeddings.weight: expected shape [272, 64]", |copy| {
        copy.replace("params.json", "\"dim\": 32", "\"dim\": 64");
    });
    check(
        "mha/meta",
        "feed_forward.w1.weight: expected shape [256, 32] by the configuration",
        |copy| {
            copy.replace("params.json", "\"multiple_of\": 32", "\"multiple_of\": 256");
        },
    );
}

#[test]
fn paths_that_are_no_model() {
    let folder = tempfile::tempdir().unwrap();
    check_path("a folder without a model in it", folder.path());
    let file = folder.path().join("file");
    check_path("file: ", &file);
    std::fs::write(&file, "").unwrap();
    check_path("an empty file", &file);
    std::fs::write(&file, "Once upon a time there was a file that is not a model.").unwrap();
    check_path("not a model in any form known here; give a GGUF", &file);
    let config = testdata("models/mha/hf/config.json");
    check_path("did you mean the folder", &config);
    let weights = folder.path().join("model.safetensors");
    std::fs::copy(testdata("models/mha/hf/model.safetensors"), &weights).unwrap();
    check_path("a config.json or params.json has to stand beside it", &weights);
}

#[test]
fn a_folder_of_several_gguf_models() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        std::fs::copy(testdata("models/mha/gguf/q8_0.gguf"), folder.path().join(name)).unwrap();
    };
    copy("a.gguf");
    std::fs::copy(testdata("models/mha/hf/config.json"), folder.path().join("config.json"))
        .unwrap();
    assert!(puna_formats::open(folder.path()).is_ok());
    copy("b.gguf");
    check_path("a folder with 2 models in it; give one of a.gguf, b.gguf", folder.path());
}

/// Changes a safetensors header and expects a message.
#[track_caller]
fn check_safetensors(header: &str, n_bytes: usize, expected: &str) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; n_bytes]);
    let result = puna_formats::safetensors::check("s", &SharedBytes::new(bytes));
    let message = result.expect_err("an error").to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn safetensors_headers() {
    let one = |shape: &str, begin: usize, end: usize| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#)
    };
    check_safetensors("{", 0, "header: expected a sound description of tensors");
    check_safetensors(
        &one("[2]", 0, 8),
        4,
        "tensor data: expected 8 bytes, as the header says, found 4",
    );
    check_safetensors(
        &one("[2]", 0, 8),
        9,
        "tensor data: expected 8 bytes, as the header says, found 9",
    );
    check_safetensors(
        &one("[2]", 4, 12),
        12,
        "a: expected data from byte 0, where the tensor before it ends, found byte 4",
    );
    check_safetensors(
        &one("[3]", 0, 8),
        8,
        "a: expected 12 bytes of F32 for shape [3], found bytes 0 to 8",
    );
    check_safetensors(&one("[4611686018427387904, 4]", 0, 0), 0, "a: expected a size that can be");
    check_safetensors(&one("[2]", 0, 8).replace("F32", "Q1"), 8, "unknown variant `Q1`");
    let overlap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                      "b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    check_safetensors(overlap, 6, "b: expected data from byte 4,");
    let huge = SharedBytes::new(u64::MAX.to_le_bytes().to_vec());
    let message = puna_formats::safetensors::check("s", &huge).unwrap_err().to_string();
    assert!(message.contains("header length: expected at most 0"), "{message}");
}

#[test]
fn a_tensor_of_a_type_that_no_weight_has() {
    check(
        "mha/hf",
        "type of tensor lm_head.weight: I32 is not supported; supported: F32",
        |copy| {
            let path = copy.path("model.safetensors");
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.windows(14).position(|w| w == b"lm_head.weight").unwrap();
            let at = at + bytes[at..].windows(3).position(|w| w == b"F32").unwrap();
            bytes[at] = b'I';
            std::fs::write(&path, bytes).unwrap();
        },
    );
}

/// Changes the built-in story model's bytes and expects a message.
#[track_caller]
fn check_llama2c(expected: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(workspace_root().join("models/stories260K.bin")).unwrap();
    change(&mut bytes);
    check_bytes(expected, bytes);
}

#[track_caller]
fn check_bytes(expected: &str, bytes: Vec<u8>) {
    let result = puna_formats::open_bytes("m", SharedBytes::new(bytes));
    let message = result.err().expect("an error").to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn llama2c_files_of_another_length() {
    check_llama2c("norm: expected 256 bytes at offset", |b| b.truncate(b.len() - 16_500));
    check_llama2c("file length: expected 1056540 bytes by its header, found 1056544", |b| {
        b.extend([0; 4]);
    });
    // The sign of the vocabulary's size says that there is an output matrix.
    check_llama2c("output: expected 131072 bytes at offset 1056540", |b| {
        b[20..24].copy_from_slice(&(-512i32).to_le_bytes());
    });
}

#[test]
fn llama2c_headers_that_make_no_network() {
    check_llama2c("not a model in any form", |b| b[0] = 0);
    check_llama2c("not a model in any form", |b| b[11] = 0x7f);
    let versioned = |version: i32, tied: u8, group: i32| {
        let mut bytes = b"24ka".to_vec();
        let fields = [version, 64, 172, 1, 8, 4, 512, 512];
        bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        bytes.push(tied);
        bytes.extend(group.to_le_bytes());
        bytes
    };
    check_bytes("version: 3 is not supported; supported: 1 and 2", versioned(3, 1, 0));
    check_bytes("shared classifier: expected 0 or 1, found 2", versioned(1, 2, 0));
    check_bytes("group size: expected a positive number, found -1", versioned(2, 1, -1));
    check_bytes("header: expected 256 bytes at offset 0", versioned(1, 1, 0));
    let mut whole = versioned(2, 1, 7);
    whole.resize(4096, 0);
    check_bytes("tensor tok_embeddings: expected whole groups of 7 elements", whole);
}
