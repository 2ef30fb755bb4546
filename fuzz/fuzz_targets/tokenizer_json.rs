#![no_main]
#[path = "../targets/tokenizer.rs"]
mod tokenizer;
libfuzzer_sys::fuzz_target!(|data: &[u8]| tokenizer::json(data));
