//! Ids and texts against PyPI `sentencepiece` and `tokenizers`, over the files that
//! `testdata/scripts/tokenizer_golden.py` made; their layout is described there.

use puna_testkit::{shared_data, testdata};
use puna_tokenizer::Tokenizer;
use std::collections::BTreeMap;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn text(&mut self) -> &'a str {
        let n = self.u32();
        std::str::from_utf8(self.take(n)).unwrap()
    }

    fn ids(&mut self) -> Vec<u32> {
        let n = self.u32();
        self.take(2 * n)
            .chunks_exact(2)
            .map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])))
            .collect()
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.u32()).map(|_| read(self)).collect()
    }
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(testdata("tokenizer").join(name)).unwrap()
}

fn fnv(ids: &[u32]) -> u64 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

/// Compares `tokenizer` with the answers in `golden`, over all hard strings.
fn check(tokenizer: &Tokenizer, golden: &str) {
    let (strings, golden_file) = (read("strings.bin"), read(golden));
    let strings = Reader(&strings).list(Reader::text);
    let mut answers = Reader(&golden_file);
    let hashes = answers.list(Reader::u64);
    let full = answers.list(Reader::ids);
    let decodings = answers.list(|r| (r.ids(), r.text()));
    assert!(answers.0.is_empty());
    assert!(strings.len() >= 20_000 && hashes.len() == strings.len() && full.len() >= 2000);
    for (text, expected) in strings.iter().zip(&full) {
        assert_eq!(tokenizer.encode(text), *expected, "{golden}: {text:?}");
    }
    for (text, &expected) in strings.iter().zip(&hashes) {
        let ids = tokenizer.encode(text);
        assert_eq!(fnv(&ids), expected, "{golden}: {text:?} gives {ids:?}");
    }
    for (ids, expected) in decodings {
        assert_eq!(tokenizer.decode(&ids), expected, "{golden}: {ids:?}");
    }
}

#[test]
fn trained_and_edited_models_equal_sentencepiece() {
    for name in ["small", "large", "edited", "bare"] {
        let tokenizer = Tokenizer::from_sentencepiece(&read(&format!("{name}.model"))).unwrap();
        check(&tokenizer, &format!("{name}.golden"));
    }
}

#[test]
fn a_written_model_reads_the_same() {
    for name in ["small", "large", "edited", "bare"] {
        let tokenizer = Tokenizer::from_sentencepiece(&read(&format!("{name}.model"))).unwrap();
        let again = Tokenizer::from_sentencepiece(&tokenizer.to_sentencepiece().unwrap()).unwrap();
        assert_eq!(
            (again.pieces(), again.settings()),
            (tokenizer.pieces(), tokenizer.settings()),
            "{name}"
        );
    }
}

/// The same file with each merge "a b" as a pair `["a", "b"]`.
fn with_pairs(json: &[u8]) -> Vec<u8> {
    let mut file: serde_json::Value = serde_json::from_slice(json).unwrap();
    for merge in file["model"]["merges"].as_array_mut().unwrap() {
        let (a, b) = merge.as_str().unwrap().split_once(' ').unwrap();
        *merge = serde_json::json!([a, b]);
    }
    serde_json::to_vec(&file).unwrap()
}

#[test]
fn hugging_face_files_equal_their_library() {
    let small = read("small.json");
    for json in [&small, &with_pairs(&small)] {
        let tokenizer = Tokenizer::from_hf_json(json, None).unwrap();
        check(&tokenizer, "small.golden");
        let again = Tokenizer::from_sentencepiece(&tokenizer.to_sentencepiece().unwrap()).unwrap();
        check(&again, "small.golden");
    }
    let metaspace = Tokenizer::from_hf_json(&read("metaspace.json"), None).unwrap();
    check(&metaspace, "metaspace.golden");
    assert!(metaspace.to_sentencepiece().is_err(), "a tokenizer.model has no such space rule");
}

#[test]
fn llama2_equals_sentencepiece() {
    let Some(data) = shared_data() else { return };
    let file = |name: &str| std::fs::read(data.join("tokenizer/llama2").join(name)).unwrap();
    let model = Tokenizer::from_sentencepiece(&file("tokenizer.model")).unwrap();
    check(&model, "llama2.golden");
    let (json, config) = (file("tokenizer.json"), file("tokenizer_config.json"));
    for json in [&json, &with_pairs(&json)] {
        let tokenizer = Tokenizer::from_hf_json(json, Some(&config)).unwrap();
        check(&tokenizer, "llama2.golden");
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (Some(1), Some(2)));
        let again = Tokenizer::from_sentencepiece(&tokenizer.to_sentencepiece().unwrap()).unwrap();
        check(&again, "llama2.golden");
    }
    let pieces = Tokenizer::from_pieces(model.pieces().to_vec(), model.settings().clone()).unwrap();
    check(&pieces, "llama2.golden");
}

#[test]
fn llama2_equals_the_vectors_of_llama_cpp() {
    let Some(data) = shared_data() else { return };
    let model = std::fs::read(data.join("tokenizer/llama2/tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_sentencepiece(&model).unwrap();
    let file =
        |name: &str| std::fs::read_to_string(data.join("tokenizer/vectors").join(name)).unwrap();
    let (inputs, outputs) = (file("llama-spm.inp"), file("llama-spm.out"));
    let inputs = inputs.strip_suffix("\n__ggml_vocab_test__\n").unwrap();
    let inputs: Vec<_> = inputs.split("\n__ggml_vocab_test__\n").collect();
    assert_eq!(inputs.len(), outputs.lines().count());
    for (text, ids) in inputs.iter().zip(outputs.lines()) {
        let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text), expected, "{text:?}");
    }
}

/// llama2.c's files of the small story vocabularies hold what their `tokenizer.model` holds.
#[test]
fn llama2c_files_hold_the_same_pieces() {
    let model =
        std::fs::read(puna_testkit::workspace_root().join("models/stories260K.tokenizer.model"));
    let Some(data) = shared_data() else { return };
    let bin = std::fs::read(data.join("tokenizer/tok512.bin")).unwrap();
    let bin = Tokenizer::from_llama2c(&bin, 512).unwrap();
    let model = Tokenizer::from_sentencepiece(&model.unwrap()).unwrap();
    let texts = |t: &Tokenizer| {
        t.pieces().iter().map(|p| (p.text.clone(), p.kind)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(texts(&bin), texts(&model));
    let text = "Once upon a time, there was a little girl named Lily. She said: \"Äh!\"";
    assert_eq!(bin.encode(text), model.encode(text));
    let large = std::fs::read(data.join("tokenizer/tok4096.bin")).unwrap();
    let large = Tokenizer::from_llama2c(&large, 4096).unwrap();
    assert_eq!(large.decode(&large.encode(text)), text);
}
