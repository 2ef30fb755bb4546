//! Which documents are held out, and which are copies: decided by hashes, one document after the other.

use std::collections::{BTreeSet, HashSet};

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::document::Side;
use crate::manifest::Amount;
use crate::source::Document;

/// Which documents a pass takes.
pub(crate) struct Choice<'a> {
    config: &'a Config,
    side: Side,
    /// The first half of the hash of every document that was not a copy.
    seen: &'a mut HashSet<u128>,
    /// Groups that are held out.
    pub(crate) groups: BTreeSet<String>,
    /// Copies that were left out.
    pub(crate) duplicates: Amount,
}

impl<'a> Choice<'a> {
    /// Nothing is chosen yet of a source; `seen` goes from source to source.
    pub(crate) fn new(config: &'a Config, side: Side, seen: &'a mut HashSet<u128>) -> Self {
        Self { config, side, seen, groups: BTreeSet::new(), duplicates: Amount::default() }
    }

    /// Whether a document is of this side and no copy.
    pub(crate) fn takes(&mut self, document: &Document) -> bool {
        let config = self.config;
        let is_held_out = match &document.group {
            Some(group) => {
                let listed = config.held_out.groups.iter().any(|held| held.get_ref() == group);
                listed || is_chosen(config, b"group", group.as_bytes())
            }
            None => is_chosen(config, b"document", &document.hash),
        };
        if is_held_out != (self.side == Side::HeldOut) {
            return false;
        }
        if let Some(group) = document.group.as_ref().filter(|_| is_held_out)
            && !self.groups.contains(group)
        {
            self.groups.insert(group.clone());
        }
        let hash = document.hash.first_chunk().expect("a hash has 32 bytes");
        let is_new = self.seen.insert(u128::from_le_bytes(*hash));
        if !is_new {
            self.duplicates.add(document.text.len());
        }
        is_new
    }
}

/// Whether a document or group is held out: a function of the seed and of itself alone.
fn is_chosen(config: &Config, kind: &[u8], key: &[u8]) -> bool {
    let mut hasher = Sha256::new();
    hasher.update(config.seed.to_le_bytes());
    hasher.update(kind);
    hasher.update(key);
    let hash: [u8; 32] = hasher.finalize().into();
    let bits = u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
    // The 53 bits that a float holds exactly.
    ((bits >> 11) as f64) < config.held_out.fraction * (1u64 << 53) as f64
}
