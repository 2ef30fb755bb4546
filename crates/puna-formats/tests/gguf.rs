//! GGUF files made here: round trips through the writer, split models, and one case for each kind of
//! malformed file.

mod common;

use std::path::{Path, PathBuf};

use common::{tiny_config, tiny_gguf, tiny_metadata, tiny_tensors};
use puna_core::{DType, RopeScaling, SharedBytes, TensorInfo, WeightId};
use puna_formats::gguf::{Gguf, Value, Writer};
use puna_formats::{Checkpoint, Form, FormatError};
use puna_testkit::testdata;

fn write(path: &Path, metadata: &[(String, Value)], tensors: &[(String, TensorInfo, Vec<u8>)]) {
    let infos: Vec<_> = tensors.iter().map(|(n, i, _)| (n.clone(), i.clone())).collect();
    let mut writer = Writer::create(path, metadata, &infos).unwrap();
    for (name, _, data) in tensors {
        writer.write(name, data).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn what_was_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let (metadata, tensors) = (tiny_metadata(), tiny_tensors());
    write(&path, &metadata, &tensors);
    let gguf = Gguf::parse("m", &SharedBytes::new(std::fs::read(&path).unwrap())).unwrap();
    assert_eq!(gguf.version, 3);
    assert_eq!(gguf.metadata, metadata);
    for (read, (name, info, data)) in gguf.tensors.iter().zip(&tensors) {
        assert_eq!((&read.name, &read.info, &*read.data), (name, info, &**data));
    }
    let checkpoint = puna_formats::open(&path).unwrap();
    assert_eq!((checkpoint.form, checkpoint.source.config()), (Form::Gguf, &tiny_config()));
    assert_eq!(checkpoint.chat_template.as_deref(), Some("{{ messages }}"));
    assert_eq!((checkpoint.bos_id, checkpoint.eos_ids), (Some(1), vec![2]));
    for id in WeightId::all(&tiny_config()) {
        let (_, _, data) =
            tensors.iter().find(|(n, ..)| *n == puna_formats::gguf::name(id)).unwrap();
        assert_eq!(*checkpoint.source.load(id).unwrap().data, **data, "{id}");
    }
}

/// The golden files are by the PyPI package `gguf`: read and written again, they are the same to the byte.
#[test]
fn a_copy_is_the_file_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.gguf");
    for model in ["mha/gguf/q8_0", "gqa/gguf/bf16", "k-quants/gguf/k-quants", "rope-yarn/gguf/f32"]
    {
        let original = std::fs::read(testdata(format!("models/{model}.gguf"))).unwrap();
        let gguf = Gguf::parse(model, &SharedBytes::new(original.clone())).unwrap();
        let tensors = gguf.tensors.into_iter().map(|t| (t.name, t.info, t.data.to_vec()));
        write(&path, &gguf.metadata, &tensors.collect::<Vec<_>>());
        assert!(std::fs::read(&path).unwrap() == original, "{model}");
    }
}

#[test]
fn every_value_type_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("values.gguf");
    let values = [
        Value::U8(1),
        Value::I8(-1),
        Value::U16(2),
        Value::I16(-2),
        Value::U32(3),
        Value::I32(-3),
        Value::F32(0.5),
        Value::Bool(true),
        Value::String("ü".into()),
        Value::strings(["a", ""]),
        Value::f32s(&[1.0, 2.0]),
        Value::i32s(&[-4]),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F64(0.25),
    ];
    let metadata: Vec<_> =
        values.into_iter().enumerate().map(|(i, v)| (format!("key{i}"), v)).collect();
    write(&path, &metadata, &[]);
    let gguf = Gguf::parse("m", &SharedBytes::new(std::fs::read(&path).unwrap())).unwrap();
    assert_eq!(gguf.metadata, metadata);
    let strings = gguf.get("key9").unwrap().as_array().unwrap().strings().unwrap();
    assert_eq!(strings.collect::<Vec<_>>(), [b"a".as_slice(), b""]);
}

#[test]
fn a_writer_that_does_not_finish_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let info = TensorInfo { dtype: DType::F32, shape: vec![2] };
    let tensors = [("a".to_owned(), info.clone()), ("b".to_owned(), info)];
    let begin = || Writer::create(&path, &[], &tensors).unwrap();
    let message = |result: Result<(), FormatError>| result.unwrap_err().to_string();
    assert!(message(begin().write("b", &[0; 8])).contains("the turn of a"));
    assert!(message(begin().write("a", &[0; 7])).contains("8 bytes"));
    let mut writer = begin();
    writer.write("a", &[0; 8]).unwrap();
    assert!(message(writer.finish()).contains("tensor b: expected its data"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

fn split(folder: &Path, change: impl Fn(usize, &mut Vec<(String, Value)>)) -> Vec<PathBuf> {
    let tensors = tiny_tensors();
    let part_len = tensors.len().div_ceil(3);
    let mut paths = Vec::new();
    for (idx, part) in tensors.chunks(part_len).enumerate() {
        let mut metadata = if idx == 0 { tiny_metadata() } else { Vec::new() };
        metadata.push(("split.no".into(), Value::U16(idx as u16)));
        metadata.push(("split.count".into(), Value::U16(3)));
        metadata.push(("split.tensors.count".into(), Value::I32(tensors.len() as i32)));
        change(idx, &mut metadata);
        let path = folder.join(format!("tiny-{:05}-of-00003.gguf", idx + 1));
        write(&path, &metadata, part);
        paths.push(path);
    }
    paths
}

#[test]
fn any_part_of_a_split_model_opens_all() {
    let folder = tempfile::tempdir().unwrap();
    let paths = split(folder.path(), |_, _| {});
    for path in &paths {
        let checkpoint = puna_formats::open(path).unwrap();
        assert_eq!(checkpoint.files, paths);
        assert_eq!(checkpoint.source.config(), &tiny_config());
    }
}

#[test]
fn bytes_of_all_parts_open_in_their_order_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |path: &PathBuf| SharedBytes::new(std::fs::read(path).unwrap());
    let parts: Vec<_> = split(folder.path(), |_, _| {}).iter().map(bytes).collect();
    let open = |order: &[usize]| {
        let names = ["first", "second", "third"];
        let given: Vec<_> = order.iter().map(|&idx| (names[idx], parts[idx].clone())).collect();
        puna_formats::open_parts(&given)
    };
    let checkpoint = open(&[0, 1, 2]).unwrap();
    assert_eq!((checkpoint.source.config(), checkpoint.files.len()), (&tiny_config(), 0));
    let whole = puna_formats::open(&folder.path().join("tiny-00001-of-00003.gguf")).unwrap();
    for id in WeightId::all(&tiny_config()) {
        let load =
            |checkpoint: &Checkpoint| checkpoint.source.load(id).ok().map(|t| t.data.to_vec());
        assert_eq!(load(&checkpoint), load(&whole), "{id}");
        // Views of the bytes that were given: nothing is copied.
        assert!(!checkpoint.source.copies(id), "{id}");
    }
    for (order, expected) in [
        (&[0, 2, 1][..], "third: split.no: expected 1, found 2"),
        (&[0, 1][..], "first: split.count: expected 2, found 3"),
        (&[0][..], "first: split.count: expected 1, as there is no folder"),
    ] {
        let message = open(order).err().expect("an error").to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[track_caller]
fn check_split(
    expected: &str,
    change: impl Fn(usize, &mut Vec<(String, Value)>),
    break_it: impl Fn(&[PathBuf]) -> PathBuf,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = break_it(&split(folder.path(), change));
    let message = puna_formats::open(&path).err().expect("an error").to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_missing_part_is_named() {
    check_split(
        "tiny-00002-of-00003.gguf is missing: it is part 2 of 3",
        |_, _| {},
        |paths| {
            std::fs::remove_file(&paths[1]).unwrap();
            paths[0].clone()
        },
    );
}

#[test]
fn a_part_under_another_name_is_refused() {
    check_split(
        "file name: expected NAME-00001-of-00003.gguf",
        |_, _| {},
        |paths| {
            let other = paths[0].with_file_name("other.gguf");
            std::fs::rename(&paths[0], &other).unwrap();
            other
        },
    );
}

#[test]
fn parts_in_the_wrong_order_are_refused() {
    check_split(
        "split.no: expected 1, found 2",
        |_, _| {},
        |paths| {
            std::fs::copy(&paths[2], &paths[1]).unwrap();
            paths[0].clone()
        },
    );
}

#[test]
fn parts_that_do_not_add_up_are_refused() {
    let fewer = |idx, metadata: &mut Vec<(String, Value)>| {
        if idx == 0 {
            metadata.last_mut().unwrap().1 = Value::I32(99);
        }
    };
    check_split("split.tensors.count: expected 99 tensors", fewer, |paths| paths[0].clone());
}

/// Changes the tiny model's metadata or tensors and expects a message.
#[track_caller]
fn check(
    expected: &str,
    change: impl FnOnce(&mut Vec<(String, Value)>, &mut Vec<(String, TensorInfo, Vec<u8>)>),
) {
    let (mut metadata, mut tensors) = (tiny_metadata(), tiny_tensors());
    change(&mut metadata, &mut tensors);
    let bytes = SharedBytes::new(tiny_gguf(&metadata, &tensors));
    let message = puna_formats::open_bytes("m", bytes).err().expect("an error").to_string();
    assert!(message.contains(expected), "{message}");
}

fn set(metadata: &mut Vec<(String, Value)>, key: &str, value: Value) {
    metadata.retain(|(k, _)| k != key);
    metadata.push((key.to_owned(), value));
}

#[test]
fn another_architecture() {
    check("general.architecture: qwen2 is not supported; supported: llama", |m, _| {
        set(m, "general.architecture", Value::String("qwen2".into()));
    });
}

#[test]
fn a_missing_key() {
    check("llama.block_count: expected a value, found none", |m, _| {
        m.retain(|(k, _)| k != "llama.block_count");
    });
}

#[test]
fn a_key_of_another_type() {
    check("llama.block_count: expected a count, found x of type String", |m, _| {
        set(m, "llama.block_count", Value::String("x".into()));
    });
}

#[test]
fn a_vocabulary_of_another_kind() {
    check("tokenizer.ggml.model: gpt2 is not supported", |m, _| {
        set(m, "tokenizer.ggml.model", Value::String("gpt2".into()));
    });
}

#[test]
fn scores_that_are_too_few() {
    check("tokenizer.ggml.scores: expected 5 elements of type f32", |m, _| {
        set(m, "tokenizer.ggml.scores", Value::f32s(&[0.0]));
    });
}

#[test]
fn a_vocabulary_that_differs_from_the_embedding() {
    check(
        "tensor token_embd.weight: expected shape [4, 32] by the configuration, found [5, 32]",
        |m, _| {
            set(m, "tokenizer.ggml.tokens", Value::strings(["<unk>", "<s>", "</s>", "a"]));
            set(m, "tokenizer.ggml.scores", Value::f32s(&[0.0; 4]));
            set(m, "tokenizer.ggml.token_type", Value::i32s(&[2, 3, 3, 1]));
        },
    );
}

#[test]
fn a_special_token_beyond_the_vocabulary() {
    check("tokenizer.ggml.eos_token_id: expected an id below 5, found 5", |m, _| {
        set(m, "tokenizer.ggml.eos_token_id", Value::U32(5));
    });
}

#[test]
fn a_missing_tensor() {
    check("tensor blk.0.attn_k.weight: expected a tensor of shape [16, 32], found none", |_, t| {
        t.retain(|(name, ..)| name != "blk.0.attn_k.weight");
    });
}

#[test]
fn a_tensor_of_another_shape() {
    check(
        "tensor blk.0.attn_k.weight: expected shape [16, 32] by the configuration, found [32, 16]",
        |_, t| {
            let k = t.iter_mut().find(|(name, ..)| name == "blk.0.attn_k.weight").unwrap();
            k.1.shape.reverse();
        },
    );
}

#[test]
fn a_layer_too_many() {
    check("tensor blk.1.attn_k.weight: expected only 1 layers", |_, t| {
        let mut k = t.iter().find(|(name, ..)| name == "blk.0.attn_k.weight").unwrap().clone();
        k.0 = "blk.1.attn_k.weight".into();
        t.push(k);
    });
}

#[test]
fn a_tensor_of_another_network() {
    check("tensor blk.0.attn_q.bias: expected a tensor of a Llama 2 network", |_, t| {
        t[0].0 = "blk.0.attn_q.bias".into();
    });
}

#[test]
fn a_rotation_that_covers_half_a_head() {
    check("llama.rope.dimension_count: 4 is not supported", |m, _| {
        set(m, "llama.rope.dimension_count", Value::U32(4));
    });
}

/// Changes the tiny model's bytes and expects a message.
#[track_caller]
fn check_bytes(expected: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = tiny_gguf(&tiny_metadata(), &tiny_tensors());
    change(&mut bytes);
    let bytes = SharedBytes::new(bytes);
    let message = puna_formats::open_bytes("m", bytes).err().expect("an error").to_string();
    assert!(message.contains(expected), "{message}");
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..at + with.len()].copy_from_slice(with);
}

fn find(bytes: &[u8], what: &str) -> usize {
    bytes.windows(what.len()).position(|w| w == what.as_bytes()).unwrap()
}

#[test]
fn version_1_and_big_endian() {
    check_bytes("GGUF version: version 1 is not supported", |b| overwrite(b, 4, &[1, 0, 0, 0]));
    check_bytes("byte order: big-endian is not supported", |b| overwrite(b, 4, &[0, 0, 0, 3]));
}

#[test]
fn version_2_is_read() {
    let mut bytes = tiny_gguf(&tiny_metadata(), &tiny_tensors());
    overwrite(&mut bytes, 4, &[2, 0, 0, 0]);
    assert!(puna_formats::open_bytes("m", SharedBytes::new(bytes)).is_ok());
}

#[test]
fn counts_beyond_the_file() {
    let huge = u64::MAX.to_le_bytes();
    check_bytes("number of tensors: expected at most", |b| overwrite(b, 8, &huge));
    check_bytes("number of metadata entries: expected at most", |b| overwrite(b, 16, &huge));
    check_bytes("metadata key 0: length: expected at most", |b| overwrite(b, 24, &huge));
    check_bytes("tokenizer.ggml.tokens: expected at most", |b| {
        let at = find(b, "tokenizer.ggml.tokens") + "tokenizer.ggml.tokens".len() + 8;
        overwrite(b, at, &huge);
    });
}

#[test]
fn a_value_type_that_does_not_exist() {
    check_bytes("llama.block_count: expected a value type from 0 to 12, found 99", |b| {
        let at = find(b, "llama.block_count") + "llama.block_count".len();
        overwrite(b, at, &[99, 0, 0, 0]);
    });
}

#[test]
fn arrays_nested_too_deep() {
    check_bytes("expected arrays nested at most", |b| {
        let at = find(b, "tokenizer.ggml.tokens") + "tokenizer.ggml.tokens".len() + 4;
        let nested: Vec<u8> = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0].repeat(8);
        overwrite(b, at, &nested);
    });
}

#[test]
fn a_tensor_type_that_is_not_read() {
    check_bytes("type of tensor token_embd.weight: type IQ4_XS is not supported", |b| {
        let at = find(b, "token_embd.weight") + "token_embd.weight".len() + 4 + 16;
        overwrite(b, at, &[23, 0, 0, 0]);
    });
}

#[test]
fn an_offset_off_its_alignment_or_beyond_the_file() {
    let offset_at =
        |b: &[u8]| find(b, "output_norm.weight") + "output_norm.weight".len() + 4 + 8 + 4;
    check_bytes("tensor output_norm.weight: expected an offset that is a multiple of 32", |b| {
        let at = offset_at(b);
        b[at] += 1;
    });
    check_bytes("tensor output_norm.weight: expected 128 bytes at", |b| {
        let at = offset_at(b);
        overwrite(b, at, &(1u64 << 40).to_le_bytes());
    });
    check_bytes("to begin after the end of output_norm.weight", |b| {
        let at = offset_at(b);
        overwrite(b, at, &[0; 8]);
    });
}

#[test]
fn an_alignment_of_another_size() {
    let mut metadata = tiny_metadata();
    set(&mut metadata, "general.alignment", Value::U32(64));
    let mut bytes = tiny_gguf(&metadata, &tiny_tensors());
    assert!(puna_formats::open_bytes("m", SharedBytes::new(bytes.clone())).is_ok());
    let at = find(&bytes, "general.alignment") + "general.alignment".len() + 4;
    overwrite(&mut bytes, at, &[33]);
    let message = puna_formats::open_bytes("m", SharedBytes::new(bytes)).err().unwrap().to_string();
    assert!(message.contains("general.alignment: expected a power of two"), "{message}");
}

#[test]
fn a_truncated_file() {
    check_bytes("it is truncated", |b| b.truncate(b.len() - 64));
    check_bytes("number of tensors: expected at most 0", |b| b.truncate(30));
    check_bytes("not a model in any form", |b| b.truncate(3));
}

#[test]
fn two_entries_of_one_name() {
    check_bytes("general.type: expected one entry of this name, found a second one", |b| {
        let at = find(b, "general.name");
        overwrite(b, at, b"general.type");
    });
    check_bytes("tensor blk.0.attn_k.weight: expected one tensor of this name", |b| {
        let at = find(b, "blk.0.attn_q.weight");
        overwrite(b, at, b"blk.0.attn_k.weight");
    });
}

#[test]
fn rope_scaling_of_every_kind() {
    let scaling = |entries: &[(&str, Value)]| {
        let mut metadata = tiny_metadata();
        for (key, value) in entries {
            set(&mut metadata, &format!("llama.rope.{key}"), value.clone());
        }
        let bytes = SharedBytes::new(tiny_gguf(&metadata, &tiny_tensors()));
        puna_formats::open_bytes("m", bytes).map(|c| c.source.config().rope.scaling)
    };
    let kind = |kind: &str| ("scaling.type", Value::String(kind.into()));
    let factor = ("scaling.factor", Value::F32(4.0));
    assert_eq!(scaling(&[kind("none")]).unwrap(), RopeScaling::None);
    let linear = RopeScaling::Linear { factor: 4.0 };
    assert_eq!(scaling(&[kind("linear"), factor.clone()]).unwrap(), linear);
    assert_eq!(scaling(&[("scale_linear", Value::F32(4.0))]).unwrap(), linear);
    let original = ("scaling.original_context_length", Value::U32(16));
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        original_max_seq_len: 16,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attn_factor: None,
    };
    assert_eq!(scaling(&[kind("yarn"), factor, original]).unwrap(), yarn);
    let message = scaling(&[kind("longrope")]).unwrap_err().to_string();
    assert!(message.contains("longrope is not supported; supported: none, linear, yarn"));
    let message = scaling(&[kind("linear")]).unwrap_err().to_string();
    assert!(message.contains("llama.rope.scaling.factor: expected a value, found none"));
}
