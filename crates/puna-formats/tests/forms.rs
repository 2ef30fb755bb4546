//! The golden models in all their forms: what one form holds, the others hold to the last bit.

use puna_core::{DType, LayerWeight, ModelConfig, RopeLayout, RopeScaling, TensorInfo, WeightId};
use puna_formats::{Checkpoint, Form};
use puna_testkit::testdata;

fn open(path: &str) -> Checkpoint {
    puna_formats::open(&testdata("models").join(path)).unwrap_or_else(|e| panic!("{e}"))
}

/// A tensor with rows paired as in Meta's files, whatever the form.
fn interleaved(checkpoint: &Checkpoint, id: WeightId) -> (TensorInfo, Vec<u8>) {
    let config = checkpoint.source.config();
    let tensor = checkpoint.source.load(id).unwrap();
    assert_eq!(checkpoint.source.info(id).as_ref(), Some(&tensor.info));
    let turns = matches!(id, WeightId::Layer(_, LayerWeight::Wq | LayerWeight::Wk));
    if config.rope.layout == RopeLayout::Interleaved || !turns {
        return (tensor.info, tensor.data.to_vec());
    }
    let (half, row_bytes) = (config.head_dim / 2, tensor.data.len() / tensor.info.shape[0]);
    let rows: Vec<&[u8]> = tensor.data.chunks(row_bytes).collect();
    let heads = rows.chunks(config.head_dim);
    let rows = heads.flat_map(|head| (0..half).flat_map(move |i| [head[i], head[i + half]]));
    (tensor.info, rows.flatten().copied().collect())
}

/// A configuration without what forms state differently or not at all.
fn comparable(config: &ModelConfig, like: &ModelConfig) -> ModelConfig {
    let mut config = config.clone();
    config.rope.layout = like.rope.layout;
    config.max_seq_len = like.max_seq_len;
    config
}

/// Opens every path of a golden model and compares it with the first.
#[track_caller]
fn check_equal(paths: &[(&str, Form)]) {
    let first = open(paths[0].0);
    for &(path, form) in paths {
        let other = open(path);
        assert_eq!(other.form, form, "{path}");
        let (a, b) = (first.source.config(), other.source.config());
        assert_eq!(&comparable(b, a), a, "{path}");
        for id in WeightId::all(a) {
            let (expected, found) = (interleaved(&first, id), interleaved(&other, id));
            assert_eq!(found.0.shape, expected.0.shape, "{path}: {id}");
            // GGUF files keep norms in f32 beside 16-bit matrices.
            if found.0.dtype == expected.0.dtype {
                assert!(found.1 == expected.1, "{path}: {id}");
            } else {
                assert_eq!(found.0.shape.len(), 1, "{path}: {id}");
                assert_eq!(values(&found), values(&expected), "{path}: {id}");
            }
        }
    }
}

/// The values of a tensor of a plain type.
fn values((info, bytes): &(TensorInfo, Vec<u8>)) -> Vec<f32> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match info.dtype {
        DType::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        DType::F16 => pairs().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect(),
        DType::BF16 => pairs().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        other => panic!("{other} is not plain"),
    }
}

#[test]
fn multi_head_in_f32() {
    check_equal(&[
        ("mha/meta", Form::Meta),
        ("mha/meta/consolidated.00.pth", Form::Meta),
        ("mha/hf", Form::HuggingFace),
        ("mha/hf/model.safetensors", Form::HuggingFace),
        ("mha/gguf/f32.gguf", Form::Gguf),
        ("mha/llama2c/legacy.bin", Form::Llama2c),
        ("mha/llama2c/v1.bin", Form::Llama2c),
    ]);
}

#[test]
fn multi_head_in_f16() {
    check_equal(&[
        ("mha/meta-2", Form::Meta),
        ("mha/hf-bin", Form::HuggingFace),
        ("mha/hf-bin/pytorch_model-00002-of-00002.bin", Form::HuggingFace),
        ("mha/gguf/f16.gguf", Form::Gguf),
    ]);
}

#[test]
fn grouped_query_in_f32() {
    check_equal(&[
        ("gqa/gguf/f32-00001-of-00002.gguf", Form::Gguf),
        ("gqa/gguf/f32-00002-of-00002.gguf", Form::Gguf),
        ("gqa/llama2c/legacy.bin", Form::Llama2c),
    ]);
}

#[test]
fn grouped_query_in_bf16() {
    check_equal(&[
        ("gqa/meta-2", Form::Meta),
        ("gqa/hf", Form::HuggingFace),
        ("gqa/gguf/bf16.gguf", Form::Gguf),
    ]);
}

#[test]
fn tied_output() {
    check_equal(&[
        ("tied/hf", Form::HuggingFace),
        ("tied/gguf/f32.gguf", Form::Gguf),
        ("tied/llama2c/legacy.bin", Form::Llama2c),
    ]);
    let checkpoint = open("tied/hf");
    assert!(checkpoint.source.config().tied_output);
    assert!(checkpoint.source.load(WeightId::Output).is_err());
}

#[test]
fn scaled_rotation() {
    check_equal(&[
        ("rope-linear/hf", Form::HuggingFace),
        ("rope-linear/gguf/f32.gguf", Form::Gguf),
    ]);
    check_equal(&[("rope-yarn/hf", Form::HuggingFace), ("rope-yarn/gguf/f32.gguf", Form::Gguf)]);
    let linear = RopeScaling::Linear { factor: 4.0 };
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        original_max_seq_len: 32,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attn_factor: None,
    };
    let cases = [
        ("rope-linear/hf", linear),
        ("rope-linear-old/hf", linear),
        ("rope-dynamic/hf", RopeScaling::Ntk { factor: 2.0, original_max_seq_len: 32 }),
        ("rope-yarn/hf", yarn),
    ];
    for (path, expected) in cases {
        assert_eq!(open(path).source.config().rope.scaling, expected, "{path}");
    }
}

#[test]
fn odd_sizes() {
    let odd = open("odd/hf").source;
    let config = odd.config();
    assert_eq!((config.dim, config.hidden_dim, config.vocab_size), (40, 77, 131));
    assert_eq!((config.head_dim, config.n_kv_heads), (10, 1));
    let wide = open("head-dim/hf").source;
    let config = wide.config();
    assert!(config.head_dim > config.dim / config.n_heads);
}

#[test]
fn what_is_mapped_and_what_is_copied() {
    let id = WeightId::Layer(1, LayerWeight::Wo);
    for (path, copies) in [
        ("mha/hf", false),
        ("mha/hf-bin", false),
        ("mha/meta", false),
        ("mha/meta-2", true),
        ("mha/gguf/q8_0.gguf", false),
        ("mha/llama2c/v1.bin", false),
        ("mha/llama2c/v2.bin", true),
    ] {
        assert_eq!(open(path).source.copies(id), copies, "{path}");
    }
    // Norms are the same in every shard, so that one of them serves.
    assert!(!open("mha/meta-2").source.copies(WeightId::Norm));
}

#[test]
fn quantised_types() {
    let types = |path| -> Vec<DType> {
        let source = open(path).source;
        let all = WeightId::all(source.config());
        let mut types: Vec<_> = all.map(|id| source.info(id).unwrap().dtype).collect();
        types.sort();
        types.dedup();
        types
    };
    use DType::{F32, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
    assert_eq!(types("mha/gguf/q8_0.gguf"), [F32, Q8_0]);
    assert_eq!(types("gqa/gguf/mixed.gguf"), [F32, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0]);
    assert_eq!(types("k-quants/gguf/k-quants.gguf"), [F32, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K]);
}

/// Version 2 of llama2.c rounds each value to one of 255 steps of its group's largest, so it is within half
/// a step of the value, and one ulp of the product.
#[test]
fn groups_are_multiplied_out() {
    let (exact, rounded) = (open("mha/llama2c/v1.bin"), open("mha/llama2c/v2.bin"));
    let group_len: usize = rounded.metadata[0].1.rsplit(' ').next().unwrap().parse().unwrap();
    let mut n_equal = 0;
    for id in WeightId::all(exact.source.config()) {
        let (exact, rounded) = (interleaved(&exact, id), interleaved(&rounded, id));
        let (exact, rounded) = (values(&exact), values(&rounded));
        if exact == rounded {
            n_equal += 1;
            continue;
        }
        for (exact, rounded) in exact.chunks(group_len).zip(rounded.chunks(group_len)) {
            let peak = exact.iter().fold(0f32, |peak, x| peak.max(x.abs()));
            let bound = peak / 127.0 / 2.0 + peak * f32::EPSILON;
            for (x, y) in exact.iter().zip(rounded) {
                assert!((x - y).abs() <= bound, "{id}: {y}, expected {x} within {bound}");
            }
        }
    }
    assert_eq!(n_equal, 2 * exact.source.config().n_layers + 1, "the norms are kept");
}

#[test]
fn what_the_files_say_beside_tensors() {
    let hf = open("mha/hf");
    assert_eq!((hf.bos_id, hf.eos_ids), (Some(1), vec![2]));
    assert!(hf.metadata.contains(&("pretraining_tp".into(), "1".into())));
    let gguf = open("mha/gguf/f32.gguf");
    assert_eq!((gguf.bos_id, gguf.eos_ids), (Some(1), vec![2]));
    assert_eq!(gguf.vocab.unwrap().tokens.len(), 272);
    assert_eq!(open("mha/meta").bos_id, Some(1));
}
