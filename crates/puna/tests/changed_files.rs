//! A model's file that someone changes while the program reads from it.
#![cfg(unix)] // Windows lets nobody change a file that is mapped.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use common::{puna, run};

/// Starts an answer, lets `damage` loose on the model's file once its text has begun, and checks that the answer
/// ends with 1 and `message`, and that what it said until then is the beginning of the undamaged answer.
fn check(damage: fn(&File), message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let path = path.to_str().unwrap();
    run(&["synth", "--shape", "15m", "--type", "f32", path]).expect(0, &[]);
    let args = [
        "generate",
        "--temperature",
        "0",
        "--draft",
        "0",
        "--threads",
        "1",
        "-n",
        "200",
        path,
        "a",
    ];
    let whole = run(&args).expect(0, &[]).stdout.clone();

    let mut child = puna(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = child.stdout.take().expect("stdout is a pipe");
    let mut said = vec![0];
    stdout.read_exact(&mut said).expect("it writes");
    damage(&File::options().write(true).open(path).unwrap());
    stdout.read_to_end(&mut said).expect("it ends");
    let mut stderr = String::new();
    child.stderr.take().expect("stderr is a pipe").read_to_string(&mut stderr).expect("UTF-8");
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
    let said = String::from_utf8_lossy(&said);
    let said = said.trim_end_matches(['\n', '\u{fffd}']);
    assert!(whole.starts_with(said), "said {said:?}, expected the beginning of {whole:?}");
}

#[test]
fn a_file_that_becomes_shorter_ends_the_answer() {
    check(|file| file.set_len(100_000).unwrap(), "has become shorter");
}

#[test]
fn a_file_that_is_written_to_ends_the_answer() {
    let overwrite = |file: &File| {
        let end = file.metadata().unwrap().len();
        file.write_all_at(&[0x55; 4096], end - 4096).unwrap();
    };
    check(overwrite, "that it was written to since");
}
