//! Builds a corpus. Texts are read twice: first for what is held out, then for what is trained on, which is compared
//! with it. Nothing of a text is kept but the documents at hand and tables of hashes: 16 bytes of each document's, 8 bytes
//! for each run of words of held-out text, and where near copies are dropped 8 bytes for one of 128 words for training; a
//! table takes up to twice what is in it.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::Digest;

use crate::DataError;
use crate::choice::Choice;
use crate::config::{Config, Source, resolve};
use crate::copies::Earlier;
use crate::document::{Batch, Process, Processed, Side};
use crate::filter::Filters;
use crate::manifest::{Amount, CONFIG, MANIFEST, Manifest, Named, Sha256, SourceRecord, Split};
use crate::near::Known;
use crate::ordered::in_order;
use crate::read::check_file;
use crate::shard::{ShardWriter, write_file};
use crate::source::SourceReader;
use crate::vocabulary::TokenizerFile;

/// Bytes of text that are handed to a thread at once, give or take a document.
const BATCH_BYTES: usize = 1 << 19;

/// How often every byte is read: for its file's hash, for what is held out, for training.
const N_READS: u64 = 3;

/// What to build, and with what.
#[derive(Debug)]
pub struct Job<'a> {
    /// What to build.
    pub config: &'a Config,
    /// Where relative paths of texts and of their lists of groups begin. Lists of words are parts of the configuration:
    /// they begin in its folder.
    pub texts: &'a Path,
    /// `tokenizer.model` or `tokenizer.json`.
    pub tokenizer: &'a Path,
    /// Threads to filter and encode with; the result does not depend on it.
    pub n_threads: usize,
}

/// Told bytes read and bytes to read; an answer of `false` stops the work.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Builds a corpus in `folder`, which is there and empty. The manifest is written last.
///
/// # Errors
/// A text, list or tokenizer that cannot be read or is not what it should be; a source of which nothing is left to train
/// on; [`DataError::Stopped`]. What was written by then is left to the caller, who has named the folder for the time.
pub fn build(job: &Job<'_>, folder: &Path, on: Progress<'_>) -> Result<Manifest, DataError> {
    let tokenizer = TokenizerFile::open(job.tokenizer)?;
    let config = job.config;
    let mut filters = Vec::new();
    let mut n_bytes = 0;
    for source in &config.sources {
        let filter = source.filter.as_ref().unwrap_or(&config.filter);
        filters.push(Filters::open(filter, config.folder())?);
        for path in source.paths.get_ref() {
            n_bytes += check_file(&resolve(job.texts, path))?;
        }
    }
    let progress = Arc::new(AtomicU64::new(0));
    let mut builder = Builder {
        job,
        folder,
        tokenizer: &tokenizer,
        seen: HashSet::new(),
        known: Known::default(),
        earlier: Earlier::default(),
        on: Watch { on, progress: Arc::clone(&progress), total: n_bytes * N_READS },
        progress,
    };
    let mut sources = Vec::new();
    for source in &config.sources {
        sources.push(builder.begin(source)?);
    }
    for side in [Side::HeldOut, Side::Train] {
        for ((source, filters), record) in config.sources.iter().zip(&filters).zip(&mut sources) {
            builder.pass(side, source, filters, record)?;
        }
        if side == Side::HeldOut {
            check_groups(config, &sources)?;
        }
    }
    tokenizer.write(folder)?;
    write_file(&folder.join(CONFIG), config.text().as_bytes())?;
    let manifest = Manifest {
        version: Manifest::VERSION,
        config: Named { file: CONFIG.to_owned(), sha256: Sha256::of(config.text().as_bytes()) },
        tokenizer: tokenizer.record,
        seed: config.seed,
        shard_tokens: config.shard_tokens,
        held_out_fraction: config.held_out.fraction,
        near_duplicates: config.held_out.near_duplicates,
        near_copies: config.near_copies,
        sources,
    };
    let mut json = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
    json.push(b'\n');
    write_file(&folder.join(MANIFEST), &json)?;
    Ok(manifest)
}

/// Every group that the configuration holds out must be one.
fn check_groups(config: &Config, sources: &[SourceRecord]) -> Result<(), DataError> {
    for group in &config.held_out.groups {
        if !sources.iter().any(|source| source.held_out_groups.contains(group.get_ref())) {
            let message = format!(
                "expected the name of a group, found {:?}, of which no document is",
                group.get_ref()
            );
            return Err(config.fail(group.span(), &message));
        }
    }
    Ok(())
}

/// What goes from source to source.
struct Builder<'a, 'b> {
    job: &'a Job<'a>,
    folder: &'a Path,
    tokenizer: &'a TokenizerFile,
    /// See [`Choice`].
    seen: HashSet<u128>,
    known: Known,
    earlier: Earlier,
    on: Watch<'b>,
    progress: Arc<AtomicU64>,
}

struct Watch<'a> {
    on: Progress<'a>,
    progress: Arc<AtomicU64>,
    total: u64,
}

impl Watch<'_> {
    fn tell(&mut self) -> Result<(), DataError> {
        let done = self.progress.load(Ordering::Relaxed).min(self.total);
        if (self.on)(done, self.total) { Ok(()) } else { Err(DataError::Stopped) }
    }
}

impl Builder<'_, '_> {
    /// Hashes the files of a source.
    fn begin(&mut self, source: &Source) -> Result<SourceRecord, DataError> {
        let config = self.job.config;
        let texts = self.job.texts;
        let mut named = |root: &Path, path: &Path| {
            let sha256 = self.hash(&resolve(root, path))?;
            // With the same separators on every system.
            Ok::<_, DataError>(Named {
                file: path.display().to_string().replace('\\', "/"),
                sha256,
            })
        };
        let files = source.paths.get_ref().iter().map(|path| named(texts, path));
        let files = files.collect::<Result<_, _>>()?;
        let filter = source.filter.as_ref().unwrap_or(&config.filter);
        let words = filter.words.as_ref().map(|words| (config.folder(), &words.list));
        let groups = source.groups.as_ref().map(|groups| (texts, &groups.get_ref().list));
        let lists = words.into_iter().chain(groups).map(|(root, path)| named(root, path));
        let lists = lists.collect::<Result<_, _>>()?;
        Ok(SourceRecord {
            name: source.name.get_ref().clone(),
            origin: source.origin.clone(),
            licence: source.licence.clone(),
            weight: source.weight,
            files,
            lists,
            read: Amount::default(),
            utf8_replaced: 0,
            removed: Default::default(),
            counted_words: 0,
            train: Split::default(),
            held_out: Split::default(),
            held_out_groups: Vec::new(),
        })
    }

    fn hash(&mut self, path: &Path) -> Result<Sha256, DataError> {
        let mut file = File::open(path).map_err(DataError::io(path))?;
        let (mut hasher, mut buffer) = (sha2::Sha256::new(), vec![0; 1 << 20]);
        loop {
            let n = match io::Read::read(&mut file, &mut buffer) {
                Ok(0) => return Ok(Sha256(hasher.finalize().into())),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(DataError::io(path)(e)),
            };
            hasher.update(&buffer[..n]);
            self.progress.fetch_add(n as u64, Ordering::Relaxed);
            self.on.tell()?;
        }
    }

    /// Reads a source once, for one side, and writes the shards of that side.
    fn pass(
        &mut self,
        side: Side,
        source: &Source,
        filters: &Filters,
        record: &mut SourceRecord,
    ) -> Result<(), DataError> {
        let config = self.job.config;
        let scratch = self.folder.join("parquet.tmp");
        let (texts, progress) = (self.job.texts, Arc::clone(&self.progress));
        let mut reader = SourceReader::open(config, source, texts, &progress, scratch.clone())?;
        let mut choice = Choice::new(config, side, &mut self.seen);
        let on = &mut self.on;
        let next = || next_batch(&mut reader, &mut choice, on);

        // What is held out is learned first, and then looked at by many threads.
        let mut learned = Known::default();
        let known = match side {
            Side::HeldOut => {
                mem::swap(&mut learned, &mut self.known);
                None
            }
            Side::Train => Some(&self.known),
        };
        // Only what is trained on can be an earlier document of training.
        let near_copies = config.near_copies.filter(|_| side == Side::Train);
        let (near, is_sampled) = (config.held_out.near_duplicates, near_copies.is_some());
        let process = Process { filters, known, near, is_sampled, vocabulary: self.tokenizer };
        let earlier = &mut self.earlier;
        let stem = format!("{}.{}", side.name(), record.name);
        let vocabulary = &self.tokenizer.record;
        let mut writer = ShardWriter::new(self.folder, stem, vocabulary, config.shard_tokens);
        let take = |processed: Result<Processed, DataError>| {
            let mut processed = processed?;
            learned.extend(mem::take(&mut processed.runs));
            record.removed.merge(&processed.removed);
            record.counted_words += processed.counted_words;
            processed.documents().try_for_each(|(document, ids)| {
                let sample = &document.sample;
                if near_copies.is_some_and(|share| earlier.is_repeated(sample, share)) {
                    record.removed.near_copies.add(document.n_bytes);
                    return Ok(());
                }
                writer.push(ids, document.n_bytes as u64)
            })
        };
        in_order(self.job.n_threads, next, |batch| process.batch(batch), take)?;
        let split = writer.finish()?;
        if scratch.exists() {
            std::fs::remove_file(&scratch).map_err(DataError::io(&scratch))?;
        }
        record.removed.duplicates.merge(choice.duplicates);
        let (n_read, n_replaced) = (reader.n_read, reader.n_replaced);
        match side {
            Side::HeldOut => {
                (record.read, record.utf8_replaced) = (n_read, n_replaced);
                record.held_out = split;
                self.known = learned;
                record.held_out_groups = choice.groups.into_iter().collect();
            }
            Side::Train => {
                record.train = split;
                check_read(record, n_read)?;
            }
        }
        Ok(())
    }
}

/// Both passes must have seen the same texts, and something must be left of them.
fn check_read(record: &SourceRecord, n_read: Amount) -> Result<(), DataError> {
    let place = format!("source {:?}", record.name);
    if n_read != record.read {
        let expected = format!("{} documents, as when its files were read first", record.read.n);
        let found = format!("{}, or others: a file was changed", n_read.n);
        return Err(DataError::input(place, expected, found));
    }
    if record.train.documents == 0 {
        let Amount { n, .. } = record.read;
        let removed = &record.removed;
        let found = format!(
            "none: {n} read, {} held out, {} copies, {} of another script, {} with listed words, {} nearly held-out \
             text, {} nearly copies, {} too short",
            record.held_out.documents,
            removed.duplicates.n,
            removed.script.n,
            removed.words.n,
            removed.near_duplicates.n,
            removed.near_copies.n,
            removed.min_chars.n
        );
        return Err(DataError::input(place, "documents to train on", found));
    }
    Ok(())
}

/// The next documents of this side, some hundred kilobytes of them.
fn next_batch(
    reader: &mut SourceReader<'_>,
    choice: &mut Choice<'_>,
    on: &mut Watch<'_>,
) -> Result<Option<Batch>, DataError> {
    on.tell()?;
    let mut batch = Batch::default();
    let mut n_skipped = 0;
    while batch.n_bytes < BATCH_BYTES {
        let Some(document) = reader.next()? else { break };
        if choice.takes(&document) {
            batch.push(document.text);
        } else {
            n_skipped += document.text.len();
        }
        if n_skipped > BATCH_BYTES {
            on.tell()?;
            n_skipped = 0;
        }
    }
    Ok((batch.n_bytes > 0).then_some(batch))
}
