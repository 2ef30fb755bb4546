//! The documents of a source, file after file, each with its group.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::vec::IntoIter;

use sha2::{Digest, Sha256};

use crate::DataError;
use crate::config::{Config, Source, resolve};
use crate::groups::Groups;
use crate::manifest::Amount;
use crate::read::Documents;
use crate::words::trimmed;

/// A document that is not empty.
pub(crate) struct Document {
    /// Without the blank lines around it.
    pub(crate) text: String,
    pub(crate) group: Option<String>,
    /// SHA-256 of the text.
    pub(crate) hash: [u8; 32],
}

/// Reads a source.
pub(crate) struct SourceReader<'a> {
    config: &'a Config,
    source: &'a Source,
    paths: IntoIter<PathBuf>,
    current: Option<Documents>,
    groups: Option<Groups>,
    progress: &'a Arc<AtomicU64>,
    scratch: PathBuf,
    /// What was read so far.
    pub(crate) n_read: Amount,
    pub(crate) n_replaced: u64,
}

impl<'a> SourceReader<'a> {
    /// `texts`: where relative paths begin; `scratch`: a file that may be made and need not exist.
    pub(crate) fn open(
        config: &'a Config,
        source: &'a Source,
        texts: &Path,
        progress: &'a Arc<AtomicU64>,
        scratch: PathBuf,
    ) -> Result<Self, DataError> {
        let paths: Vec<PathBuf> =
            source.paths.get_ref().iter().map(|path| resolve(texts, path)).collect();
        let groups = source.groups.as_ref().map(|groups| {
            let groups = groups.get_ref();
            Groups::open(groups, &resolve(texts, &groups.list))
        });
        Ok(Self {
            config,
            source,
            paths: paths.into_iter(),
            current: None,
            groups: groups.transpose()?,
            progress,
            scratch,
            n_read: Amount::default(),
            n_replaced: 0,
        })
    }

    /// The next document that is not empty.
    pub(crate) fn next(&mut self) -> Result<Option<Document>, DataError> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(path) = self.paths.next() else {
                    return self.groups.take().map_or(Ok(()), Groups::finish).map(|()| None);
                };
                let invalid = self.config.invalid_utf8;
                let (progress, scratch) = (self.progress, &self.scratch);
                self.current =
                    Some(Documents::open(&path, self.source, invalid, progress, scratch)?);
                continue;
            };
            let Some(mut raw) = current.next()? else {
                self.current = None;
                continue;
            };
            self.n_replaced += raw.n_replaced;
            let text = trimmed(&raw.text);
            if text.is_empty() {
                continue;
            }
            if text.len() < raw.text.len() {
                raw.text = text.to_owned();
            }
            self.n_read.add(raw.text.len());
            let group = match &mut self.groups {
                Some(groups) => Some(groups.next()?),
                None => raw.group,
            };
            let hash = Sha256::digest(raw.text.as_bytes()).into();
            return Ok(Some(Document { text: raw.text, group, hash }));
        }
    }
}
