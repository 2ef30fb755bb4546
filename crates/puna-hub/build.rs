//! Writes the byte arrays of the built-in model: its files where the tree has them, else nothing, so that
//! the program builds without them and says so when it is asked for the model.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let models =
        Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../models");
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("embedded.rs");
    println!("cargo::rerun-if-changed={}", models.display());
    let mut code = String::new();
    for (name, file) in [
        ("STORIES_260K", "stories260K.bin"),
        ("STORIES_260K_TOKENIZER", "stories260K.tokenizer.model"),
        ("STORIES_260K_NOTICE", "NOTICE"),
    ] {
        let path = models.join(file);
        let value = match path.canonicalize() {
            Ok(path) => {
                println!("cargo::rerun-if-changed={}", path.display());
                format!("Some(include_bytes!({path:?}))")
            }
            Err(_) => "None".to_owned(),
        };
        code.push_str(&format!("const {name}: Option<&[u8]> = {value};\n"));
    }
    fs::write(out, code).expect("OUT_DIR is writable");
}
