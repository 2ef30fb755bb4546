#![no_main]
#[path = "../targets/hub.rs"]
mod hub;
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hub::manifest(data);
});
