//! Pulling from a server that speaks the hub's protocol and fails in every way it can.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use puna_hub::HubError;
use puna_hub::pull::{Event, Hub, HubOptions, Reference, select};
use puna_hub::store::{Manifest, Store, StoreError};
use puna_testkit::hub_server::{Fault, HubServer, Repository, noise};
use tempfile::TempDir;

/// Bytes of one request: small, so that small files have many.
const RANGE: usize = 4096;

struct Bench {
    server: HubServer,
    options: HubOptions,
    store: Store,
    _folder: TempDir,
}

impl Bench {
    /// A server with one repository, `o/n`, and an empty store.
    fn new(repository: Repository) -> Self {
        let server = HubServer::start(vec![repository]);
        let folder = tempfile::tempdir().unwrap();
        let options = HubOptions {
            endpoint: server.url(),
            stall: Duration::from_millis(300),
            pause: Duration::from_millis(1),
            n_connections: 3,
            range_bytes: RANGE as u64,
            ..HubOptions::default()
        };
        let store = Store::new(folder.path().join("store"));
        Self { server, options, store, _folder: folder }
    }

    /// With one model file of `n` bytes.
    fn with_model(n: usize) -> Self {
        let files: [(&str, &[u8]); 3] =
            [("m.Q4_0.gguf", &noise(n)), ("README.md", b"card"), ("LICENSE", b"MIT")];
        Self::new(Repository::new("o/n", &files))
    }

    fn pull(
        &self,
        repository: &str,
        on: &(dyn Fn(Event<'_>) -> bool + Sync),
    ) -> Result<Manifest, HubError> {
        let hub = Hub::new(self.options.clone())?;
        let reference = Reference::parse(repository)?;
        let listing = hub.list(&reference, on)?;
        let selection = select(&listing, &reference)?;
        let terms = hub.terms(&reference, &listing, &selection, on)?;
        let licence = terms.accept(&self.store, &reference)?;
        hub.pull(&self.store, &reference, &listing, &selection, licence, on)
    }

    fn ok(&self) -> Manifest {
        self.pull("o/n", &|_| true).unwrap()
    }

    /// The error's message; nothing may have been entered.
    fn error(&self, repository: &str) -> String {
        let message = self.pull(repository, &|_| true).unwrap_err().to_string();
        assert!(self.store.list().unwrap().is_empty(), "{message}");
        message
    }

    fn model_bytes(&self, manifest: &Manifest) -> Vec<u8> {
        std::fs::read(self.store.place_of(manifest)).unwrap()
    }

    /// Bytes of the model that were asked for since the last look, by the ranges of the requests.
    fn n_asked(&self) -> usize {
        let seen = self.server.take_seen();
        let ranges = seen.iter().filter(|s| s.storage).filter_map(|s| s.range);
        ranges.map(|(first, end)| end - first).sum()
    }
}

#[test]
fn a_model_arrives_in_ranges_and_is_entered_once() {
    let bench = Bench::with_model(5 * RANGE + 7);
    let manifest = bench.ok();
    assert_eq!(bench.model_bytes(&manifest), noise(5 * RANGE + 7));
    let asked = bench.server.take_seen();
    assert_eq!(asked.iter().filter(|s| s.storage && s.range.is_some()).count(), 6);
    let name = manifest.model.to_string();
    assert_eq!((&*name, &*manifest.form), ("o/n:Q4_0", "GGUF Q4_0"));
    assert_eq!(bench.store.find("n").unwrap(), manifest);
    // What is there is not fetched again.
    bench.ok();
    assert_eq!(bench.n_asked(), 0);
    let removed = bench.store.remove(&manifest.model).unwrap();
    assert_eq!(removed.freed, (5 * RANGE + 7 + b"cardMIT".len()) as u64);
    assert!(bench.store.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(bench.store.root().join("blobs")).unwrap().count(), 0);
}

#[test]
fn what_passes_is_tried_again() {
    let n = 3 * RANGE;
    let faults: [(&str, Fault, usize); 9] = [
        ("m.Q4", Fault::Expired, 2),
        ("m.Q4", Fault::Drop(100), 6),
        ("m.Q4", Fault::Stall(100, Duration::from_secs(2)), 2),
        ("m.Q4", Fault::Slow(Duration::from_millis(20)), 3),
        ("/api/", Fault::Status(503, "", ""), 2),
        ("/api/", Fault::Status(429, "Retry-After: 0", "slow down"), 2),
        ("/api/", Fault::Status(429, "RateLimit: \"api\";r=0;t=1", ""), 1),
        ("m.Q4", Fault::Status(500, "", ""), 3),
        ("README", Fault::Drop(2), 2),
    ];
    for (part, fault, times) in faults {
        let bench = Bench::with_model(n);
        bench.server.fail(part, fault.clone(), times);
        let manifest = bench.ok();
        assert_eq!(bench.model_bytes(&manifest), noise(n), "{fault:?}");
    }
}

#[test]
fn what_does_not_pass_is_told() {
    let status = Fault::Status;
    let redirect = |url: &str| Fault::Redirect(url.to_owned());
    let cut = Fault::Body(b"{\"sha\": \"".to_vec());
    let faults: [(&str, Fault, &[&str]); 12] = [
        ("m.Q4", Fault::Expired, &["/m.Q4_0.gguf: the server answers 403"]),
        ("LICENSE", Fault::WrongBytes, &["LICENSE", "damaged"]),
        ("LICENSE", Fault::WrongSize, &["LICENSE"]),
        ("m.Q4", Fault::WrongSize, &["m.Q4_0.gguf: expected 12288 bytes", "12289"]),
        ("m.Q4", Fault::WrongBytes, &["m.Q4_0.gguf", "damaged and was discarded", "checksum"]),
        ("README", Fault::WrongBytes, &["README.md", "damaged"]),
        ("m.Q4", Fault::Drop(0), &["/o/n/resolve/"]),
        ("/api/", status(503, "", "busy"), &["the server answers 503"]),
        ("/api/", cut, &["expected the description of a repository", "EOF"]),
        ("/api/", redirect("file:///etc/passwd"), &["redirected to \"file:///etc/passwd\""]),
        ("/api/", redirect("/api/again"), &["redirected more than 10 times"]),
        ("README", status(418, "X-Error-Message: no\ttea", ""), &["answers 418: notea"]),
    ];
    for (part, fault, expected) in faults {
        let bench = Bench::with_model(3 * RANGE);
        bench.server.fail(part, fault.clone(), 1000);
        let message = bench.error("o/n");
        for part in expected {
            assert!(message.contains(part), "{fault:?}: {message}");
        }
    }
}

#[test]
fn a_damaged_file_is_fetched_anew() {
    let bench = Bench::with_model(3 * RANGE);
    bench.server.fail("m.Q4", Fault::WrongBytes, 1);
    assert!(bench.error("o/n").contains("damaged"));
    bench.n_asked();
    bench.ok();
    assert_eq!(bench.n_asked(), 3 * RANGE);
}

#[test]
fn an_interrupted_pull_goes_on_where_it_was() {
    let n = 20 * RANGE;
    let bench = Bench::with_model(n);
    bench.server.fail("m.Q4", Fault::Slow(Duration::from_millis(1)), 1000);
    let arrived = AtomicU64::new(0);
    let half = |event: Event<'_>| match event {
        Event::Fetched(n) => arrived.fetch_add(n, Ordering::SeqCst) + n < 10 * RANGE as u64,
        _ => true,
    };
    assert!(matches!(bench.pull("o/n", &half), Err(HubError::Stopped)));
    assert!(bench.store.list().unwrap().is_empty());
    let unfinished = bench.store.unfinished().unwrap();
    let there = unfinished.freed as usize;
    assert_eq!(unfinished.n_files, 1);
    assert!((6 * RANGE..=13 * RANGE).contains(&there), "{there}");
    bench.n_asked();
    let manifest = bench.ok();
    assert_eq!(bench.n_asked(), n - there, "only what was missing is asked for");
    assert_eq!(bench.model_bytes(&manifest), noise(n));
    assert_eq!(bench.store.unfinished().unwrap().n_files, 0);
}

#[test]
fn a_server_without_ranges_sends_the_whole() {
    let n = 3 * RANGE;
    let bench = Bench::with_model(n);
    bench.server.fail("m.Q4", Fault::NoRanges, 1000);
    let manifest = bench.ok();
    assert_eq!(bench.model_bytes(&manifest), noise(n));
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let files: [(&str, &[u8]); 2] = [("m.gguf", &noise(2 * RANGE)), ("README.md", b"card")];
    let mut repository = Repository::new("o/n", &files);
    repository.token = Some("hf_secret".to_owned());
    let mut bench = Bench::new(repository);
    let page = format!(
        "access is restricted: Access to this model is restricted; ask for it at {}/o/n, then set HF_TOKEN",
        bench.server.url()
    );
    assert!(bench.error("o/n").contains(&page));
    assert_eq!(bench.store.unfinished().unwrap().n_files, 0);
    bench.options.token = Some("hf_other".to_owned());
    assert!(bench.error("o/n").contains("check that HF_TOKEN"));
    let refusal = "X-Error-Message: Invalid credentials in Authorization header";
    bench.server.fail("/api/", Fault::Status(401, refusal, ""), 1);
    assert!(bench.error("o/n").contains("does not know the token"));
    bench.options.token = Some("hf_secret".to_owned());
    bench.server.take_seen();
    bench.ok();
    let seen = bench.server.take_seen();
    let (storage, hub): (Vec<_>, Vec<_>) = seen.into_iter().partition(|s| s.storage);
    assert!(!storage.is_empty());
    assert!(storage.iter().all(|s| s.authorization.is_none()), "{storage:?}");
    let bearer = Some("Bearer hf_secret");
    assert!(hub.iter().all(|s| s.authorization.as_deref() == bearer), "{hub:?}");
}

#[test]
fn what_is_not_there_is_met_with_help() {
    let bench = Bench::with_model(2 * RANGE);
    for (repository, expected) in [
        ("o/m", "o/m: no such repository at http://127.0.0.1"),
        ("o/n@v9", "o/n: no branch, tag or commit is called \"v9\""),
        ("o/n:m.Q4_1.gguf", "did you mean m.Q4_0.gguf?"),
        ("o/n:Q8_0", "did you mean Q4_0?"),
    ] {
        let message = bench.error(repository);
        assert!(message.contains(expected), "{message}");
    }
    let offline = HubOptions { offline: true, ..bench.options.clone() };
    let reference = Reference::parse("o/n").unwrap();
    let message = Hub::new(offline).unwrap().list(&reference, &|_| true).unwrap_err().to_string();
    assert!(message.contains("HF_HUB_OFFLINE"), "{message}");
    for (endpoint, token, proxy) in [
        ("ftp://x", None, None),
        ("", None, None),
        ("https://x", Some("a\r\nb"), None),
        ("https://me:s3cret@x", None, None),
        ("me:s3cret@x", None, None),
        ("https://x", None, Some("bad://me:s3cret@x")),
    ] {
        let [token, proxy] = [token, proxy].map(|text| text.map(str::to_owned));
        let options =
            HubOptions { endpoint: endpoint.to_owned(), token, proxy, ..HubOptions::default() };
        let message = Hub::new(options).err().unwrap().to_string();
        assert!(message.starts_with('H') && !message.contains("s3cret"), "{message}");
    }
}

#[test]
fn files_that_two_models_share_lie_there_once() {
    let (one, two, licence) = (noise(3000), noise(2000), b"MIT License");
    let files: [(&str, &[u8]); 3] =
        [("m.Q4_0.gguf", &one), ("m.Q8_0.gguf", &two), ("LICENSE", licence)];
    let bench = Bench::new(Repository::new("o/n", &files));
    let pulled = ["o/n:Q4_0", "o/n:Q8_0"].map(|name| bench.pull(name, &|_| true).unwrap());
    let blobs = || std::fs::read_dir(bench.store.root().join("blobs")).unwrap().count();
    assert_eq!(blobs(), 3);
    assert!(matches!(bench.store.find("n"), Err(StoreError::Ambiguous { .. })));
    assert!(pulled.iter().all(|manifest| bench.store.is_whole(manifest)));
    let freed = |idx: usize| bench.store.remove(&pulled[idx].model).unwrap().freed;
    assert_eq!(freed(0), 3000);
    assert_eq!((blobs(), bench.store.is_whole(&pulled[1])), (2, true));
    assert_eq!(freed(1), 2000 + licence.len() as u64);
    assert_eq!((blobs(), freed(1)), (0, 0));
}

#[test]
fn a_file_that_went_missing_is_fetched_again() {
    let bench = Bench::with_model(2 * RANGE);
    let manifest = bench.ok();
    let blob =
        bench.store.root().join("blobs").join(format!("sha256-{}", manifest.files[0].sha256));
    std::fs::remove_file(blob).unwrap();
    assert!(!bench.store.is_whole(&manifest));
    let again = bench.ok();
    assert!(bench.store.is_whole(&again));
}

#[test]
fn a_refused_licence_leaves_nothing() {
    let bench = Bench::with_model(2 * RANGE);
    let hub = Hub::new(bench.options.clone()).unwrap();
    let reference = Reference::parse("o/n").unwrap();
    let listing = hub.list(&reference, &|_| true).unwrap();
    let selection = select(&listing, &reference).unwrap();
    hub.terms(&reference, &listing, &selection, &|_| true).unwrap();
    assert!(!bench.store.root().exists());
    // What a whole model has is not touched.
    let manifest = bench.ok();
    bench.store.remove_unfinished().unwrap();
    assert!(bench.store.is_whole(&manifest));
}

#[test]
fn a_damaged_description_is_named() {
    let bench = Bench::with_model(2 * RANGE);
    bench.ok();
    let path = bench.store.root().join("manifests/o/n/Q4_0.json");
    let sound = std::fs::read_to_string(&path).unwrap();
    for (from, to, expected) in [
        ("{", "", "expected the description of a pulled model"),
        ("\"version\": 1", "\"version\": 2", "expected version 1, found 2"),
        ("\"org\": \"o\"", "\"org\": \"..\"", "expected a repository's name"),
        ("\"path\": \"README.md\"", "\"path\": \"../x\"", "expected a path inside the repository"),
        ("\"open\": \"m.Q4_0.gguf\"", "\"open\": \"../x\"", "expected a file of the model to open"),
    ] {
        let damaged = sound.replacen(from, to, 1);
        assert_ne!(damaged, sound);
        std::fs::write(&path, damaged).unwrap();
        let message = bench.store.list().unwrap_err().to_string();
        assert!(message.contains("Q4_0.json") && message.contains(expected), "{message}");
    }
}

#[test]
fn no_file_leaves_the_store() {
    for name in
        ["../../../evil.gguf", "/etc/evil.gguf", "a\\..\\evil.gguf", "C:evil.gguf", "e\0vil.gguf"]
    {
        let bench = Bench::new(Repository::new("o/n", &[(name, b"evil")]));
        assert!(bench.error("o/n").contains("no model in it"));
    }
}

#[test]
fn two_pulls_at_once_fetch_once() {
    let n = 8 * RANGE;
    let bench = Bench::with_model(n);
    bench.server.fail("m.Q4", Fault::Slow(Duration::from_millis(2)), 1000);
    let manifests: Vec<Manifest> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| bench.ok())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(manifests[0].files, manifests[1].files);
    assert_eq!(bench.n_asked(), n);
    assert_eq!(bench.store.list().unwrap().len(), 1);
}

#[test]
fn what_the_disk_has_no_room_for_is_not_begun() {
    let bench = Bench::new(Repository::new("o/n", &[]));
    let listing = serde_json::json!({
        "sha": "0".repeat(40),
        "siblings": [{ "rfilename": "m.gguf",
            "lfs": { "size": 9_000_000_000_000_000_000u64, "sha256": "0".repeat(64) } }],
    });
    bench.server.fail("/api/", Fault::Body(listing.to_string().into_bytes()), 1);
    let message = bench.error("o/n");
    assert!(message.contains("needs 9.0 EB"), "{message}");
    assert!(!bench.server.seen().iter().any(|s| s.target.contains("/resolve/")));
}

#[test]
fn only_papers_are_shown_as_such() {
    let model = noise(3000);
    let long = vec![b'x'; (1 << 20) + 1];
    let files: [(&str, &[u8]); 4] = [
        ("notice-7b.Q4_0.gguf", &model),
        ("LICENSE", b"MIT"),
        ("license.py", b"x"),
        ("COPYING", &long),
    ];
    let bench = Bench::new(Repository::new("o/n", &files));
    let hub = Hub::new(bench.options.clone()).unwrap();
    let reference = Reference::parse("o/n").unwrap();
    let listing = hub.list(&reference, &|_| true).unwrap();
    let selection = select(&listing, &reference).unwrap();
    let terms = hub.terms(&reference, &listing, &selection, &|_| true).unwrap();
    let shown: Vec<(&str, &str)> = terms.papers.iter().map(|p| (&*p.path, &*p.text)).collect();
    assert_eq!(shown, [("LICENSE", "MIT")]);
    let names: Vec<String> = (0..33).map(|n| format!("LICENSE.{n}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b"x"[..])).collect();
    let many = [&many[..], &[("m.gguf", &model)]].concat();
    let message = Bench::new(Repository::new("o/n", &many)).error("o/n");
    assert!(message.contains("expected at most 32 files"), "{message}");
}
