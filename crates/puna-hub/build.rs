//! Writes the byte arrays of the built-in models: their files where the tree has them, else nothing, so that the program
//! builds without them and says so when it is asked for them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let models =
        Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../models");
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo")).join("embedded.rs");
    println!("cargo::rerun-if-changed={}", models.display());
    let mut code = String::new();
    for (name, files) in [
        ("STORIES_7M", weights_in(&models, "stories7m")),
        ("STORIES_7M_CHAT", weights_in(&models, "stories7m-chat")),
        ("STORIES_260K", vec!["stories260K.bin".to_owned()]),
        ("STORIES_260K_TOKENIZER", vec!["stories260K.tokenizer.model".to_owned()]),
        ("STORIES_260K_NOTICE", vec!["NOTICE".to_owned()]),
    ] {
        write!(code, "const {name}: &[Embedded] = &[").expect("into memory");
        for file in files {
            // A file that is not there is left out.
            let Ok(path) = models.join(&file).canonicalize() else { continue };
            println!("cargo::rerun-if-changed={}", path.display());
            write!(code, "({file:?}, include_bytes!({path:?})),").expect("into memory");
        }
        code.push_str("];\n");
    }
    fs::write(out, code).expect("OUT_DIR is writable");
}

/// The GGUF files of a folder of `models`, in the order of their names, which is that of the parts of a split model.
fn weights_in(models: &Path, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(models.join(folder)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut files: Vec<String> = names
        .filter(|name| name.ends_with(".gguf"))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    files.sort();
    files
}
