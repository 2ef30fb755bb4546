//! Replays the fuzzers' seeds, among them every input that once made a parser fail.

#[path = "../../../fuzz/targets/data.rs"]
mod data;

use puna_testkit::workspace_root;

/// Runs every seed; those whose names begin with `sound` must be read, the others refused.
fn replay(target: &str, run: impl Fn(&[u8]) -> bool) {
    let folder = workspace_root().join("fuzz/seeds").join(target);
    let mut n = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let is_sound = path.file_name().unwrap().to_string_lossy().starts_with("sound");
        assert_eq!(run(&std::fs::read(&path).unwrap()), is_sound, "{}", path.display());
        n += 1;
    }
    assert!(n > 0, "no seeds in {}", folder.display());
}

#[test]
fn seeds_keep_their_promises() {
    replay("data_shard", data::shard);
    replay("data_manifest", data::manifest);
    replay("data_config", data::config);
    replay("data_records", data::records);
}
