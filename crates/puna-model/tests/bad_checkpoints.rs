//! Checkpoints that make no network are refused with the tensor's name.

use puna_core::{DType, LayerWeight, SharedBytes, Tensor, TensorInfo, WeightId};
use puna_model::Model;
use puna_testkit::{TinySource, tiny_config};

fn check(id: WeightId, tensor: Option<Tensor>, expected: &str) {
    let mut source = TinySource::new(tiny_config(), DType::F32, 1);
    source.set(id, tensor);
    let error = Model::load(&source, 16).err().expect("refused").to_string();
    assert_eq!(error, expected);
}

fn tensor(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Option<Tensor> {
    let info = TensorInfo { dtype, shape: shape.to_vec() };
    Some(Tensor { info, data: SharedBytes::new(bytes) })
}

#[test]
fn each_fault_has_its_message() {
    let wq = WeightId::Layer(1, LayerWeight::Wq);
    check(wq, None, "layers.1.wq: missing from the checkpoint");
    check(
        wq,
        tensor(DType::F32, &[256, 255], vec![0; 4 * 256 * 255]),
        "layers.1.wq: expected shape [256, 256], found [256, 255]",
    );
    check(
        wq,
        tensor(DType::Q8_0, &[256, 256], vec![0; 34]),
        "layers.1.wq: q8_0 with shape [256, 256] takes 69632 bytes, found 34",
    );
    let mut norm = vec![0; 4 * 256];
    norm[12..16].copy_from_slice(&f32::NAN.to_le_bytes());
    check(
        WeightId::Norm,
        tensor(DType::F32, &[256], norm),
        "norm: element 3 is NaN, expected a finite number",
    );
}
