//! Files of `torch.save` from the shared data: what is read, and how what is not is refused.

use std::path::{Path, PathBuf};

use puna_core::SharedBytes;
use puna_testkit::shared_data;

/// Samples that are refused, and why. All others are read.
const REFUSED: [(&str, &str); 8] = [
    ("broken.pt", "beginning: expected a file of torch.save, found abc"),
    ("checkpoint.pt", "entry model_state_dict: expected a tensor, found a dictionary"),
    ("complex_structure.pt", "entry metadata: expected a tensor, found a dictionary"),
    ("nested_dict.pt", "entry layer1: expected a tensor, found a dictionary"),
    ("top_level_key.pt", "entry my_state_dict: expected a tensor, found a dictionary"),
    ("weights_with_config.pt", "entry my_model: expected a tensor, found a dictionary"),
    ("test_with_key.pt", "entry model_state_dict: expected a tensor, found a dictionary"),
    ("fortran_tensor_3d.pth", "row-major order, found shape [2, 3, 4] with strides [1, 2, 6]"),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "pt" || e == "pth")).collect()
}

#[test]
fn samples_of_other_projects() {
    let Some(data) = shared_data() else { return };
    let mut paths = files(&data.join("formats/burn_pt"));
    paths.extend(files(&data.join("formats/candle")));
    assert!(paths.len() > 50);
    for path in &paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let bytes = SharedBytes::new(std::fs::read(path).unwrap());
        let result = puna_formats::torch::check(name, &bytes).map_err(|e| e.to_string());
        match REFUSED.iter().find(|(refused, _)| *refused == name) {
            Some((_, reason)) => {
                let message = result.expect_err(name);
                assert!(message.contains(reason), "{message}");
            }
            None => assert_eq!(result, Ok(()), "{name}"),
        }
    }
}

/// Builds a pickle from parts of bytes and expects a message.
#[track_caller]
fn check(expected: &str, parts: &[&[u8]]) {
    let message = puna_formats::torch::check_pickle("p", &parts.concat()).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

const BEGIN: &[u8] = b"\x80\x02";
const OS_SYSTEM: &[u8] = b"cos\nsystem\n";
const REBUILD: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n";

#[test]
fn a_function_that_is_not_known_is_named() {
    check("os.system is not supported", &[BEGIN, OS_SYSTEM, b"X\x02\0\0\0ls\x85R."]);
    check("builtins.eval is not supported", &[BEGIN, b"\x8c\x08builtins\x8c\x04eval\x93."]);
    check("torch.QInt8Storage is not supported", &[BEGIN, b"ctorch\nQInt8Storage\n."]);
    check("posix.\\u{1b}[2J is not supported", &[BEGIN, b"cposix\n\x1b[2J\n."]);
}

#[test]
fn instructions_that_run_code_are_refused() {
    // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, PERSID.
    for opcode in [b'i', b'o', 0x81, 0x92, 0x82, b'P'] {
        check(&format!("instruction 0x{opcode:02x} is not supported"), &[BEGIN, &[opcode]]);
    }
}

#[test]
fn a_protocol_from_the_future() {
    check("pickle protocol: 6 is not supported", &[b"\x80\x06}."]);
}

#[test]
fn a_stack_without_what_is_asked_for() {
    check("expected a value on the stack, found none", &[BEGIN, b"."]);
    check("expected a value on the stack, found none", &[BEGIN, b"N(0"]);
    check("expected a mark on the stack, found none", &[BEGIN, b"t"]);
    check("expected memo slot 7, found nothing", &[BEGIN, b"h\x07"]);
    check("expected a list to append to, found None", &[BEGIN, b"NNa"]);
    check("expected a dictionary to add pairs to, found a dictionary", &[BEGIN, b"}(Nu"]);
}

#[test]
fn values_that_are_no_state_dictionary() {
    check("content: expected a dictionary of tensors, found a list", &[BEGIN, b"]."]);
    check("name of a tensor: expected a string, found an integer", &[BEGIN, b"}K\x01Ns."]);
    check("entry a: expected a tensor, found a float", &[BEGIN, b"}\x8c\x01aG\0\0\0\0\0\0\0\0s."]);
    let long = [b"}X\0\x10\0\0".as_slice(), &[b'x'; 4096], b"Ns."].concat();
    check("name of a tensor: expected at most 1024 bytes", &[BEGIN, &long]);
}

#[test]
fn calls_with_other_arguments() {
    check("expected a tensor or a dictionary to be built", &[BEGIN, REBUILD, b")R."]);
    check("expected a storage, an offset", &[BEGIN, REBUILD, b"(K\0K\0))tR."]);
    check("expected a tuple of at most 16", &[BEGIN, REBUILD, b"(", &[b'N'; 17], b"tR."]);
    check("expected a dictionary to give attributes to", &[BEGIN, b"N}b."]);
    check("expected ('storage', type, key", &[BEGIN, b"NN\x86Q."]);
}

#[test]
fn a_pickle_that_never_ends() {
    check("pickle: expected 1 bytes at offset 3", &[BEGIN, b"N"]);
    check("string: expected 4294967295 bytes", &[BEGIN, b"X\xff\xff\xff\xff"]);
    check("at most 1048576 objects", &[BEGIN, &vec![b'N'; 1 << 21]]);
    check("expected a line, found no end of line", &[BEGIN, b"ctorch"]);
}

#[test]
fn cycles_and_deep_nests_are_only_values() {
    check("expected a dictionary of tensors, found a list", &[BEGIN, b"]q\0h\0ah\0."]);
    check(
        "expected a dictionary of tensors, found a tuple",
        &[BEGIN, b"N", &vec![b'\x85'; 1 << 19], b"."],
    );
}
