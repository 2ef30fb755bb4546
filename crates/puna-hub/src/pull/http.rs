//! Requests to the hub: redirects, the token, and which failures may pass.

use std::io;
use std::time::Duration;

use ureq::http::{Response, StatusCode, Uri, header};
use ureq::{Agent, Body, Proxy, ProxyBuilder};

use super::{HubOptions, PullError};
use crate::shown;

/// Most redirects of one request.
const MAX_REDIRECTS: usize = 10;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest pause that a server may ask for: the hub counts requests in windows of five minutes.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(301);

/// Most bytes of an error's body that are read.
const MAX_ERROR_BYTES: u64 = 1 << 16;

/// Sends requests.
pub(super) struct Client {
    agent: Agent,
    /// The hub's address, without a slash at its end.
    endpoint: String,
    origin: Origin,
    token: Option<String>,
}

/// Scheme, host and port.
type Origin = (String, String, u16);

/// Why a request failed, and whether another may succeed.
pub(super) struct Failure {
    pub(super) error: PullError,
    /// `None` if asking again is no use; else how long the server wants to be left alone.
    pub(super) retry: Option<Duration>,
}

impl Failure {
    /// A failure that another request will not mend.
    pub(super) fn lasting(error: PullError) -> Self {
        Self { error, retry: None }
    }

    /// A failure that may pass.
    pub(super) fn passing(url: &str, message: impl ToString) -> Self {
        let error = PullError::Network { url: url.to_owned(), message: message.to_string() };
        Self { error, retry: Some(Duration::ZERO) }
    }
}

impl Client {
    /// A client of the hub in `options`.
    pub(super) fn new(options: &HubOptions) -> Result<Self, PullError> {
        let bad = |name, expected, found: &str| PullError::Option {
            name,
            expected,
            found: without_user(found),
        };
        let endpoint = options.endpoint.trim_end_matches('/').to_owned();
        let uri: Option<Uri> = endpoint.parse().ok();
        let origin = uri.as_ref().and_then(origin_of).ok_or_else(|| {
            bad("HF_ENDPOINT", "an address like https://huggingface.co", &endpoint)
        })?;
        // They would stand in every message that names an address.
        if uri.as_ref().and_then(Uri::authority).is_some_and(|a| a.as_str().contains('@')) {
            let expected = "an address without a user's name and password (HF_TOKEN gives access)";
            return Err(bad("HF_ENDPOINT", expected, &endpoint));
        }
        let proxy =
            match &options.proxy {
                Some(url) => {
                    let proxy = proxy(url, &options.no_proxy);
                    Some(proxy.ok_or_else(|| {
                        bad("HTTPS_PROXY", "an address like http://proxy:3128", url)
                    })?)
                }
                None => None,
            };
        let token = options.token.clone();
        if token.as_ref().is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(bad(
                "HF_TOKEN",
                "a token like hf_…, letters and digits alone",
                "other characters",
            ));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("puna/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections_per_host(options.n_connections)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(options.stall))
            .timeout_per_read(Some(options.stall))
            .build();
        Ok(Self { agent: Agent::new_with_config(config), endpoint, origin, token })
    }

    /// The hub's address.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether requests to the hub carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Gets `url`, or the bytes from `range.0` up to but not including `range.1` of it. The token goes to the hub
    /// alone, never to where it redirects. A bare refusal by another server says nothing about the repository: it is a
    /// failure, which may pass where the address that the hub gave has expired (403).
    pub(super) fn get(
        &self,
        url: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Response<Body>, Failure> {
        let network = |message: String| PullError::Network { url: url.to_owned(), message };
        let mut at: Uri = url.parse().map_err(|e| Failure::lasting(network(format!("{e}"))))?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(at.clone());
            let is_hub = origin_of(&at).as_ref() == Some(&self.origin);
            if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some((first, end)) = range {
                request = request.header(header::RANGE, format!("bytes={first}-{}", end - 1));
            }
            let response = request.call().map_err(|e| failure(url, &e))?;
            let status = response.status();
            let says_why = response.headers().contains_key("x-error-code");
            if !is_hub && !says_why && matches!(status.as_u16(), 401 | 403 | 404) {
                let failure = status_failure(url, response);
                let has_expired = status == StatusCode::FORBIDDEN;
                return Err(Failure { retry: has_expired.then_some(Duration::ZERO), ..failure });
            }
            if !status.is_redirection() {
                return Ok(response);
            }
            let location = header_text(&response, header::LOCATION.as_str());
            at = follow(&at, &location)
                .ok_or_else(|| Failure::lasting(network(format!("redirected to {location:?}"))))?;
        }
        Err(Failure::lasting(network(format!("redirected more than {MAX_REDIRECTS} times"))))
    }
}

/// What a status other than success means, for a request to `url`.
pub(super) fn status_failure(url: &str, mut response: Response<Body>) -> Failure {
    let status = response.status();
    let passing = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let pause = asked_pause(&response).min(MAX_RETRY_AFTER);
    let message = error_message(&mut response);
    let error = PullError::Status { url: url.to_owned(), status: status.as_u16(), message };
    Failure { error, retry: passing.then_some(pause) }
}

/// How long the server wants to be left alone: `Retry-After: 7`, or `RateLimit: "api";r=0;t=55`.
fn asked_pause(response: &Response<Body>) -> Duration {
    let limit = header_text(response, "ratelimit");
    let reset = limit.split(';').find_map(|part| part.trim().strip_prefix("t="));
    let after = header_text(response, header::RETRY_AFTER.as_str());
    let seconds = after.parse().ok().or_else(|| reset?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Whether a refusal is about the token, not about what was asked for.
pub(super) fn blames_token(response: &Response<Body>) -> bool {
    header_text(response, "x-error-message").starts_with("Invalid credentials")
}

/// What the server says about its refusal, fit to be shown: in a header, else as `error` of a JSON object.
pub(super) fn error_message(response: &mut Response<Body>) -> String {
    let mut message = header_text(response, "x-error-message");
    if message.is_empty() {
        let body = response.body_mut().with_config().limit(MAX_ERROR_BYTES).lossy_utf8(true);
        let text = body.read_to_string().unwrap_or_default();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        message = json["error"].as_str().unwrap_or_default().to_owned();
    }
    shown::line(message.trim_end_matches('.'))
}

/// The text of a header; empty if there is none.
pub(super) fn header_text(response: &Response<Body>, name: &str) -> String {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().trim().to_owned()
}

/// What an error of the connection means, for a request to `url`.
pub(super) fn failure(url: &str, error: &ureq::Error) -> Failure {
    use ureq::Error as E;
    let lasting =
        |message: String| Failure::lasting(PullError::Network { url: url.to_owned(), message });
    match error {
        E::Timeout(_) => Failure::passing(url, "no answer for too long"),
        E::HostNotFound => Failure::passing(url, "no such host, or no network"),
        // A certificate that does not hold comes as such data.
        E::Io(e) if e.kind() == io::ErrorKind::InvalidData => lasting(e.to_string()),
        E::Io(e) => Failure::passing(url, e),
        E::ConnectionFailed | E::Protocol(_) | E::BodyStalled | E::ConnectProxyFailed(_) => {
            Failure::passing(url, error)
        }
        _ => lasting(error.to_string()),
    }
}

fn proxy(url: &str, no_proxy: &str) -> Option<Proxy> {
    let plain = Proxy::new(url).ok()?;
    let mut builder = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(name) = plain.username() {
        builder = builder.username(name);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    let excepted = no_proxy.split(',').map(str::trim).filter(|host| !host.is_empty());
    excepted.fold(builder, ProxyBuilder::no_proxy).build().ok()
}

/// An address without the name and password that may stand in it.
fn without_user(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    match url.rfind('@') {
        Some(at) if at >= start => format!("{}***{}", &url[..start], &url[at..]),
        _ => url.to_owned(),
    }
}

fn origin_of(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    Some((scheme, host, uri.port_u16().unwrap_or(default_port)))
}

/// Where `location` leads from `at`; `None` if it leads nowhere, or from a safe connection to an open one.
fn follow(at: &Uri, location: &str) -> Option<Uri> {
    let (scheme, authority) = (at.scheme_str()?, at.authority()?);
    let is_absolute = location.split(['/', '?', '#']).next().is_some_and(|s| s.ends_with(':'));
    let text = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if is_absolute {
        location.to_owned()
    } else {
        let folder = at.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let next: Uri = text.parse().ok()?;
    let (next_scheme, ..) = origin_of(&next)?;
    (!location.is_empty() && (scheme != "https" || next_scheme == "https")).then_some(next)
}

/// `text` as a part of an address's path: all but letters, digits and `-._~` as `%` and two digits; `/` as it is if
/// `keep_slash`.
pub(super) fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_on_but_never_down() {
        let check = |from: &str, location: &str, expected: Option<&str>| {
            let found = follow(&from.parse().unwrap(), location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{from} {location}");
        };
        check("https://a/b/c", "https://d/e?f", Some("https://d/e?f"));
        check("https://a/b/c", "/d", Some("https://a/d"));
        check("https://a/b/c", "d", Some("https://a/b/d"));
        check("https://a/b/c", "//d/e", Some("https://d/e"));
        check("https://a/b/c", "/d?u=https://e/", Some("https://a/d?u=https://e/"));
        check("https://a/b/c", "d?u=https://e/", Some("https://a/b/d?u=https://e/"));
        check("https://a/b", "http://a/b", None);
        check("http://a/b", "https://a/b", Some("https://a/b"));
        check("https://a/b", "file:///etc/passwd", None);
        check("https://a/b", "", None);
    }

    #[test]
    fn passwords_are_not_told() {
        let check = |url: &str, expected: &str| assert_eq!(without_user(url), expected);
        check("https://u:p@h:1/x", "https://***@h:1/x");
        check("u:p/q@h", "***@h");
        check("https://h/x", "https://h/x");
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let origin = |text: &str| origin_of(&text.parse().unwrap());
        assert_eq!(origin("https://A.b/x"), origin("https://a.b:443"));
        assert_ne!(origin("https://a.b"), origin("http://a.b"));
        assert_ne!(origin("http://a.b:1"), origin("http://a.b:2"));
        assert_eq!(origin("ftp://a.b"), None);
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ü.gguf?x#y", true), "a%20b/%C3%BC.gguf%3Fx%23y");
    }
}
