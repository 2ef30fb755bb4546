//! `puna convert` as a user runs it: what it tells, what it refuses, and that nothing is left of what fails.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use common::{puna, run};

/// Names in a folder, in alphabetical order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_built_in_model_goes_round() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (gguf, hf, back) = (path("a.gguf"), path("hf"), path("back.gguf"));
    run(&["convert", "stories260K", &gguf]).expect(0, &["wrote", "a.gguf: 1.1 MB in"]);
    run(&["convert", &gguf, &hf]).expect(0, &["wrote", "hf (1 file): 1.1 MB in"]);
    run(&["convert", &hf, &back, "--to", "GGUF"]).expect(0, &["back.gguf"]);
    let story = |model: &str| {
        let run = run(&["generate", model, "Once upon a time", "-n", "30", "--temperature", "0"]);
        run.expect(0, &[]).stdout.clone()
    };
    let told = story("stories260K");
    assert!(told.contains("little girl"), "{told}");
    for model in [&gguf, &hf, &back] {
        assert_eq!(story(model), told, "{model}");
    }
    let notice = fs::read_to_string(folder.path().join("hf").join("NOTICE")).unwrap();
    assert!(notice.contains("Karpathy") && notice.contains("MIT License"), "{notice}");
    let ids = |model: &str| {
        let run = run(&["tokenize", "--model", model, "--encode", "two  spaces "]);
        run.expect(0, &[]).stdout.clone()
    };
    assert_eq!(ids(&back), ids("stories260K"));
}

#[test]
fn sizes_cut_it_into_files() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a.gguf");
    let split = ["--split-size", "300KB", "--dtype", "f16"];
    let args = ["convert", "stories260K", out.to_str().unwrap()];
    run(&[&args[..], &split].concat()).expect(0, &["a.gguf (2 files)"]);
    assert_eq!(names(folder.path()), ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]);
    // The first part may be there though the name given is not.
    run(&[&args[..], &split].concat()).expect(1, &["a-00001-of-00002.gguf exists already"]);
}

#[test]
fn what_cannot_be_meant_exits_with_2() {
    let cases: [(&[&str], &str); 6] = [
        (&["--to", "gguf", "stories260K", "out"], "--to gguf writes a file NAME.gguf, found out"),
        (&["--to", "safetensors", "stories260K", "out.gguf"], "--to safetensors writes a folder"),
        (&["--to", "meta", "stories260K", "out"], "gguf, safetensors"),
        (&["--dtype", "q8_0", "stories260K", "out"], "f32, f16, bf16"),
        (&["--split-size", "many", "stories260K", "out"], "such as 4GB or 500MB"),
        (&["stories260K"], "<OUT>"),
    ];
    for (args, part) in cases {
        run(&[&["convert"], args].concat()).expect(2, &[part]);
    }
}

#[test]
fn what_is_there_stays_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gguf");
    fs::write(&file, "precious").unwrap();
    let args = ["convert", "stories260K", file.to_str().unwrap()];
    run(&args).expect(1, &["a.gguf exists already", "--force"]);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    run(&[&args[..], &["--force"]].concat()).expect(0, &[]);
    assert!(fs::read(&file).unwrap().starts_with(b"GGUF"));
    // A folder of other things is not replaced even then.
    let other = folder.path().join("photos");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("me.jpg"), "precious").unwrap();
    let args = ["convert", "stories260K", other.to_str().unwrap()];
    run(&args).expect(1, &["photos exists already"]);
    run(&[&args[..], &["--force"]].concat()).expect(1, &["photos", "left as it is"]);
    assert_eq!(names(&other), ["me.jpg"]);
    assert_eq!(names(folder.path()), ["a.gguf", "photos"]);
}

#[test]
fn a_forced_folder_loses_nothing_but_a_model() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let hf = path("hf");
    run(&["convert", "stories260K", &hf]).expect(0, &[]);
    let convert = |model: &str, out: &str| run(&["convert", model, out, "--force"]);
    // A dot at the end changes nothing.
    convert("stories260K", &path("hf/.")).expect(0, &[]);
    let own = names(Path::new(&hf));
    fs::write(path("hf/mynotes.txt"), "precious").unwrap();
    convert("stories260K", &hf).expect(1, &["found mynotes.txt in it", "left as it is"]);
    fs::remove_file(path("hf/mynotes.txt")).unwrap();
    fs::create_dir(path("hf/sub")).unwrap();
    convert("stories260K", &hf).expect(1, &["found sub in it"]);
    fs::remove_dir(path("hf/sub")).unwrap();
    run(&["convert", "stories260K", &path("hf/in.gguf")]).expect(0, &[]);
    convert(&path("hf/in.gguf"), &hf).expect(1, &["has", "in.gguf in it", "left as it is"]);
    fs::remove_file(path("hf/in.gguf")).unwrap();
    convert(&hf, &hf).expect(1, &["model.safetensors in it", "left as it is"]);
    assert_eq!(names(Path::new(&hf)), own);
    convert("stories260K", "..").expect(1, &["..: expected a path that ends in the name"]);
    fs::create_dir(path("a.gguf")).unwrap();
    convert("stories260K", &path("a.gguf")).expect(1, &["a.gguf is a folder"]);
    assert_eq!(names(root.path()), ["a.gguf", "hf"]);
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for out in ["file/a.gguf", "file/hf", "no/such/folder/a.gguf", "no/such/folder/hf"] {
        let path = folder.path().join(out);
        let run = run(&["convert", "stories260K", path.to_str().unwrap()]);
        let name = path.file_name().unwrap().to_str().unwrap();
        run.expect(1, &[name]);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
    assert_eq!(names(folder.path()), ["file"]);
}

/// A folder without the right to write; root may write everywhere, and skips.
#[cfg(unix)]
#[test]
fn a_read_only_folder_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(inside.join("probe"), "").is_ok() {
        return skip("this user may write into read-only folders");
    }
    for out in ["a.gguf", "hf"] {
        let path = inside.join(out);
        run(&["convert", "stories260K", path.to_str().unwrap()]).expect(1, &[out, "denied"]);
    }
    assert!(names(&inside).is_empty());
}

/// Small disks, which only root can make: on the first the tensors fit and the rest of the file does not.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_what_was_there() {
    for (size, part) in [("1m", "No space left on device"), ("512k", "are free on its disk")] {
        let folder = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), size) else {
            return skip("a small disk cannot be mounted here");
        };
        let disk = &disk.0;
        fs::write(disk.join("a.gguf"), "precious").unwrap();
        for out in ["a.gguf", "hf"] {
            let path = disk.join(out);
            let run = run(&["convert", "stories260K", path.to_str().unwrap(), "--force"]);
            run.expect(1, &[out, part]);
            assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
            assert_eq!(names(disk), ["a.gguf"]);
            assert_eq!(fs::read(disk.join("a.gguf")).unwrap(), b"precious");
        }
    }
}

/// A file system of a fixed size in memory.
#[cfg(target_os = "linux")]
struct SmallDisk(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount(place: &Path, size: &str) -> Option<Self> {
        fs::create_dir(place).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(place);
        let mounted = mount.stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(place.to_owned()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_truncated_source_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("a.gguf");
    run(&["convert", "stories260K", whole.to_str().unwrap()]).expect(0, &[]);
    let bytes = fs::read(&whole).unwrap();
    fs::write(&whole, &bytes[..bytes.len() - 1000]).unwrap();
    let out = folder.path().join("hf");
    let run = run(&["convert", whole.to_str().unwrap(), out.to_str().unwrap()]);
    run.expect(1, &["a.gguf", "truncated"]);
    assert_eq!(names(folder.path()), ["a.gguf"]);
}

/// Ctrl-C in the middle of a model that takes some seconds.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing_behind() {
    use std::process::Command;
    use std::time::{Duration, Instant};
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("r.gguf");
    let synth = ["synth", "--shape", "110m", "--type", "f32", source.to_str().unwrap()];
    run(&synth).expect(0, &[]);
    let out = folder.path().join("hf");
    let args = ["convert", source.to_str().unwrap(), out.to_str().unwrap(), "--threads", "1"];
    let mut command = puna(&args);
    command.args(["--dtype", "bf16"]).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Once something of it can be seen it is under way.
    let started = Instant::now();
    while names(folder.path()).len() == 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "it never began");
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(names(folder.path()), ["r.gguf"]);
}

/// Says on the harness's own stderr that a test tried nothing.
#[cfg(unix)]
fn skip(reason: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}
