//! Every form of the golden models through both targets and back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_core::{DType, KvType, SamplingHints, TensorInfo, TensorSource, WeightId};
use puna_formats::gguf::{Value, WriteOptions};
use puna_formats::{Existing, Form, hf, safetensors};
use puna_hub::convert::{Conversion, Target, Written};
use puna_hub::{HubError, OpenOptions, Opened};
use puna_kernels::{Cpu, dequantize, quantize};
use puna_model::{Chunk, KvCache, Model, Runner, Wants};
use puna_testkit::testdata;
use puna_tokenizer::{Piece, PieceKind, Settings, Tokenizer};

/// Every checkpoint of `testdata/models` but the later parts of split ones.
const SOURCES: [&str; 28] = [
    "mha/hf",
    "mha/hf-bin",
    "mha/meta",
    "mha/meta-2",
    "mha/gguf/f32.gguf",
    "mha/gguf/f16.gguf",
    "mha/gguf/q8_0.gguf",
    "mha/llama2c/legacy.bin",
    "mha/llama2c/v1.bin",
    "mha/llama2c/v2.bin",
    "gqa/hf",
    "gqa/meta-2",
    "gqa/gguf/f32-00001-of-00002.gguf",
    "gqa/gguf/bf16.gguf",
    "gqa/gguf/mixed.gguf",
    "gqa/llama2c/legacy.bin",
    "k-quants/gguf/k-quants.gguf",
    "tied/hf",
    "tied/gguf/f32.gguf",
    "tied/llama2c/legacy.bin",
    "odd/hf",
    "head-dim/hf",
    "rope-linear/hf",
    "rope-linear/gguf/f32.gguf",
    "rope-linear-old/hf",
    "rope-yarn/hf",
    "rope-yarn/gguf/f32.gguf",
    "rope-dynamic/hf",
];

/// A vocabulary of `n` pieces: with all bytes where they have room.
fn tokenizer(n: usize) -> Tokenizer {
    let piece = |text: String, kind, score| Piece { text, kind, score };
    let mut pieces = vec![
        piece("<unk>".into(), PieceKind::Unknown, 0.0),
        piece("<s>".into(), PieceKind::Control, 0.0),
        piece("</s>".into(), PieceKind::Control, 0.0),
    ];
    let byte_fallback = n > 3 + 256;
    if byte_fallback {
        let bytes = (0..=255).map(|byte| piece(format!("<0x{byte:02X}>"), PieceKind::Byte, 0.0));
        pieces.extend(bytes);
    }
    let texts = std::iter::once('▁').chain('a'..).map(String::from);
    let normal = (0..).zip(texts);
    pieces.extend(
        normal
            .map(|(rank, text)| piece(text, PieceKind::Normal, -(rank as f32)))
            .take(n - pieces.len()),
    );
    Tokenizer::from_pieces(pieces, Settings { byte_fallback, ..Settings::default() }).unwrap()
}

struct Bench {
    folder: tempfile::TempDir,
    cpu: Cpu,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cpu: Cpu::new(2).unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens a golden model with a vocabulary of its size, where it has none of its own.
    fn source(&self, model: &str) -> Opened {
        let path = testdata("models").join(model);
        let checkpoint = puna_formats::open(&path).unwrap();
        let tokenizer_path = checkpoint.vocab.is_none().then(|| {
            let path = self.path("source.tokenizer.model");
            let model = tokenizer(checkpoint.source.config().vocab_size).to_sentencepiece();
            std::fs::write(&path, model.unwrap()).unwrap();
            path
        });
        let options = OpenOptions { tokenizer: tokenizer_path, ..OpenOptions::default() };
        puna_hub::open(path.to_str().unwrap(), &options).unwrap()
    }

    fn convert(&self, source: &Opened, out: &str, dtype: Option<DType>) -> (Opened, Written) {
        self.convert_with(source, out, dtype, u64::MAX).unwrap()
    }

    fn convert_with(
        &self,
        source: &Opened,
        out: &str,
        dtype: Option<DType>,
        max_file_bytes: u64,
    ) -> Result<(Opened, Written), HubError> {
        let target = if out.ends_with(".gguf") { Target::Gguf } else { Target::HuggingFace };
        let job = Conversion::new(source, target, dtype, &self.cpu)?;
        let options = WriteOptions { existing: Existing::Keep, max_file_bytes };
        let path = self.path(out);
        let mut last = 0;
        let written = job.write(&path, &options, &mut |n| std::mem::replace(&mut last, n) < n)?;
        assert_eq!(last, job.n_bytes());
        let open = if path.exists() { &path } else { &written.files[0] };
        Ok((puna_hub::open(open.to_str().unwrap(), &OpenOptions::default())?, written))
    }
}

/// Logits of a prompt that stays inside every context.
fn logits(model: &Opened, cpu: Cpu) -> Vec<f32> {
    let source = &*model.checkpoint.source;
    let n = 24;
    let ids: Vec<u32> =
        (0..n as u32).map(|i| 1 + i * 7 % (source.config().vocab_size as u32 - 1)).collect();
    let model = Arc::new(Model::load(source, n).unwrap());
    let n_blocks = KvCache::blocks_for(n);
    let blocks: Vec<u32> = (0..n_blocks as u32).collect();
    let mut runner = Runner::new(model, cpu, KvType::F32, n_blocks);
    let chunk = Chunk { tokens: &ids, pos: 0, blocks: &blocks, wants: Wants::All };
    runner.forward(&[chunk]).logits.to_vec()
}

/// Logits of two models: the same bits where both pair rows for RoPE in the same order; where not, the sums over a
/// head's elements have another order, and logits are as far apart as that rounding.
#[track_caller]
fn check_logits(a: &Opened, b: &Opened, what: &str) {
    let cpu = || Cpu::new(2).unwrap();
    let (x, y) = (logits(a, cpu()), logits(b, cpu()));
    let layout = |model: &Opened| model.checkpoint.source.config().rope.layout;
    if layout(a) == layout(b) {
        assert!(x.iter().zip(&y).all(|(x, y)| x.to_bits() == y.to_bits()), "{what}: other bits");
    } else {
        puna_testkit::assert_within_peak(what, &x, &y, 1e-4);
    }
}

/// The same bytes in every tensor.
#[track_caller]
fn check_bytes(a: &Opened, b: &Opened, what: &str) {
    let (a, b): (&dyn TensorSource, &dyn TensorSource) =
        (&*a.checkpoint.source, &*b.checkpoint.source);
    for id in WeightId::all(a.config()) {
        let (x, y) = (a.load(id).unwrap(), b.load(id).unwrap());
        assert_eq!(x.info, y.info, "{what}: {id}");
        assert!(*x.data == *y.data, "{what}: {id} has other bytes");
    }
}

/// The same values in every tensor, whatever its type.
#[track_caller]
fn check_values(a: &Opened, b: &Opened, what: &str) {
    let values = |model: &Opened, id| {
        let tensor = model.checkpoint.source.load(id).unwrap();
        let mut values = vec![0f32; tensor.info.n_elements().unwrap()];
        dequantize(tensor.info.dtype, &tensor.data, &mut values);
        values
    };
    for id in WeightId::all(a.checkpoint.source.config()) {
        assert_eq!(values(a, id), values(b, id), "{what}: {id}");
    }
}

fn is_plain(model: &Opened) -> bool {
    let source = &*model.checkpoint.source;
    WeightId::all(source.config()).all(|id| source.info(id).unwrap().dtype.is_float())
}

#[test]
fn every_form_goes_to_both_targets_and_back() {
    for model in SOURCES {
        let bench = Bench::new();
        let source = bench.source(model);
        let (gguf, _) = bench.convert(&source, "a.gguf", None);
        let (folder, _) = bench.convert(&source, "a", None);
        assert_eq!(gguf.checkpoint.form, Form::Gguf);
        assert_eq!(folder.checkpoint.form, Form::HuggingFace);
        check_logits(&source, &gguf, &format!("{model} to GGUF"));
        if is_plain(&source) {
            check_logits(&source, &folder, &format!("{model} to a folder"));
        }
        let (gguf_again, _) = bench.convert(&folder, "b.gguf", None);
        let (folder_again, _) = bench.convert(&gguf, "b", None);
        match source.checkpoint.form {
            Form::HuggingFace => check_bytes(&source, &folder_again, model),
            Form::Gguf if is_plain(&source) => check_bytes(&source, &gguf_again, model),
            Form::Gguf => check_values(&source, &gguf_again, model),
            Form::Meta | Form::Llama2c => check_values(&source, &gguf, model),
        }
        check_bytes(&folder, &folder_again, model);
        check_logits(&folder, &folder_again, model);
        let config = |model: &Opened| model.checkpoint.source.config().clone();
        let (back, once) = (config(&folder_again), config(&folder));
        if model != "rope-dynamic/hf" {
            assert_eq!(back, once, "{model}");
        }
        for converted in [&gguf, &folder, &gguf_again, &folder_again] {
            assert_eq!((converted.bos_id, &converted.stop_ids), (source.bos_id, &source.stop_ids));
            for (mine, theirs) in converted.tokenizer.pieces().iter().zip(source.tokenizer.pieces())
            {
                assert_eq!((&mine.text, mine.kind), (&theirs.text, theirs.kind), "{model}");
            }
        }
    }
}

/// A golden model as a folder in which each tensor has the type that `dtype_of` gives it. Norms are rounded so that
/// every float type holds them.
fn retyped(bench: &Bench, name: &str, dtype_of: impl Fn(WeightId) -> DType) -> Opened {
    let from = testdata("models/mha/hf");
    let source = puna_formats::open(&from).unwrap().source;
    let recoded = |dtype: DType, values: &[f32], cols: usize| {
        let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
        quantize(&bench.cpu, dtype, cols, values, None, &mut bytes);
        bytes
    };
    let mut tensors: Vec<_> = WeightId::all(source.config())
        .map(|id| {
            let tensor = source.load(id).unwrap();
            let (cols, is_norm) = (tensor.info.cols(), tensor.info.shape.len() == 1);
            let mut values = vec![0f32; tensor.info.n_elements().unwrap()];
            dequantize(tensor.info.dtype, &tensor.data, &mut values);
            if is_norm {
                let rounded = recoded(DType::BF16, &values, cols);
                dequantize(DType::BF16, &rounded, &mut values);
            }
            let info = TensorInfo { dtype: dtype_of(id), shape: tensor.info.shape };
            let bytes = recoded(info.dtype, &values, cols);
            ((hf::name(id), info), bytes)
        })
        .collect();
    tensors.sort_by_key(|((_, info), _)| std::cmp::Reverse(info.dtype.block().1));
    let folder = bench.path(name);
    std::fs::create_dir(&folder).unwrap();
    let infos: Vec<_> = tensors.iter().map(|(info, _)| info.clone()).collect();
    let mut writer = safetensors::Writer::create(&folder, &infos, u64::MAX).unwrap();
    for ((name, _), bytes) in &tensors {
        writer.write_part(name, bytes).unwrap();
    }
    writer.finish().unwrap();
    std::fs::copy(from.join("config.json"), folder.join("config.json")).unwrap();
    let model = tokenizer(272).to_sentencepiece().unwrap();
    std::fs::write(folder.join("tokenizer.model"), model).unwrap();
    puna_hub::open(folder.to_str().unwrap(), &OpenOptions::default()).unwrap()
}

#[test]
fn norms_come_back_in_the_types_they_had() {
    use DType::{BF16, F16, F32};
    // Types that matrices and norms take in turn, and whether GGUF has to be told those of the norms.
    let cases: [(&[DType], &[DType], bool); 8] = [
        (&[F32], &[F32], false),
        (&[F16], &[F16], false),
        (&[F16], &[F32], true),
        (&[F32], &[BF16], true),
        (&[F16, BF16], &[F32], false),
        (&[F16, BF16], &[F16], true),
        (&[F16, F32], &[F32, F16], true),
        (&[BF16], &[F16, F32, BF16], true),
    ];
    for (idx, (matrices, norms, told)) in cases.into_iter().enumerate() {
        let bench = Bench::new();
        let what = format!("case {idx}");
        let source = retyped(&bench, "source", |id| {
            let layer = if let WeightId::Layer(layer, _) = id { layer } else { 0 };
            let config = testdata_config();
            let types = if id.shape(&config).len() == 1 { norms } else { matrices };
            types[layer % types.len()]
        });
        let (gguf, _) = bench.convert(&source, "a.gguf", None);
        let (back, written) = bench.convert(&gguf, "b", None);
        check_bytes(&source, &back, &what);
        assert!(written.notes.is_empty(), "{what}: {:?}", written.notes);
        let is_told = |model: &Opened| {
            let keys = &model.checkpoint.gguf_metadata;
            keys.iter().any(|(key, _)| key == "puna.norm_types")
        };
        assert_eq!(is_told(&gguf), told, "{what}");
        // What is of other types than the folder was says nothing of it.
        let (other, _) = bench.convert(&gguf, "other.gguf", Some(DType::Q8_0));
        assert!(!is_told(&other), "{what}");
        if matrices != [BF16] {
            let (other, _) = bench.convert(&source, "bf16.gguf", Some(BF16));
            assert!(!is_told(&other), "{what}");
        }
    }
}

fn testdata_config() -> puna_core::ModelConfig {
    puna_formats::open(&testdata("models/mha/hf")).unwrap().source.config().clone()
}

#[test]
fn split_models_are_the_same_models() {
    for model in ["gqa/hf", "mha/gguf/q8_0.gguf"] {
        let bench = Bench::new();
        let source = bench.source(model);
        for out in ["a.gguf", "a"] {
            let (whole, _) = bench.convert(&source, out, None);
            let (split, written) =
                bench.convert_with(&source, &format!("split-{out}"), None, 10_000).unwrap();
            assert!(written.files.len() > 2, "{:?}", written.files);
            check_bytes(&whole, &split, model);
            let (joined, written) = bench.convert(&split, &format!("joined-{out}"), None);
            assert_eq!(written.files.len(), 1);
            check_bytes(&whole, &joined, model);
        }
    }
}

#[test]
fn other_types_are_rounded_once() {
    let bench = Bench::new();
    let source = bench.source("mha/hf");
    for (dtype, out) in [(DType::F16, "f16"), (DType::BF16, "bf16")] {
        let (folder, written) = bench.convert(&source, out, Some(dtype));
        let (gguf, _) = bench.convert(&source, &format!("{out}.gguf"), Some(dtype));
        let info = |model: &Opened, id| model.checkpoint.source.info(id).unwrap().dtype;
        assert_eq!(info(&folder, WeightId::TokEmbeddings), dtype);
        assert_eq!(info(&gguf, WeightId::TokEmbeddings), dtype);
        // Random norms do not fit into 16 bits.
        assert_eq!(info(&folder, WeightId::Norm), DType::F32);
        assert!(written.notes[0].contains("norms stay f32"), "{:?}", written.notes);
        check_logits(&folder, &gguf, out);
        let (f32_again, _) = bench.convert(&gguf, &format!("{out}-f32"), Some(DType::F32));
        check_values(&folder, &f32_again, out);
    }
}

#[test]
fn a_gguf_file_keeps_its_metadata() {
    let bench = Bench::new();
    let source = bench.source("gqa/gguf/f32-00001-of-00002.gguf");
    let (same, _) = bench.convert(&source, "same.gguf", None);
    let own = |model: &Opened| {
        let entries = model.checkpoint.gguf_metadata.clone().into_iter();
        entries.filter(|(key, _)| !key.starts_with("split.")).collect::<Vec<_>>()
    };
    assert_eq!(own(&same), own(&source));
    let (other, _) = bench.convert(&source, "other.gguf", Some(DType::BF16));
    let file_type = own(&other).into_iter().find(|(key, _)| key == "general.file_type");
    assert_eq!(file_type.map(|(_, value)| value), Some(Value::U32(32)));
}

#[test]
fn whether_a_text_begins_with_bos_travels() {
    let bench = Bench::new();
    let folder = bench.path("llama");
    copy_folder(&testdata("models/mha/hf"), &folder);
    let model = tokenizer(272).to_sentencepiece().unwrap();
    std::fs::write(folder.join("tokenizer.model"), model).unwrap();
    let config =
        r#"{"add_bos_token": false, "add_eos_token": true, "chat_template": "{{ messages }}"}"#;
    std::fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    let source = puna_hub::open(folder.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let (gguf, _) = bench.convert(&source, "a.gguf", None);
    let (back, _) = bench.convert(&gguf, "b", None);
    for opened in [&source, &gguf, &back] {
        let checkpoint = &opened.checkpoint;
        assert_eq!(opened.bos_id, None);
        assert_eq!((checkpoint.add_bos, checkpoint.add_eos), (Some(false), Some(true)));
        assert_eq!(checkpoint.chat_template.as_deref(), Some("{{ messages }}"));
    }
}

#[test]
fn notices_travel() {
    let bench = Bench::new();
    let folder = bench.path("llama");
    copy_folder(&testdata("models/mha/hf"), &folder);
    let own = [
        ("LICENSE.txt", "be kind"),
        ("LICENSE.llama2", "be kinder"),
        ("USE_POLICY.md", "# no harm"),
        ("Notice", "by us"),
    ];
    for (name, text) in own {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let card = "---\nlicense: llama2\n---\n# Ours\n";
    std::fs::write(folder.join("README.md"), card).unwrap();
    std::fs::write(folder.join("license.py"), "no notice").unwrap();
    let model = tokenizer(272).to_sentencepiece().unwrap();
    std::fs::write(folder.join("tokenizer.model"), model).unwrap();
    let source = puna_hub::open(folder.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let (gguf, _) = bench.convert(&source, "a.gguf", None);
    let licence = gguf.checkpoint.metadata.iter().find(|(key, _)| key == "general.license");
    assert_eq!(licence.map(|(_, value)| value.as_str()), Some("llama2"));
    for (source, out, card) in [(&gguf, "b", "---\nlicense: llama2\n---\n"), (&source, "c", card)] {
        let (_, written) = bench.convert(source, out, None);
        assert!(written.notes.is_empty(), "{:?}", written.notes);
        let text = |name| std::fs::read_to_string(bench.path(out).join(name)).unwrap();
        for (name, expected) in own {
            assert_eq!(text(name), expected);
        }
        assert_eq!(text("README.md"), card);
        assert!(!bench.path(out).join("license.py").exists());
    }
}

#[test]
fn notices_that_stay_behind_are_told() {
    let bench = Bench::new();
    let folder = bench.path("llama");
    copy_folder(&testdata("models/mha/hf"), &folder);
    let model = tokenizer(272).to_sentencepiece().unwrap();
    std::fs::write(folder.join("tokenizer.model"), model).unwrap();
    let too_large = vec![b'x'; (1 << 20) + 1];
    std::fs::write(folder.join("LICENSE-large.txt"), too_large).unwrap();
    for no in 0..33 {
        std::fs::write(folder.join(format!("NOTICE.{no:02}")), "by us").unwrap();
    }
    let source = puna_hub::open(folder.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let left_out = |written: &Written| {
        let told = written.notes.iter().filter(|note| note.contains("is left out"));
        told.map(|note| note.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for out in ["a.gguf", "a"] {
        let (_, written) = bench.convert(&source, out, None);
        assert_eq!(left_out(&written), ["LICENSE-large.txt", "NOTICE.32"], "{out}");
    }
    std::fs::write(bench.path("NOTICE.07"), "by others").unwrap();
    std::fs::write(bench.path("NOTICE.08"), "by us").unwrap();
    let gguf =
        puna_hub::open(bench.path("a.gguf").to_str().unwrap(), &OpenOptions::default()).unwrap();
    let (_, written) = bench.convert(&gguf, "b", None);
    assert_eq!(left_out(&written), ["NOTICE.07"]);
}

#[test]
fn rows_without_a_piece_are_padded_and_told() {
    let bench = Bench::new();
    let path = bench.path("t.model");
    std::fs::write(&path, tokenizer(270).to_sentencepiece().unwrap()).unwrap();
    let model = testdata("models/mha/hf");
    let options = OpenOptions { tokenizer: Some(path), padded: true, ..OpenOptions::default() };
    let source = puna_hub::open(model.to_str().unwrap(), &options).unwrap();
    let (gguf, written) = bench.convert(&source, "a.gguf", None);
    assert!(written.notes.iter().any(|note| note.contains("[PAD270]")), "{:?}", written.notes);
    let last = gguf.tokenizer.piece(271).unwrap();
    assert_eq!((last.text.as_str(), last.kind), ("[PAD271]", PieceKind::Unused));
    let strict = OpenOptions { padded: false, ..options };
    assert!(puna_hub::open(model.to_str().unwrap(), &strict).is_err());
}

#[test]
fn a_value_that_does_not_fit_is_named_and_nothing_is_left() {
    let bench = Bench::new();
    let path = bench.path("legacy.bin");
    let mut bytes = std::fs::read(testdata("models/mha/llama2c/legacy.bin")).unwrap();
    // The first weight of the embedding.
    bytes[28..32].copy_from_slice(&1e6f32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let model = tokenizer(272).to_sentencepiece().unwrap();
    std::fs::write(bench.path("tokenizer.model"), model).unwrap();
    let source = puna_hub::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let before = std::fs::read_dir(bench.folder.path()).unwrap().count();
    for out in ["a.gguf", "a"] {
        let message =
            bench.convert_with(&source, out, Some(DType::F16), u64::MAX).err().unwrap().to_string();
        assert!(
            message.contains("tok_embeddings: value 1000000 does not fit into f16"),
            "{message}"
        );
        assert!(message.contains("bf16 and f32 hold it"), "{message}");
    }
    assert_eq!(std::fs::read_dir(bench.folder.path()).unwrap().count(), before);
}

#[test]
fn a_source_that_changes_meanwhile_is_named_and_nothing_is_left() {
    let bench = Bench::new();
    let folder = bench.path("llama");
    copy_folder(&testdata("models/mha/meta-2"), &folder);
    let model = tokenizer(272).to_sentencepiece().unwrap();
    std::fs::write(folder.join("tokenizer.model"), model).unwrap();
    let source = puna_hub::open(folder.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
    let shard = std::fs::File::options().write(true).open(folder.join("consolidated.01.pth"));
    shard.unwrap().set_modified(later).unwrap();
    let message = bench.convert_with(&source, "a.gguf", None, u64::MAX).err().unwrap().to_string();
    assert!(message.contains("consolidated.01.pth"), "{message}");
    assert!(message.contains("written to since"), "{message}");
    assert!(!bench.path("a.gguf").exists());
}

#[test]
fn the_bits_do_not_depend_on_threads() {
    let mut bench = Bench::new();
    let source = bench.source("mha/hf");
    let mut files = Vec::new();
    for n_threads in [1, 3] {
        bench.cpu = Cpu::new(n_threads).unwrap();
        let out = format!("{n_threads}.gguf");
        bench.convert(&source, &out, Some(DType::F16));
        files.push(std::fs::read(bench.path(&out)).unwrap());
    }
    assert!(files[0] == files[1]);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// What a model's files say of drawing tokens goes where it goes.
#[test]
fn suggestions_on_sampling_are_kept() {
    let bench = Bench::new();
    let mut source = bench.source("mha/hf");
    let hints = SamplingHints {
        temperature: Some(0.6),
        top_k: Some(40),
        top_p: Some(0.9),
        min_p: Some(0.05),
        repetition_penalty: Some(1.1),
    };
    let (folder, _) = bench.convert(&source, "plain", None);
    assert_eq!(folder.checkpoint.sampling, SamplingHints::default());
    for expected in [hints, SamplingHints { temperature: Some(0.0), ..SamplingHints::default() }] {
        source.checkpoint.sampling = expected;
        let name = |end: &str| format!("{}{end}", expected.temperature.unwrap());
        let (gguf, _) = bench.convert(&source, &name("a.gguf"), None);
        assert_eq!(gguf.checkpoint.sampling, expected);
        let (again, _) = bench.convert(&gguf, &name("b.gguf"), None);
        assert_eq!(again.checkpoint.sampling, expected);
        let (folder, _) = bench.convert(&gguf, &name("b"), None);
        let text = std::fs::read_to_string(bench.path(&name("b/generation_config.json"))).unwrap();
        let greedy = expected.temperature == Some(0.0);
        assert_eq!(text.contains("\"do_sample\": false"), greedy, "{text}");
        assert_eq!(folder.checkpoint.sampling, expected);
    }
}
