//! Files of `torch.save` from the shared data: what is read, and how what is not is refused.

use std::path::{Path, PathBuf};

use puna_core::SharedBytes;
use puna_testkit::shared_data;

fn check(path: &Path) -> Result<(), String> {
    let bytes = SharedBytes::new(std::fs::read(path).unwrap());
    let name = path.file_name().unwrap().to_str().unwrap();
    puna_formats::torch::check(name, &bytes).map_err(|e| e.to_string())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "pt" || e == "pth"));
    files.sort();
    files
}

#[test]
fn samples_of_other_projects() {
    let Some(data) = shared_data() else { return };
    let mut paths = files(&data.join("formats/burn_pt"));
    paths.extend(files(&data.join("formats/candle")));
    for path in &paths {
        println!("{:?}", check(path).map_err(|e| e).err().unwrap_or(path.file_name().unwrap().to_str().unwrap().to_owned() + " ok"));
    }
}
