//! The writers against the readers: parts, splits, drafts.

mod common;

use std::fs;
use std::path::Path;

use common::{tiny_config, tiny_metadata, tiny_tensors};
use puna_core::{DType, TensorInfo, TensorSource, WeightId};
use puna_formats::gguf::{Draft, Value, WriteOptions, Writer};
use puna_formats::{Checkpoint, Existing, FormatError, hf, open, safetensors};

type Tensors = Vec<(String, TensorInfo, Vec<u8>)>;

/// Begins the tiny model and writes its tensors in stretches of 100 bytes.
fn draft(path: &Path, options: WriteOptions, metadata: &[(String, Value)]) -> Draft {
    let tensors = tiny_tensors();
    let infos: Vec<_> = tensors.iter().map(|(n, i, _)| (n.clone(), i.clone())).collect();
    let mut writer = Writer::with_options(path, metadata, &infos, &options).unwrap();
    for (name, _, data) in &tensors {
        for part in data.chunks(100) {
            writer.write_part(name, part).unwrap();
        }
    }
    writer.draft().unwrap()
}

/// The checkpoint's tensors are the tiny model's, whole and row by row.
fn check(checkpoint: &Checkpoint) {
    let tensors: Tensors = tiny_tensors();
    for (id, (name, info, data)) in WeightId::all(&tiny_config()).zip(tensors) {
        let source: &dyn TensorSource = &*checkpoint.source;
        let tensor = source.load(id).unwrap();
        assert_eq!((tensor.info, &*tensor.data), (info.clone(), &*data), "{name}");
        let mut rows = Vec::new();
        for row in 0..info.n_rows().unwrap() {
            source.read_rows(id, row..row + 1, &mut rows).unwrap();
        }
        assert_eq!(rows, data, "{name}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_in_one_file_or_split_is_the_same_model() {
    for (max_file_bytes, n_files) in [(u64::MAX, 1), (10_000, 5)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        let options = WriteOptions { existing: Existing::Keep, max_file_bytes };
        let draft = draft(&path, options, &tiny_metadata());
        assert_eq!(draft.files().len(), n_files);
        check(&draft.open().unwrap());
        assert!(names(folder.path()).iter().all(|name| name.ends_with(".tmp")));
        draft.commit().unwrap();
        assert_eq!(names(folder.path()).len(), n_files);
        let first = match n_files {
            1 => path,
            n => folder.path().join(format!("tiny-00001-of-{n:05}.gguf")),
        };
        let checkpoint = open(&first).unwrap();
        check(&checkpoint);
        let get = |key: &str| checkpoint.gguf_metadata.iter().find(|(k, _)| k == key).cloned();
        assert_eq!(get("general.name").unwrap().1, Value::String("tiny".into()));
        let total = tiny_tensors().len() as i32;
        assert_eq!(
            get("split.tensors.count").map(|(_, v)| v),
            (n_files > 1).then_some(Value::I32(total))
        );
    }
}

#[test]
fn a_draft_takes_figures_of_the_same_size_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let mut metadata = tiny_metadata();
    metadata.push(("test.figure".to_owned(), Value::F32(0.0)));
    let mut draft = draft(&path, WriteOptions::default(), &metadata);
    let set = |draft: &mut Draft, key: &str, value| {
        draft.set_metadata(&[(key.to_owned(), value)]).map_err(|e: FormatError| e.to_string())
    };
    set(&mut draft, "test.figure", Value::F32(1.5)).unwrap();
    set(&mut draft, "general.name", Value::String("TINY".into())).unwrap();
    for (key, value, part) in [
        ("test.figure", Value::F64(1.5), "F64 of 8 bytes for F32 of 4"),
        ("general.name", Value::String("longer".into()), "String of 14 bytes for String of 12"),
        ("test.other", Value::F32(1.5), "found none"),
    ] {
        let message = set(&mut draft, key, value).unwrap_err();
        assert!(message.contains(part) && message.contains(key), "{message}");
    }
    draft.commit().unwrap();
    let checkpoint = open(&path).unwrap();
    check(&checkpoint);
    let mut expected = metadata;
    expected[2].1 = Value::String("TINY".into());
    expected.last_mut().unwrap().1 = Value::F32(1.5);
    assert_eq!(checkpoint.gguf_metadata, expected);
}

#[test]
fn nothing_is_left_of_a_draft_that_is_dropped_or_late() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let options = WriteOptions { existing: Existing::Keep, max_file_bytes: 10_000 };
    drop(draft(&path, options, &tiny_metadata()));
    assert!(names(folder.path()).is_empty());
    let late = draft(&path, options, &tiny_metadata());
    let second = folder.path().join("tiny-00002-of-00005.gguf");
    fs::write(&second, "somebody else's").unwrap();
    let message = late.commit().unwrap_err().to_string();
    assert!(message.contains("tiny-00002-of-00005.gguf exists already"), "{message}");
    assert_eq!(names(folder.path()), ["tiny-00002-of-00005.gguf"]);
    assert_eq!(fs::read(second).unwrap(), b"somebody else's");
}

#[test]
fn a_forced_split_that_fails_brings_the_old_one_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let options = WriteOptions { existing: Existing::Replace, max_file_bytes: 10_000 };
    let part = |no: usize| folder.path().join(format!("tiny-{no:05}-of-00005.gguf"));
    for no in [1, 2, 4] {
        fs::write(part(no), format!("old {no}")).unwrap();
    }
    let check_old = |what: &str| {
        assert_eq!(names(folder.path()).len(), 3, "{what}: {:?}", names(folder.path()));
        for no in [1, 2, 4] {
            assert_eq!(fs::read_to_string(part(no)).unwrap(), format!("old {no}"), "{what}");
        }
    };
    let late = draft(&path, options, &tiny_metadata());
    fs::create_dir(part(3)).unwrap();
    let message = late.commit().unwrap_err().to_string();
    assert!(message.contains("tiny-00003-of-00005.gguf is a folder"), "{message}");
    fs::remove_dir(part(3)).unwrap();
    check_old("a folder that appears");
    // Somebody removes a temporary file: it fails when the others are in their places.
    let broken = draft(&path, options, &tiny_metadata());
    let is_second = |name: &String| name.starts_with(".tiny-00002") && name.ends_with(".tmp");
    let temporary = names(folder.path()).into_iter().find(is_second).unwrap();
    fs::remove_file(folder.path().join(temporary)).unwrap();
    assert!(broken.commit().is_err());
    check_old("a part that is gone");
    draft(&path, options, &tiny_metadata()).commit().unwrap();
    assert_eq!(names(folder.path()).len(), 5);
    check(&open(&part(1)).unwrap());
}

/// Writes the tiny model's tensors and configuration into `folder`.
fn write_folder(folder: &Path, max_file_bytes: u64) {
    let tensors: Vec<_> = WeightId::all(&tiny_config())
        .zip(tiny_tensors())
        .map(|(id, (_, info, data))| (hf::name(id), info, data))
        .collect();
    let infos: Vec<_> = tensors.iter().map(|(n, i, _)| (n.clone(), i.clone())).collect();
    let mut writer = safetensors::Writer::create(folder, &infos, max_file_bytes).unwrap();
    for (name, _, data) in &tensors {
        for part in data.chunks(100) {
            writer.write_part(name, part).unwrap();
        }
    }
    if let Some(index) = writer.finish().unwrap() {
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    }
    let extras = hf::ConfigExtras {
        bos_id: Some(1),
        eos_ids: vec![2],
        pad_id: None,
        sampling: puna_core::SamplingHints::default(),
        dtype: DType::F32,
    };
    fs::write(folder.join("config.json"), hf::config_json(&tiny_config(), &extras)).unwrap();
}

#[test]
fn a_folder_in_one_file_or_in_shards_is_the_same_model() {
    for (max_file_bytes, n_files) in [(u64::MAX, 2), (10_000, 7)] {
        let folder = tempfile::tempdir().unwrap();
        write_folder(folder.path(), max_file_bytes);
        assert_eq!(names(folder.path()).len(), n_files, "{:?}", names(folder.path()));
        let checkpoint = open(folder.path()).unwrap();
        check(&checkpoint);
        for file in checkpoint.files {
            let bytes = fs::read(&file).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(header.is_multiple_of(8), "{header}");
        }
    }
    let sharded = tempfile::tempdir().unwrap();
    write_folder(sharded.path(), 10_000);
    let index = fs::read_to_string(sharded.path().join("model.safetensors.index.json")).unwrap();
    let total: usize = tiny_tensors().iter().map(|(_, _, data)| data.len()).sum();
    assert!(index.contains(&format!("\"total_size\": {total}")), "{index}");
}

#[test]
fn what_safetensors_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let quantised = TensorInfo { dtype: DType::Q8_0, shape: vec![2, 32] };
    let plain = TensorInfo { dtype: DType::F16, shape: vec![2, 3] };
    let create = |tensors: &[(String, TensorInfo)]| {
        safetensors::Writer::create(folder.path(), tensors, u64::MAX)
    };
    let message = |outcome: Result<safetensors::Writer, FormatError>| {
        outcome.err().expect("it is refused").to_string()
    };
    let refused = message(create(&[("a".to_owned(), quantised)]));
    assert!(refused.contains("tensor a: expected F32, F16 or BF16, found q8_0"), "{refused}");
    let twice = [("a".to_owned(), plain.clone()), ("a".to_owned(), plain.clone())];
    assert!(message(create(&twice)).contains("one tensor of this name"));
    let mut writer = create(&[("a".to_owned(), plain)]).unwrap();
    let wrong = writer.write_part("b", &[0]).unwrap_err().to_string();
    assert!(wrong.contains("tensor b: expected the turn of a"), "{wrong}");
    let long = writer.write_part("a", &[0; 13]).unwrap_err().to_string();
    assert!(long.contains("expected 12 bytes, as announced"), "{long}");
}
