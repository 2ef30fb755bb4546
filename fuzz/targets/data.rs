//! What the fuzz targets of `puna-data` do with an input. The crate's own tests include this file to replay the seeds.
#![allow(dead_code, reason = "each user takes one function or all")]

use puna_data::chat::{OnProblem, RequiredLabels, parse_chat, parse_preferences};
use puna_data::{Config, Manifest, ShardHeader, is_own_name};
use puna_tokenizer::chat::{Role, check_roles};

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

/// Dialogues, or else pairs of answers. What is read keeps the promises of its type; the first problem has its place.
pub(crate) fn records(data: &[u8]) -> bool {
    if let Ok((dialogues, _)) = parse_chat("chat", data, None, OnProblem::Skip) {
        for record in &dialogues {
            check_roles(&record.messages, Role::Assistant).unwrap();
            let mut answers = record.messages.iter().filter(|m| m.role == Role::Assistant);
            assert!(answers.all(|answer| !answer.content.trim().is_empty()));
        }
    }
    let required = RequiredLabels::default();
    if let Ok((pairs, _)) = parse_preferences("chat", data, None, required, OnProblem::Skip) {
        for pair in &pairs {
            check_roles(&pair.prompt, Role::User).unwrap();
            assert_ne!(pair.chosen.trim(), pair.rejected.trim());
            assert!(pair.strength.is_none_or(|strength| strength <= 3));
        }
    }
    let dialogues = parse_chat("chat", data, None, OnProblem::Refuse).map(|read| read.0.len());
    let pairs = parse_preferences("chat", data, None, required, OnProblem::Refuse);
    let (dialogues, pairs) = (dialogues, pairs.map(|read| read.0.len()));
    for error in [&dialogues, &pairs].into_iter().filter_map(|read| read.as_ref().err()) {
        assert!(error.to_string().starts_with("chat:"), "{error}");
    }
    dialogues.is_ok_and(|n| n > 0) || pairs.is_ok_and(|n| n > 0)
}
