//! Who may ask, and how often.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

use crate::error::ApiError;

/// Most clients whose rate is remembered; the idlest is forgotten first.
const MAX_CLIENTS: usize = 10_000;
/// Shortest key that is accepted.
const MIN_KEY_CHARS: usize = 8;

/// Why a file of keys cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is no key.
    #[error(
        "{path}, line {line}: expected a key of at least {MIN_KEY_CHARS} visible ASCII characters"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// There is no key in it.
    #[error("{path}: expected a key on each line, found none")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Reads keys, one a line; empty lines and those that begin with `#` do not count.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_keys(path: &Path) -> Result<Vec<String>, KeyFileError> {
    let path_buf = || path.to_path_buf();
    let text = std::fs::read_to_string(path)
        .map_err(|source| KeyFileError::Io { path: path_buf(), source })?;
    let mut keys = Vec::new();
    for (idx, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.len() < MIN_KEY_CHARS || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyFileError::Line { path: path_buf(), line: idx + 1 });
        }
        keys.push(line.to_owned());
    }
    if keys.is_empty() { Err(KeyFileError::Empty { path: path_buf() }) } else { Ok(keys) }
}

/// The rules of access.
pub struct Access {
    /// Hashes of the keys; without one everybody may ask.
    keys: Vec<[u8; 32]>,
    /// Requests a minute for each client.
    per_minute: Option<u32>,
    buckets: Mutex<HashMap<Client, Bucket>>,
}

/// Whom a rate is counted for: whoever has the key, else who calls from the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    Key(usize),
    Address(IpAddr),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(idx) => write!(f, "key {}", idx + 1),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Fills at the rate, up to a minute's worth.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Access {
    /// Only who has one of `keys` may ask, if there are any; each client at most `per_minute` times a minute.
    pub fn new(keys: &[String], per_minute: Option<u32>) -> Self {
        let keys = keys.iter().map(|key| Sha256::digest(key).into()).collect();
        Self { keys, per_minute, buckets: Mutex::default() }
    }

    /// Who asks.
    pub(crate) fn client(&self, headers: &HeaderMap, address: IpAddr) -> Result<Client, ApiError> {
        if self.keys.is_empty() {
            return Ok(Client::Address(address));
        }
        let unauthorized = |message: &str| {
            ApiError::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key")
        };
        let Some(key) = sent_key(headers) else {
            return Err(unauthorized(
                "an API key is needed: send it as `Authorization: Bearer KEY` or `api-key: KEY`",
            ));
        };
        self.find(key).map(Client::Key).ok_or_else(|| unauthorized("the API key is not known"))
    }

    /// Compares with all keys, in time that depends neither on the keys nor on which one it is.
    fn find(&self, key: &[u8]) -> Option<usize> {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (idx, known) in self.keys.iter().enumerate() {
            let equal: Choice = hash[..].ct_eq(&known[..]);
            if equal.into() {
                found = Some(idx);
            }
        }
        found
    }

    /// Counts one request of `client` at `now`.
    pub(crate) fn count(&self, client: Client, now: Instant) -> Result<(), ApiError> {
        let Some(per_minute) = self.per_minute else { return Ok(()) };
        let rate = f64::from(per_minute) / 60.0;
        let full = f64::from(per_minute);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_CLIENTS && !buckets.contains_key(&client) {
            let idlest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(&c, _)| c);
            idlest.and_then(|client| buckets.remove(&client));
        }
        let bucket = buckets.entry(client).or_insert(Bucket { tokens: full, at: now });
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * rate).min(full);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            let wait = ((1.0 - bucket.tokens) / rate).ceil() as u64;
            let message = format!("more than {per_minute} requests a minute");
            return Err(ApiError::busy(message, wait.max(1)).with_code("rate_limit_exceeded"));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

/// The key in whichever header the client's protocol has it.
fn sent_key(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key.trim_ascii())
    });
    let named = || ["api-key", "x-api-key"].into_iter().find_map(|name| headers.get(name));
    bearer.or_else(|| named().map(HeaderValue::as_bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn keys_are_found_in_any_header() {
        let keys = ["first-key-1".to_owned(), "second-key-2".to_owned()];
        let access = Access::new(&keys, None);
        let client = |headers: &HeaderMap| access.client(headers, [127, 0, 0, 1].into());
        for (name, value) in [
            ("authorization", "Bearer second-key-2"),
            ("authorization", "bearer second-key-2"),
            ("api-key", "second-key-2"),
            ("x-api-key", "second-key-2"),
        ] {
            assert_eq!(client(&headers(name, value)).unwrap(), Client::Key(1), "{name}: {value}");
        }
        for (name, value) in [
            ("authorization", "Bearer second-key-3"),
            ("authorization", "Basic second-key-2"),
            ("authorization", "Bearer"),
            ("authorization", "second-key-2"),
            ("api-key", ""),
            ("key", "second-key-2"),
        ] {
            let error = client(&headers(name, value)).unwrap_err();
            assert_eq!(error.status, StatusCode::UNAUTHORIZED, "{name}: {value}");
        }
        let open = Access::new(&[], None);
        assert!(open.client(&HeaderMap::new(), [127, 0, 0, 1].into()).is_ok());
    }

    #[test]
    fn each_client_has_its_own_rate() {
        let access = Access::new(&[], Some(3));
        let (a, b) = (Client::Key(0), Client::Key(1));
        let start = Instant::now();
        let count = |client, secs| access.count(client, start + Duration::from_secs(secs));
        for _ in 0..3 {
            count(a, 0).unwrap();
        }
        let error = count(a, 0).unwrap_err();
        assert_eq!((error.status.as_u16(), error.retry_after()), (429, Some(20)));
        count(b, 0).unwrap();
        assert!(count(a, 19).is_err());
        count(a, 20).unwrap();
        assert!(count(a, 20).is_err());
    }

    #[test]
    fn files_of_keys_are_checked() {
        let folder = std::env::temp_dir().join(format!("puna-keys-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&folder, text).unwrap();
            read_keys(&folder)
        };
        assert_eq!(
            read("# ours\n\n  one-long-key \nanother-key\n").unwrap(),
            ["one-long-key", "another-key"]
        );
        assert!(matches!(read("short\n"), Err(KeyFileError::Line { line: 1, .. })));
        assert!(matches!(
            read("good-long-key\nwith a space\n"),
            Err(KeyFileError::Line { line: 2, .. })
        ));
        assert!(matches!(read("# none\n"), Err(KeyFileError::Empty { .. })));
        std::fs::remove_file(&folder).unwrap();
        assert!(matches!(read_keys(&folder), Err(KeyFileError::Io { .. })));
    }
}
