//! Fetching one file: in ranges at the same time, going on where an earlier attempt ended, checked at the end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use super::http::{self, Failure};
use super::{Checksum, Event, Hub, PullError, Reference, RemoteFile, Watch};
use crate::HubError;
use crate::store::{Partial, PartialLock, Store, StoreError};

/// After so many bytes it is recorded that they are there: at most this much of each range is fetched twice when the
/// process is killed.
const RECORD_BYTES: u64 = 4 << 20;

/// How long to wait before looking again at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// The name under which a file on its way is kept.
fn key(file: &RemoteFile) -> String {
    match &file.checksum {
        Checksum::Sha256(sha256) => sha256.clone(),
        Checksum::Git(id) => format!("git-{id}"),
    }
}

/// Bytes of `file` that the store lacks.
pub(super) fn n_missing(store: &Store, file: &RemoteFile) -> u64 {
    match &file.checksum {
        Checksum::Sha256(sha256) if store.has_blob(sha256, file.size) => 0,
        _ => file.size.saturating_sub(store.partial_bytes(&key(file))),
    }
}

/// Fetches `file` from `url` into the store, if it is not there, and returns its SHA-256.
pub(super) fn file(
    hub: &Hub,
    store: &Store,
    reference: &Reference,
    file: &RemoteFile,
    url: &str,
    watch: Watch<'_>,
) -> Result<String, HubError> {
    let key = key(file);
    let lock = wait_for_lock(store, &key, &file.path, watch)?;
    if let Checksum::Sha256(sha256) = &file.checksum
        && store.has_blob(sha256, file.size)
    {
        watch(Event::Present(file.size));
        return Ok(sha256.clone());
    }
    let partial = store.partial(&lock, &key, file.size, hub.options.range_bytes)?;
    let job =
        Job { hub, reference, file, url, partial: &partial, watch, halted: AtomicBool::new(false) };
    watch(Event::Present(partial.n_done()));
    if let Err(error) = job.fetch() {
        // A file of which nothing came is none on its way.
        if partial.n_done() == 0 {
            partial.discard();
        }
        return Err(error);
    }
    if !watch(Event::Checking(&file.path)) {
        return Err(HubError::Stopped);
    }
    let sums = partial.checksums(&mut |_| watch(Event::Idle))?.ok_or(HubError::Stopped)?;
    let (expected, found) = match &file.checksum {
        Checksum::Sha256(expected) => (expected, &sums.sha256),
        Checksum::Git(expected) => (expected, &sums.git),
    };
    if expected != found {
        partial.discard();
        let (file, expected, found) = (file.path.clone(), expected.clone(), found.clone());
        return Err(PullError::Checksum { file, expected, found }.into());
    }
    store.keep(partial, &sums.sha256)?;
    Ok(sums.sha256)
}

/// The lock on the file with checksum `key`, as soon as no other process has it.
fn wait_for_lock(
    store: &Store,
    key: &str,
    path: &str,
    watch: Watch<'_>,
) -> Result<PartialLock, HubError> {
    let mut event = Event::Waiting(path);
    loop {
        if let Some(lock) = store.try_lock_partial(key)? {
            return Ok(lock);
        }
        if !watch(event) {
            return Err(HubError::Stopped);
        }
        event = Event::Idle;
        std::thread::sleep(LOCK_POLL);
    }
}

/// The fetching of one file.
struct Job<'a> {
    hub: &'a Hub,
    reference: &'a Reference,
    file: &'a RemoteFile,
    url: &'a str,
    partial: &'a Partial,
    watch: Watch<'a>,
    /// Set when one thread has failed, so that the others end too.
    halted: AtomicBool,
}

/// How an attempt at a range ended, if not with all of it.
enum Setback {
    /// The server sends whole files only.
    NoRanges,
    /// A request that failed.
    Failed(Failure),
    /// Something else, for good.
    Ended(HubError),
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        Self::Ended(error.into())
    }
}

impl Job<'_> {
    /// Fetches what is missing, whole if the server knows no ranges.
    fn fetch(&self) -> Result<(), HubError> {
        match self.fetch_ranges() {
            Err(Setback::NoRanges) => self.fetch_whole(),
            Err(Setback::Failed(failure)) => Err(failure.error.into()),
            Err(Setback::Ended(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    fn fetch_ranges(&self) -> Result<(), Setback> {
        let n_ranges = self.partial.n_ranges();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let idx = next.fetch_add(1, Ordering::Relaxed);
                if idx >= n_ranges {
                    return Ok(());
                }
                let outcome = self.fetch_range(idx);
                if outcome.is_err() {
                    self.halted.store(true, Ordering::Relaxed);
                    return outcome;
                }
            }
        };
        std::thread::scope(|scope| {
            let n_threads = self.hub.options.n_connections.clamp(1, n_ranges.max(1));
            let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
            let mut outcome = Ok(());
            for thread in threads {
                let ended = thread.join().expect("no panic while fetching");
                // Where one thread failed the others were stopped, which is no news.
                let is_news = matches!(outcome, Ok(()) | Err(Setback::Ended(HubError::Stopped)));
                if ended.is_err() && is_news {
                    outcome = ended;
                }
            }
            outcome
        })
    }

    /// Fetches what is missing of a range. Attempts that bring something do not count.
    fn fetch_range(&self, idx: usize) -> Result<(), Setback> {
        let mut attempt = 0;
        loop {
            let (first, end) = self.partial.missing(idx);
            if first == end {
                return Ok(());
            }
            match self.try_range(idx, first, end) {
                Err(Setback::Failed(failure)) => {
                    if self.partial.missing(idx).0 > first {
                        attempt = 0;
                    }
                    let paused = self.hub.pause(failure, &mut attempt, &|event| self.tell(event));
                    paused.map_err(Setback::Ended)?;
                }
                outcome => outcome?,
            }
        }
    }

    fn try_range(&self, idx: usize, first: u64, end: u64) -> Result<(), Setback> {
        let whole = first == 0 && end == self.file.size;
        let response = self.hub.client.get(self.url, (!whole).then_some((first, end)))?;
        let mut response = self.successful(response)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => self.check_range(&response, first, end)?,
            _ if whole => self.check_length(&response)?,
            _ => return Err(Setback::NoRanges),
        }
        let record = &mut |file: &File, at| self.partial.record(file, idx, at);
        self.copy(response.body_mut(), first, end, record)
    }

    /// Fetches the whole file from a server that knows no ranges: each attempt begins anew.
    fn fetch_whole(&self) -> Result<(), HubError> {
        self.halted.store(false, Ordering::Relaxed);
        let mut attempt = 0;
        loop {
            (self.watch)(Event::Lost(self.partial.n_done()));
            self.partial.reset()?;
            match self.try_whole() {
                Ok(()) => return Ok(()),
                Err(Setback::Ended(error)) => return Err(error),
                Err(Setback::Failed(failure)) => {
                    self.hub.pause(failure, &mut attempt, self.watch)?;
                }
                Err(Setback::NoRanges) => unreachable!("no range was asked for"),
            }
        }
    }

    fn try_whole(&self) -> Result<(), Setback> {
        let response = self.hub.client.get(self.url, None)?;
        let mut response = self.successful(response)?;
        self.check_length(&response)?;
        let record = &mut |file: &File, at| self.partial.record_prefix(file, at);
        self.copy(response.body_mut(), 0, self.file.size, record)
    }

    /// Tells what happens, and whether to go on.
    fn tell(&self, event: Event<'_>) -> bool {
        (self.watch)(event) && !self.halted.load(Ordering::Relaxed)
    }

    /// Writes the body to the file from byte `first` up to `end`; `record` is told how far it is there.
    fn copy(
        &self,
        body: &mut Body,
        first: u64,
        end: u64,
        record: &mut dyn FnMut(&File, u64) -> Result<(), StoreError>,
    ) -> Result<(), Setback> {
        let mut file = self.partial.writer_at(first)?;
        let mut reader = body.as_reader();
        let mut buffer = vec![0; 1 << 16];
        let (mut at, mut recorded) = (first, first);
        let outcome = loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) if at == end => break Ok(()),
                Ok(0) => {
                    break Err(Failure::passing(self.url, "the connection was closed early").into());
                }
                Ok(n) if n as u64 > end - at => break Err(self.wrong_size("more".to_owned())),
                Ok(n) => n,
                Err(e) => break Err(self.read_failure(&e).into()),
            };
            if let Err(source) = file.write_all(&buffer[..n]) {
                let path = self.partial.path().to_path_buf();
                break Err(StoreError::Io { path, source }.into());
            }
            at += n as u64;
            if at - recorded >= RECORD_BYTES {
                record(&file, at)?;
                recorded = at;
            }
            if !self.tell(Event::Fetched(n as u64)) {
                break Err(Setback::Ended(HubError::Stopped));
            }
        };
        if at > recorded {
            record(&file, at)?;
        }
        outcome
    }

    fn read_failure(&self, error: &io::Error) -> Failure {
        match error.get_ref().and_then(|e| e.downcast_ref::<ureq::Error>()) {
            Some(error) => http::failure(self.url, error),
            None => Failure::passing(self.url, error),
        }
    }

    /// The response, or what its status means for this file.
    fn successful(&self, response: Response<Body>) -> Result<Response<Body>, Setback> {
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            let found = http::header_text(&response, header::CONTENT_RANGE.as_str());
            return Err(self.wrong_size(found));
        }
        Ok(self.hub.successful(self.reference, self.url, response)?)
    }

    /// Refuses an answer of another range, or of a file of another size, than expected.
    fn check_range(&self, response: &Response<Body>, first: u64, end: u64) -> Result<(), Setback> {
        let found = http::header_text(response, header::CONTENT_RANGE.as_str());
        let expected = format!("bytes {first}-{}/{}", end - 1, self.file.size);
        if found == expected { Ok(()) } else { Err(self.wrong_size(found)) }
    }

    /// Refuses an answer of another length than the file's.
    fn check_length(&self, response: &Response<Body>) -> Result<(), Setback> {
        let found = http::header_text(response, header::CONTENT_LENGTH.as_str());
        let fits = found.is_empty() || found.parse() == Ok(self.file.size);
        if fits { Ok(()) } else { Err(self.wrong_size(found)) }
    }

    fn wrong_size(&self, found: String) -> Setback {
        let (file, expected) = (self.file.path.clone(), self.file.size);
        Failure::lasting(PullError::Size { file, expected, found }).into()
    }
}
