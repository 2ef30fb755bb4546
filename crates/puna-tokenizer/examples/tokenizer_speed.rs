//! Encodes each line of a text on one thread, decodes all, writes the ids (`u32`, little-endian) to a file, and prints
//! the seconds of every round as JSON.
//! Run by `bench/tokenizer.py`, which compares with PyPI `sentencepiece`.
//!
//! `tokenizer_speed MODEL TEXT IDS ROUNDS`
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use puna_tokenizer::Tokenizer;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, text, ids_file, rounds] = args.as_slice() else {
        return Err("usage: tokenizer_speed MODEL TEXT IDS ROUNDS".into());
    };
    let rounds: usize = rounds.parse()?;
    let start = Instant::now();
    let tokenizer = Tokenizer::from_sentencepiece(&std::fs::read(model)?)?;
    let load_secs = start.elapsed().as_secs_f64();
    let text = std::fs::read_to_string(text)?;
    let (mut secs, mut decode_secs) = (Vec::new(), Vec::new());
    let mut ids = Vec::with_capacity(text.len());
    let mut decoded = String::with_capacity(text.len());
    for _ in 0..rounds {
        ids.clear();
        let start = Instant::now();
        for line in text.split_inclusive('\n') {
            tokenizer.encode_into(line, &mut ids);
        }
        secs.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        decoded.clear();
        let mut decoder = tokenizer.decoder();
        ids.iter().for_each(|&id| decoder.push_to(id, &mut decoded));
        decode_secs.push(start.elapsed().as_secs_f64());
    }
    std::fs::write(ids_file, ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())?;
    println!(r#"{{"load_secs": {load_secs:?}, "secs": {secs:?}, "decode_secs": {decode_secs:?}}}"#);
    Ok(())
}
