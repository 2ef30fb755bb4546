#![no_main]
#[path = "../targets/data.rs"]
mod data;
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    data::records(input);
});
