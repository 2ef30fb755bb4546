//! Replays the fuzzers' seeds, among them every input that once made a parser fail.

#[path = "../../../fuzz/targets/tokenizer.rs"]
mod tokenizer;

use puna_testkit::workspace_root;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = workspace_root().join("fuzz/seeds").join(target);
    let mut n = 0;
    for entry in folder.read_dir().unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        n += 1;
    }
    assert!(n > 0, "no seeds in {}", folder.display());
}

#[test]
fn seeds_keep_their_promises() {
    replay("tokenizer_model", tokenizer::model);
    replay("tokenizer_json", tokenizer::json);
    replay("tokenizer_llama2c", tokenizer::llama2c);
    replay("tokenizer_template", tokenizer::template);
}
