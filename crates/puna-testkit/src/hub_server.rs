//! A server on this machine that speaks the protocol of huggingface.co, and fails as it is told to.
//!
//! Large files are redirected to a second port, as the hub redirects to its storage.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Files of at least this many bytes are stored apart, as with git-lfs.
const LARGE_BYTES: usize = 1000;

/// Most bytes of a request.
const MAX_REQUEST_BYTES: u64 = 1 << 16;

/// A repository: its one commit is made up of its name.
#[derive(Clone)]
pub struct Repository {
    /// `org/name`.
    pub id: String,
    /// Path and bytes of each file.
    pub files: Vec<(String, Vec<u8>)>,
    /// What its card says: `{"license": "mit"}`.
    pub card: Value,
    /// Only requests with this token get its files.
    pub token: Option<String>,
}

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection is closed after so many bytes of the body.
    Drop(usize),
    /// After so many bytes of the body nothing comes for so long.
    Stall(usize, Duration),
    /// Each kilobyte takes so long.
    Slow(Duration),
    /// The file is said to have one byte more.
    WrongSize,
    /// The first byte that is sent is another one.
    WrongBytes,
    /// The whole file is sent, whatever range was asked for.
    NoRanges,
    /// The storage refuses, as where the address that the hub gave has expired.
    Expired,
    /// This status, headers and body instead.
    Status(u16, &'static str, &'static str),
    /// These bytes instead of the body.
    Body(Vec<u8>),
    /// A redirect to this address.
    Redirect(String),
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Path and query.
    pub target: String,
    /// Whether it came to the port of the storage.
    pub storage: bool,
    /// First byte and the one after the last, where a range was asked for.
    pub range: Option<(usize, usize)>,
    /// The header, if there was one.
    pub authorization: Option<String>,
}

/// The server; it ends when dropped.
pub struct HubServer {
    hub: SocketAddr,
    storage: SocketAddr,
    state: Arc<State>,
}

struct State {
    storage_url: String,
    repositories: Vec<Repository>,
    /// A part of the target, the fault, and how many more answers have it.
    faults: Mutex<Vec<(String, Fault, usize)>>,
    seen: Mutex<Vec<Seen>>,
    ended: AtomicBool,
}

struct Answer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// The file that the body is of, or a range of it.
    is_file: bool,
}

impl Repository {
    /// A repository under the MIT licence.
    pub fn new(id: &str, files: &[(&str, &[u8])]) -> Self {
        let files =
            files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
        Self { id: id.to_owned(), files, card: json!({ "license": "mit" }), token: None }
    }

    /// Its commit.
    pub fn commit(&self) -> String {
        hex(&Sha1::digest(&self.id))
    }

    /// What the hub says about it.
    fn listing(&self) -> Value {
        let siblings: Vec<Value> = self
            .files
            .iter()
            .map(|(path, bytes)| {
                let mut file =
                    json!({ "rfilename": path, "size": bytes.len(), "blobId": git_id(bytes) });
                if bytes.len() >= LARGE_BYTES {
                    let sha256 = hex(&Sha256::digest(bytes));
                    file["lfs"] =
                        json!({ "sha256": sha256, "size": bytes.len(), "pointerSize": 134 });
                }
                file
            })
            .collect();
        json!({
            "id": self.id, "modelId": self.id, "sha": self.commit(), "private": false,
            "gated": self.token.as_ref().map(|_| "manual"), "cardData": self.card, "siblings": siblings,
        })
    }
}

impl HubServer {
    /// Starts to serve.
    pub fn start(repositories: Vec<Repository>) -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (hub, storage) = (bind(), bind());
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound port");
        let storage_url = format!("http://{}", address(&storage));
        let state = Arc::new(State {
            storage_url,
            repositories,
            faults: Mutex::default(),
            seen: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let server = Self { hub: address(&hub), storage: address(&storage), state };
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let state = Arc::clone(&server.state);
            std::thread::spawn(move || {
                for connection in listener.incoming() {
                    if state.ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let state = Arc::clone(&state);
                    // A client that goes away is its own business.
                    std::thread::spawn(move || {
                        connection.and_then(|c| state.answer(c, is_storage))
                    });
                }
            });
        }
        server
    }

    /// The address to give as endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// The next `times` answers to targets that contain `part` have this fault.
    pub fn fail(&self, part: &str, fault: Fault, times: usize) {
        lock(&self.state.faults).push((part.to_owned(), fault, times));
    }

    /// The requests since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *lock(&self.state.seen))
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        for address in [self.hub, self.storage] {
            let _ = TcpStream::connect(address);
        }
    }
}

impl State {
    fn answer(&self, connection: TcpStream, is_storage: bool) -> std::io::Result<()> {
        let mut reader = BufReader::new((&connection).take(MAX_REQUEST_BYTES));
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let target =
            lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").to_owned();
        let header = |name: &str| {
            lines.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let range = header("range").as_deref().and_then(parse_range);
        let authorization = header("authorization");
        let fault = self.next_fault(&target, is_storage);
        let seen = Seen { target: target.clone(), storage: is_storage, range, authorization };
        let answer = match &fault {
            Some(Fault::Status(status, headers, body)) => Answer {
                status: *status,
                headers: headers.split('\n').filter(|h| !h.is_empty()).map(str::to_owned).collect(),
                body: body.as_bytes().to_vec(),
                is_file: false,
            },
            Some(Fault::Redirect(url)) => redirect(url.clone()),
            Some(Fault::Body(body)) => {
                Answer { status: 200, headers: Vec::new(), body: body.clone(), is_file: false }
            }
            Some(Fault::Expired) => {
                Answer { status: 403, ..ok(b"<Message>Request has expired</Message>".to_vec()) }
            }
            _ if is_storage => self.stored(&target),
            _ => self.hub_answer(&target, seen.authorization.as_deref()),
        };
        lock(&self.seen).push(seen);
        let head_only = lines.first().is_some_and(|line| line.starts_with("HEAD "));
        send(&connection, answer, range, fault.as_ref(), head_only)
    }

    /// The first fault for this target that is not used up. Faults of bodies wait for an answer that has one.
    fn next_fault(&self, target: &str, is_storage: bool) -> Option<Fault> {
        let target =
            if is_storage { target.to_owned() } else { target.split('?').next()?.to_owned() };
        let redirected =
            !is_storage && self.find(&target).is_some_and(|bytes| bytes.len() >= LARGE_BYTES);
        let mut faults = lock(&self.faults);
        let fits = |(part, fault, times): &&mut (String, Fault, usize)| {
            let of_answer =
                matches!(fault, Fault::Status(..) | Fault::Redirect(_) | Fault::Body(_));
            *times > 0
                && target.contains(part.as_str())
                && (of_answer != is_storage || !redirected && !is_storage)
        };
        let (_, fault, times) = faults.iter_mut().find(fits)?;
        *times -= 1;
        Some(fault.clone())
    }

    /// The file that `/ORG/NAME/resolve/COMMIT/PATH` names.
    fn find(&self, target: &str) -> Option<&[u8]> {
        let (repository, path) = self.resolve(target)?;
        repository.files.iter().find(|(name, _)| *name == path).map(|(_, bytes)| &**bytes)
    }

    fn resolve<'a>(&self, target: &'a str) -> Option<(&Repository, &'a str)> {
        let (id, rest) = target.trim_start_matches('/').split_once("/resolve/")?;
        let (_, path) = rest.split_once('/')?;
        self.repositories.iter().find(|r| r.id == id).map(|repository| (repository, path))
    }

    fn hub_answer(&self, target: &str, authorization: Option<&str>) -> Answer {
        let target = target.split('?').next().unwrap_or_default();
        if let Some(rest) = target.strip_prefix("/api/models/") {
            let (id, revision) = rest.split_once("/revision/").unwrap_or((rest, "main"));
            let Some(repository) = self.repositories.iter().find(|r| r.id == id) else {
                return error(401, "RepoNotFound", "Invalid username or password.");
            };
            if revision != "main" && revision != repository.commit() {
                return error(404, "RevisionNotFound", "Invalid rev id");
            }
            return ok(repository.listing().to_string().into_bytes());
        }
        let Some((repository, path)) = self.resolve(target) else {
            return error(401, "RepoNotFound", "Repository not found");
        };
        let bearer = repository.token.as_ref().map(|token| format!("Bearer {token}"));
        if bearer.is_some() && bearer.as_deref() != authorization {
            let status = if authorization.is_some() { 403 } else { 401 };
            return error(status, "GatedRepo", "Access to this model is restricted.");
        }
        let commit = format!("X-Repo-Commit: {}", repository.commit());
        match self.find(target) {
            None => error(404, "EntryNotFound", "Entry not found"),
            Some(bytes) if bytes.len() >= LARGE_BYTES => {
                let url = format!("{}/{}/{path}?signature=x", self.storage_url, repository.id);
                let etag = format!("X-Linked-Etag: \"{}\"", hex(&Sha256::digest(bytes)));
                let size = format!("X-Linked-Size: {}", bytes.len());
                let mut answer = redirect(url);
                answer.headers.extend([commit, etag, size]);
                answer
            }
            Some(bytes) => {
                let etag = format!("ETag: \"{}\"", git_id(bytes));
                Answer { is_file: true, headers: vec![commit, etag], ..ok(bytes.to_vec()) }
            }
        }
    }

    /// A large file: `/ORG/NAME/PATH?signature=x`.
    fn stored(&self, target: &str) -> Answer {
        let path = target.trim_start_matches('/').split('?').next().unwrap_or_default();
        let files = self.repositories.iter().flat_map(|r| r.files.iter().map(move |f| (r, f)));
        let found = files.into_iter().find(|(r, (name, _))| path == format!("{}/{name}", r.id));
        match found {
            Some((_, (_, bytes))) => Answer { is_file: true, ..ok(bytes.clone()) },
            None => error(404, "", ""),
        }
    }
}

fn ok(body: Vec<u8>) -> Answer {
    Answer { status: 200, headers: Vec::new(), body, is_file: false }
}

fn redirect(url: String) -> Answer {
    Answer {
        status: 302,
        headers: vec![format!("Location: {url}")],
        body: Vec::new(),
        is_file: false,
    }
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let headers = vec![format!("X-Error-Code: {code}"), format!("X-Error-Message: {message}")];
    Answer {
        status,
        headers,
        body: json!({ "error": message }).to_string().into_bytes(),
        is_file: false,
    }
}

/// Sends an answer, or the range of it that was asked for, with the fault of a body.
fn send(
    mut connection: &TcpStream,
    answer: Answer,
    range: Option<(usize, usize)>,
    fault: Option<&Fault>,
    head_only: bool,
) -> std::io::Result<()> {
    let Answer { mut status, mut headers, mut body, is_file } = answer;
    let size = body.len() + usize::from(matches!(fault, Some(Fault::WrongSize)));
    let mut length = size;
    if let Some((first, end)) = range.filter(|_| is_file && !matches!(fault, Some(Fault::NoRanges)))
    {
        status = 206;
        headers.push(format!("Content-Range: bytes {first}-{}/{size}", end - 1));
        body = body[first..end].to_vec();
        length = body.len();
    }
    if matches!(fault, Some(Fault::WrongBytes)) {
        body[0] ^= 1;
    }
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    );
    connection.write_all(head.as_bytes())?;
    if head_only {
        return Ok(());
    }
    match fault {
        Some(Fault::Drop(n)) => connection.write_all(&body[..body.len().min(*n)]),
        Some(Fault::Stall(n, pause)) => {
            let (before, after) = body.split_at(body.len().min(*n));
            connection.write_all(before)?;
            std::thread::sleep(*pause);
            connection.write_all(after)
        }
        Some(Fault::Slow(pause)) => body.chunks(1024).try_for_each(|part| {
            std::thread::sleep(*pause);
            connection.write_all(part)
        }),
        _ => connection.write_all(&body),
    }
}

/// `bytes=3-9` as 3 and 10.
fn parse_range(header: &str) -> Option<(usize, usize)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1))
}

/// The name git gives a file of these bytes.
fn git_id(bytes: &[u8]) -> String {
    let header = format!("blob {}\0", bytes.len());
    hex(&Sha1::new().chain_update(header).chain_update(bytes).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}

/// `n` bytes without a pattern, so that a mistaken offset shows.
pub fn noise(n: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        // The linear congruential generator of Numerical Recipes.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..n).map(|_| next()).collect()
}
