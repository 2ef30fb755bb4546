//! What the fuzz targets of `puna-data` do with an input. The crate's own tests include this file to replay the seeds.
#![allow(dead_code, reason = "each user takes one function or all")]

use puna_data::{Config, Manifest, ShardHeader, is_own_name};

/// A shard of tokens. What its header says is what would be written.
pub(crate) fn shard(data: &[u8]) -> bool {
    let Ok(header) = ShardHeader::parse("shard", data, data.len() as u64) else { return false };
    assert!(header.first.checked_add(header.n_tokens).is_some());
    assert_eq!(data[..80], header.to_bytes());
    true
}

/// The manifest of a corpus. Its files stay in its folder, and its shards are full but for the last.
pub(crate) fn manifest(data: &[u8]) -> bool {
    let Ok(manifest) = Manifest::parse("manifest", data) else { return false };
    assert!(is_own_name(&manifest.tokenizer.file));
    for split in manifest.sources.iter().flat_map(|source| [&source.train, &source.held_out]) {
        assert!(split.shards.iter().all(|shard| is_own_name(&shard.file)));
        assert_eq!(split.shards.iter().map(|shard| shard.tokens).sum::<u64>(), split.tokens);
    }
    true
}

/// The configuration of a corpus. What is wrong with one has a place in it.
pub(crate) fn config(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match Config::parse("config", text) {
        Ok(config) => !config.sources.is_empty(),
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("config:"), "{message}");
            false
        }
    }
}
