//! What a Hugging Face folder says in its other files.

mod common;

use common::ModelCopy;
use puna_core::SamplingHints;
use puna_formats::Checkpoint;

fn open(change: impl FnOnce(&ModelCopy)) -> Checkpoint {
    let copy = ModelCopy::of("mha/hf");
    change(&copy);
    puna_formats::open(copy.folder()).unwrap_or_else(|e| panic!("{e}"))
}

fn write(copy: &ModelCopy, name: &str, text: &str) {
    std::fs::write(copy.path(name), text).unwrap();
}

#[test]
fn sampling_is_what_the_generation_config_suggests() {
    let of = |text: &str| open(|copy| write(copy, "generation_config.json", text)).sampling;
    assert_eq!(of("{}"), SamplingHints::default());
    let llama2 = r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "max_length": 4096}"#;
    assert_eq!(of(llama2), SamplingHints::LLAMA2_CHAT);
    assert_eq!(of(r#"{"do_sample": false, "temperature": 0.9}"#).temperature, Some(0.0));
    let wrong = ModelCopy::of("mha/hf");
    write(&wrong, "generation_config.json", r#"{"top_p": 1.5}"#);
    let error = puna_formats::open(wrong.folder()).err().unwrap().to_string();
    assert!(
        error.ends_with("generation_config.json: top_p: expected a number, 0 to 1, found 1.5"),
        "{error}"
    );
    let all = of(r#"{"temperature": 0, "top_k": -1, "min_p": 0.05, "repetition_penalty": 1.1}"#);
    assert_eq!((all.temperature, all.top_k), (Some(0.0), Some(0)));
    assert_eq!((all.min_p, all.repetition_penalty), (Some(0.05), Some(1.1)));
}

#[test]
fn token_ids_come_from_the_generation_config_first() {
    let stated = open(|copy| {
        write(copy, "generation_config.json", r#"{"eos_token_id": [2, 7], "bos_token_id": null}"#);
    });
    assert_eq!((stated.bos_id, stated.eos_ids), (None, vec![2, 7]));
    let silent = open(|copy| {
        write(copy, "generation_config.json", "{}");
        copy.replace("config.json", "\"bos_token_id\": 1,", "\"bos_token_id\": 5,");
        copy.replace("config.json", "\"eos_token_id\": 2,", "");
    });
    assert_eq!((silent.bos_id, silent.eos_ids), (Some(5), vec![2]));
}

#[test]
fn a_chat_template_of_any_spelling() {
    let of = |name: &str, text: &str| open(|copy| write(copy, name, text)).chat_template;
    let config = "tokenizer_config.json";
    assert_eq!(of(config, "{}"), None);
    assert_eq!(of(config, r#"{"chat_template": "a"}"#).as_deref(), Some("a"));
    let named = r#"{"chat_template": [{"name": "tool_use", "template": "a"},
                                      {"name": "default", "template": "b"}]}"#;
    assert_eq!(of(config, named).as_deref(), Some("b"));
    assert_eq!(of("chat_template.jinja", "{{ c }}").as_deref(), Some("{{ c }}"));
}

#[test]
fn saved_rotation_frequencies_are_left_out_and_reported() {
    let checkpoint = open(|copy| {
        let mut bytes = std::fs::read(copy.path("model.safetensors")).unwrap();
        let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
        let length = u64::from_le_bytes(*length) as usize;
        let header = std::str::from_utf8(&rest[..length]).unwrap().trim_end().to_owned();
        let data = rest[length..].to_vec();
        let name = "model.layers.0.self_attn.rotary_emb.inv_freq";
        let (begin, end) = (data.len(), data.len() + 16);
        let entry =
            format!(r#","{name}":{{"dtype":"F32","shape":[4],"data_offsets":[{begin},{end}]}}}}"#);
        let header = header.strip_suffix('}').unwrap().to_owned() + &entry;
        bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes.extend([0; 16]);
        std::fs::write(copy.path("model.safetensors"), bytes).unwrap();
    });
    assert_eq!(checkpoint.ignored, ["model.layers.0.self_attn.rotary_emb.inv_freq"]);
}
