//! Memory does not grow with the texts. A test program of its own, for memory is counted for the whole process.
#![cfg(target_os = "linux")]

mod common;

use std::fmt::Write as _;

use common::{Desk, as_text, config, stories};

/// The most memory that this process ever had, in kilobytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_texts() {
    let desk = Desk::new();
    let build = |name: &str, n_megabytes: u64| {
        let mut file = std::fs::File::create(desk.path(name)).unwrap();
        let mut n_bytes = 0;
        for seed in 0.. {
            let mut part = as_text(&stories(500, seed));
            write!(part, "\n<|end|>\n").unwrap();
            std::io::Write::write_all(&mut file, part.as_bytes()).unwrap();
            n_bytes += part.len() as u64;
            if n_bytes >> 20 >= n_megabytes {
                break;
            }
        }
        let top = "shard_tokens = 65536\n[held_out]\nfraction = 0.01\n[filter]\nmin_chars = 10";
        let manifest = desk.build(&format!("out-{name}"), &config(top, name, "")).unwrap();
        assert!(manifest.sources[0].train.bytes >> 20 >= n_megabytes * 9 / 10);
        peak()
    };
    let (little, much) = (build("little.txt", 8), build("much.txt", 40));
    // How many batches wait for each other is a matter of luck: some megabytes. Texts that were kept would be 32 more.
    assert!(much < little + 16_000, "{little} kB for 8 MB of text, {much} kB for 40 MB");
}
