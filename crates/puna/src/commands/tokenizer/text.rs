//! Text files, plain or compressed, in blocks of whole lines.

use std::cell::Cell;
use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use indicatif::ProgressBar;

/// Bytes read at a time. A line that is longer is cut, so that a file without line ends is not held whole.
const BLOCK_BYTES: usize = 4 << 20;

/// `--invalid-utf8`.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum InvalidUtf8 {
    Fail,
    Replace,
}

/// The text of files, one after the other. A file's end ends a line.
pub(super) struct Blocks<'a> {
    files: slice::Iter<'a, PathBuf>,
    invalid: InvalidUtf8,
    n_invalid: &'a Cell<u64>,
    /// Bytes read from the disk.
    n_read: Arc<AtomicU64>,
    bar: ProgressBar,
    current: Option<Source<'a>>,
}

/// A file being read.
struct Source<'a> {
    path: &'a Path,
    input: Box<dyn BufRead + Send>,
    /// Read, but not handed out: the beginning of a line.
    rest: Vec<u8>,
    /// Bytes of text before `rest`.
    offset: u64,
}

impl<'a> Blocks<'a> {
    /// Moves `bar` and counts into `n_invalid` what was replaced.
    ///
    /// # Errors
    /// A file that is not there.
    pub(super) fn new(
        files: &'a [PathBuf],
        invalid: InvalidUtf8,
        bar: &ProgressBar,
        n_invalid: &'a Cell<u64>,
    ) -> anyhow::Result<Self> {
        for path in files {
            let found = fs::metadata(path).with_context(|| path.display().to_string())?;
            bar.inc_length(found.len());
        }
        let (bar, n_read) = (bar.clone(), Arc::default());
        Ok(Self { files: files.iter(), invalid, n_invalid, n_read, bar, current: None })
    }

    fn next_block(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            let Some(source) = &mut self.current else {
                let Some(path) = self.files.next() else { return Ok(None) };
                let input = puna_data::unpacked(path, &self.n_read)?;
                self.current = Some(Source { path, input, rest: Vec::new(), offset: 0 });
                continue;
            };
            self.bar.set_position(self.n_read.load(Ordering::Relaxed));
            let offset = source.offset;
            match source.next_block().with_context(|| source.path.display().to_string())? {
                Some(block) => return self.text(block, offset).map(Some),
                None if offset == 0 => {
                    bail!("{}: expected texts, found none", source.path.display())
                }
                None => self.current = None,
            }
        }
    }

    fn text(&self, block: Vec<u8>, offset: u64) -> anyhow::Result<String> {
        let (valid, bytes) = match String::from_utf8(block) {
            Ok(text) => return Ok(text),
            Err(error) => (error.utf8_error().valid_up_to(), error.into_bytes()),
        };
        if self.invalid == InvalidUtf8::Fail {
            let path = self.current.as_ref().map_or(Path::new(""), |source| source.path);
            let at = offset + valid as u64;
            return Err(anyhow!(
                "{}: at byte {at} of the text: expected UTF-8, found 0x{:02X}; --invalid-utf8 replace reads on",
                path.display(),
                bytes[valid]
            ));
        }
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                self.n_invalid.set(self.n_invalid.get() + 1);
            }
        }
        Ok(text)
    }
}

impl Iterator for Blocks<'_> {
    type Item = anyhow::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_block().transpose()
    }
}

impl Source<'_> {
    /// Some more lines; `None` at the end.
    fn next_block(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let before = self.rest.len();
            (&mut self.input).take(BLOCK_BYTES as u64).read_to_end(&mut self.rest)?;
            let new = &self.rest[before..];
            let (len, next) = if new.is_empty() {
                if self.rest.is_empty() {
                    return Ok(None);
                }
                (before, before)
            } else if let Some(line_end) = new.iter().rposition(|&byte| byte == b'\n') {
                (before + line_end + 1, before + line_end + 1)
            } else if self.rest.len() >= BLOCK_BYTES {
                cut(&self.rest)
            } else {
                continue;
            };
            let rest = self.rest.split_off(next);
            let mut block = std::mem::replace(&mut self.rest, rest);
            block.truncate(len);
            self.offset += next as u64;
            return Ok(Some(block));
        }
    }
}

/// Where to cut a long line in two, (end of the first, start of the second): at its last single space, which begins a
/// word as a line does, or else between characters.
fn cut(line: &[u8]) -> (usize, usize) {
    let single = line.windows(3).rposition(|w| w[1] == b' ' && w[0] != b' ' && w[2] != b' ');
    if let Some(before) = single {
        return (before + 1, before + 2);
    }
    let first_of_char = line.iter().rposition(|byte| byte & 0xC0 != 0x80);
    let at = first_of_char.filter(|&at| at > 0).unwrap_or(line.len());
    (at, at)
}
