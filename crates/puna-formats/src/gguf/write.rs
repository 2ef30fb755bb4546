//! The writer: metadata and tensor descriptions first, then the data, streamed tensor by tensor, in one file or
//! split into parts as llama.cpp splits.

use std::path::{Path, PathBuf};

use puna_core::TensorInfo;

use super::header::{Header, check};
use super::open::open_draft;
use super::split::{MAX_PARTS, part_lens, part_paths};
use super::value::Value;
use crate::atomic::{AtomicFile, Existing, commit_together};
use crate::{Checkpoint, FormatError};

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// What to do with files that have the names already.
    pub existing: Existing,
    /// Most bytes of tensors in one file. More than that is split: `NAME.gguf` becomes
    /// `NAME-00001-of-00003.gguf` and so on, where all metadata are in the first part.
    pub max_file_bytes: u64,
}

impl Default for WriteOptions {
    /// Replaces, and does not split.
    fn default() -> Self {
        Self { existing: Existing::Replace, max_file_bytes: u64::MAX }
    }
}

/// Writes a model as GGUF of version 3. The files appear under their names only when [`Writer::finish`] or
/// [`Draft::commit`] returns; a writer that is dropped before leaves nothing behind. Memory stays at what the
/// caller hands over at a time.
pub struct Writer {
    path: String,
    /// All parts, in order.
    parts: Vec<Part>,
    alignment: usize,
    /// Tensors still to come, in reverse, with the part they belong to.
    pending: Vec<Pending>,
    /// The part being written.
    current: usize,
}

struct Part {
    out: AtomicFile,
    header: Header,
}

struct Pending {
    name: String,
    size: usize,
    written: usize,
    part: usize,
}

impl Writer {
    /// Begins a file with all that is known before the data: metadata, and the tensors in the order in which
    /// they will be written. Shapes are outermost dimension first. An entry `general.alignment` is honoured.
    ///
    /// # Errors
    /// The file cannot be created, or what was given makes no GGUF: a limit of this module exceeded, two
    /// entries or tensors of one name, rows that are no whole blocks.
    pub fn create(
        path: &Path,
        metadata: &[(String, Value)],
        tensors: &[(String, TensorInfo)],
    ) -> Result<Self, FormatError> {
        Self::with_options(path, metadata, tensors, &WriteOptions::default())
    }

    /// As [`Writer::create`], with options.
    ///
    /// # Errors
    /// As [`Writer::create`]; a file of the name is there and to be kept.
    pub fn with_options(
        path: &Path,
        metadata: &[(String, Value)],
        tensors: &[(String, TensorInfo)],
        options: &WriteOptions,
    ) -> Result<Self, FormatError> {
        let file = path.display().to_string();
        let sizes = check(&file, metadata, tensors)?;
        let lens = part_lens(sizes.iter().map(|&size| size as u64), options.max_file_bytes);
        let paths = paths(path, lens.len())?;
        let mut parts = Vec::with_capacity(lens.len());
        let mut rest = tensors;
        for (idx, (path, len)) in paths.iter().zip(&lens).enumerate() {
            let (mine, others) = rest.split_at(*len);
            rest = others;
            let metadata = part_metadata(metadata, idx, lens.len(), tensors.len());
            let header = Header::new(&file, metadata, mine.to_vec())?;
            let mut out = AtomicFile::create(path, options.existing)?;
            out.write(&header.encode())?;
            parts.push(Part { out, header });
        }
        let part_of = lens.iter().enumerate().flat_map(|(part, &len)| (0..len).map(move |_| part));
        let pending = tensors.iter().zip(sizes).zip(part_of);
        let mut pending: Vec<_> = pending
            .map(|(((name, _), size), part)| Pending { name: name.clone(), size, written: 0, part })
            .collect();
        pending.reverse();
        let alignment = parts[0].header.alignment;
        Ok(Self { path: file, parts, alignment, pending, current: 0 })
    }

    /// Writes the next tensor.
    ///
    /// # Errors
    /// Another tensor's turn has come, the data are of another size than announced, or the disk is full.
    pub fn write(&mut self, name: &str, data: &[u8]) -> Result<(), FormatError> {
        let size = self.pending.last().map(|next| next.size);
        if let Some(size) = size.filter(|&size| size != data.len()) {
            let (expected, found) = (format!("{size} bytes, as announced"), data.len());
            return Err(FormatError::tensor(&self.path, name, expected, found));
        }
        self.write_part(name, data)
    }

    /// Writes the next bytes of the tensor whose turn it is.
    ///
    /// # Errors
    /// Another tensor's turn has come, there are more bytes than announced, or the disk is full.
    pub fn write_part(&mut self, name: &str, data: &[u8]) -> Result<(), FormatError> {
        let Some(next) = self.pending.last_mut() else {
            return Err(FormatError::tensor(&self.path, name, "no more tensors", "this one"));
        };
        if next.name != name {
            let expected = format!("the turn of {}", next.name);
            return Err(FormatError::tensor(&self.path, name, expected, "this one"));
        }
        let written = next.written + data.len();
        if written > next.size {
            let expected = format!("{} bytes, as announced", next.size);
            return Err(FormatError::tensor(&self.path, name, expected, written));
        }
        next.written = written;
        let (size, part) = (next.size, next.part);
        if part != self.current {
            self.parts[self.current].out.flush()?;
            self.current = part;
        }
        let out = &mut self.parts[part].out;
        out.write(data)?;
        if written == size {
            self.pending.pop();
            out.write(&vec![0; size.next_multiple_of(self.alignment) - size])?;
        }
        Ok(())
    }

    /// Completes the model and puts it in its place.
    ///
    /// # Errors
    /// Tensors are missing, or the files cannot be completed.
    pub fn finish(self) -> Result<(), FormatError> {
        self.draft()?.commit()
    }

    /// Completes the model under its temporary names, for a last look and last figures.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn draft(mut self) -> Result<Draft, FormatError> {
        if let Some(next) = self.pending.last() {
            let expected = format!("its data of {} bytes", next.size);
            let found = format!("{} and the end of the model", next.written);
            return Err(FormatError::tensor(&self.path, &next.name, expected, found));
        }
        self.parts[self.current].out.flush()?;
        Ok(Draft { path: self.path, parts: self.parts })
    }
}

/// A model that is complete but not yet in its place. Dropped, it leaves nothing behind.
pub struct Draft {
    path: String,
    parts: Vec<Part>,
}

impl Draft {
    /// Opens the model where it is now. The checkpoint must be gone before the draft is changed or committed.
    ///
    /// # Errors
    /// As [`open`](crate::open): what was written is no Llama 2 model.
    pub fn open(&self) -> Result<Checkpoint, FormatError> {
        let outs = self.parts.iter().map(|part| &part.out);
        open_draft(&outs.map(|out| (out.temporary(), out.target())).collect::<Vec<_>>())
    }

    /// The files' names to be.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.parts.iter().map(|part| part.out.target().to_owned()).collect()
    }

    /// Replaces the values of metadata entries that are there, each by one of the same type and size: the
    /// header keeps its length, and no tensor moves.
    ///
    /// # Errors
    /// No such entry, a value of another type or size, or the file cannot be written.
    pub fn set_metadata(&mut self, entries: &[(String, Value)]) -> Result<(), FormatError> {
        let Part { out, header } = &mut self.parts[0];
        let mut changed = header.clone();
        for (key, value) in entries {
            let entry = changed.metadata.iter_mut().find(|(k, _)| k == key);
            let expected = "an entry to be replaced by one of its type and size";
            let fault = |found: String| FormatError::malformed(&self.path, key, expected, found);
            let (_, old) = entry.ok_or_else(|| fault("none".to_owned()))?;
            let (old_kind, kind) = (old.kind(), value.kind());
            let (old_size, size) = (old.n_bytes(), value.n_bytes());
            if (old_kind, old_size) != (kind, size) {
                let found = format!("{kind:?} of {size} bytes for {old_kind:?} of {old_size}");
                return Err(fault(found));
            }
            *old = value.clone();
        }
        out.rewrite_start(&changed.encode())?;
        out.flush()?;
        *header = changed;
        Ok(())
    }

    /// Puts the model in its place; of a split one the first part comes last, so that nobody opens half of it. Should
    /// that fail, what was there is there again.
    ///
    /// # Errors
    /// A file cannot be completed, or something has appeared in its place meanwhile.
    pub fn commit(self) -> Result<(), FormatError> {
        commit_together(self.parts.into_iter().map(|part| part.out).collect())
    }
}

/// The names of the parts of a model that is called `path`.
fn paths(path: &Path, n_parts: usize) -> Result<Vec<PathBuf>, FormatError> {
    if n_parts == 1 {
        return Ok(vec![path.to_owned()]);
    }
    if n_parts > MAX_PARTS {
        let expected = format!("at most {MAX_PARTS}");
        return Err(FormatError::malformed(path.display(), "number of parts", expected, n_parts));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    let stem = name.and_then(|name| name.strip_suffix(".gguf")).ok_or_else(|| {
        let found = path.file_name().unwrap_or_default().display();
        FormatError::malformed(path.display(), "name of a split model", "NAME.gguf", found)
    })?;
    Ok(part_paths(path, stem, n_parts))
}

/// The metadata of one part: everything in the first, and in each the keys that hold a split model together.
fn part_metadata(
    metadata: &[(String, Value)],
    idx: usize,
    n_parts: usize,
    n_tensors: usize,
) -> Vec<(String, Value)> {
    let mut own = if idx == 0 { metadata.to_vec() } else { Vec::new() };
    if n_parts > 1 {
        own.retain(|(key, _)| !key.starts_with("split."));
        let number = |n: usize| n as u16;
        own.push(("split.no".to_owned(), Value::U16(number(idx))));
        own.push(("split.count".to_owned(), Value::U16(number(n_parts))));
        own.push(("split.tensors.count".to_owned(), Value::I32(n_tensors as i32)));
        if let Some(alignment) = metadata.iter().find(|(key, _)| key == "general.alignment")
            && idx > 0
        {
            own.push(alignment.clone());
        }
    }
    own
}
