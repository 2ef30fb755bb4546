//! Importance matrices in both forms, sound and not.

use puna_core::{LayerWeight, SharedBytes, WeightId};
use puna_formats::{Existing, Imatrix};

const WQ: WeightId = WeightId::Layer(0, LayerWeight::Wq);

/// An entry of the older form.
fn entry(name: &str, n_calls: i32, values: &[f32]) -> Vec<u8> {
    let mut out = (name.len() as i32).to_le_bytes().to_vec();
    out.extend(name.as_bytes());
    out.extend(n_calls.to_le_bytes());
    out.extend((values.len() as i32).to_le_bytes());
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

fn dat(entries: &[Vec<u8>]) -> Vec<u8> {
    [&(entries.len() as i32).to_le_bytes()[..], &entries.concat()].concat()
}

fn parse(bytes: Vec<u8>) -> Result<Imatrix, String> {
    Imatrix::parse("f", &SharedBytes::new(bytes)).map_err(|e| e.to_string())
}

#[test]
fn both_forms_say_the_same() {
    let bytes = dat(&[entry("blk.0.attn_q.weight", 4, &[4.0, 8.0, 0.0])]);
    let old = parse(bytes.clone()).unwrap();
    assert_eq!(old.entries[&WQ], [1.0, 2.0, 0.0]);
    assert_eq!(old.n_inputs, 4);
    let with_text = [&bytes[..], &7i32.to_le_bytes(), &3i32.to_le_bytes(), b"wik"].concat();
    let with_text = parse(with_text).unwrap();
    assert_eq!((with_text.n_chunks, &with_text.datasets[0][..]), (7, "wik"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    with_text.write(&path, Existing::Keep).unwrap();
    assert_eq!(Imatrix::open(&path).unwrap(), with_text);
    let again = with_text.write(&path, Existing::Keep).unwrap_err().to_string();
    assert!(again.contains("m.gguf"), "{again}");
}

#[test]
fn what_is_wrong_is_named() {
    let one = |name: &str, values: &[f32]| dat(&[entry(name, 1, values)]);
    let q = "blk.0.attn_q.weight";
    let cases: [(Vec<u8>, &str); 9] = [
        (vec![], "number of entries: expected 4 bytes"),
        (vec![0; 4], "number of entries: expected 1 to 65536, found 0"),
        (b"hello, world".to_vec(), "no importance matrix"),
        (one("blk.0.ffn_gate_exps.weight", &[1.0]), "expected a matrix of a Llama 2 network"),
        (one(q, &[-1.0]), "attn_q.weight: expected means of squares, found -1"),
        (one(q, &[f32::NAN]), "found NaN"),
        (dat(&[entry(q, 1, &[1.0]), entry(q, 1, &[1.0])]), "found a second one"),
        (one(q, &[1.0, 2.0])[..30].to_vec(), "before the end of the file"),
        (
            std::fs::read(puna_testkit::testdata("models/mha/gguf/f32.gguf")).unwrap(),
            "general.type",
        ),
    ];
    for (bytes, expected) in cases {
        let message = parse(bytes).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn another_models_is_refused() {
    let config = puna_testkit::tiny_config();
    let mut imatrix = Imatrix { n_inputs: 1, ..Imatrix::default() };
    for id in WeightId::all(&config).filter(|id| matches!(id, WeightId::Layer(..))) {
        if let [_, cols] = id.shape(&config)[..] {
            imatrix.entries.insert(id, vec![1.0; cols]);
        }
    }
    imatrix.check("f", &config).unwrap();
    let check = |change: &dyn Fn(&mut Imatrix), expected: &str| {
        let mut changed = imatrix.clone();
        change(&mut changed);
        let message = changed.check("f", &config).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("another model"), "{message}");
    };
    check(&|m| drop(m.entries.remove(&WQ)), "blk.0.attn_q.weight: expected 256 columns");
    check(&|m| drop(m.entries.insert(WQ, vec![1.0; 255])), "found 255");
    let beyond = WeightId::Layer(2, LayerWeight::Wo);
    check(&|m| drop(m.entries.insert(beyond, vec![1.0; 256])), "blk.2.attn_output.weight");
}
