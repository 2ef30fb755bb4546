//! Fetching models from a hub that speaks the protocol of huggingface.co.
//!
//! A repository is described by `GET /api/models/ORG/NAME/revision/REVISION?blobs=true`: its commit, and each file's
//! size and checksum. A file is `GET /ORG/NAME/resolve/COMMIT/FILE`, usually redirected to another server, whole or in
//! ranges. Errors carry `X-Error-Code` and `X-Error-Message`.

mod error;
mod fetch;
mod http;
mod listing;
mod papers;
mod reference;
mod select;

use std::time::Duration;

use ureq::http::StatusCode;
use ureq::{Body, http::Response};

use crate::licence::Acceptance;
use crate::store::{Manifest, ManifestFile, ModelName, Store};
use crate::{HubError, disk};

pub use error::PullError;
pub use listing::{Checksum, Listing, RemoteFile, StatedLicence};
pub use reference::Reference;
pub use select::{Choice, Selection, choices, select};

use http::{Client, Failure};

/// Where models come from when nothing else is said.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Largest description of a repository that is read.
const MAX_LISTING_BYTES: u64 = 1 << 26;

/// Requests for the same bytes, without any of them arriving, before giving up.
const MAX_ATTEMPTS: u32 = 5;

/// How to reach a hub. Nothing here is read from the environment.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The hub's address.
    pub endpoint: String,
    /// The user's token.
    pub token: Option<String>,
    /// Whether no request may be made.
    pub offline: bool,
    /// The address of a proxy.
    pub proxy: Option<String>,
    /// Hosts to reach without it, separated by commas.
    pub no_proxy: String,
    /// How long a connection may bring nothing.
    pub stall: Duration,
    /// The pause before the second attempt; it doubles with each.
    pub pause: Duration,
    /// Requests at the same time.
    pub n_connections: usize,
    /// Bytes of one request; a file of more is fetched in several at the same time.
    pub range_bytes: u64,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            token: None,
            offline: false,
            proxy: None,
            no_proxy: String::new(),
            stall: Duration::from_secs(30),
            pause: Duration::from_millis(500),
            n_connections: 6,
            range_bytes: 16 << 20,
        }
    }
}

/// What happens during a pull.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many bytes have arrived.
    Fetched(u64),
    /// So many bytes were there already.
    Present(u64),
    /// So many bytes that had arrived are fetched again, since the server cannot go on in the middle.
    Lost(u64),
    /// The checksum of this file is being computed.
    Checking(&'a str),
    /// A request failed, and will be made again after a pause.
    Retrying(&'a PullError, Duration),
    /// Another process is fetching this file.
    Waiting(&'a str),
    /// Nothing new: a moment to stop.
    Idle,
}

/// Told what happens, from several threads; says whether to go on.
pub type Watch<'a> = &'a (dyn Fn(Event<'_>) -> bool + Sync);

/// A hub.
pub struct Hub {
    client: Client,
    options: HubOptions,
}

impl Hub {
    /// The hub that `options` describe. Nothing is sent yet.
    ///
    /// # Errors
    /// An address or token that cannot be used.
    pub fn new(options: HubOptions) -> Result<Self, HubError> {
        Ok(Self { client: Client::new(&options)?, options })
    }

    /// What the repository has.
    ///
    /// # Errors
    /// No network, no such repository or revision, no access; [`HubError::Stopped`].
    pub fn list(&self, reference: &Reference, watch: Watch<'_>) -> Result<Listing, HubError> {
        let repository = reference.repository();
        if self.options.offline {
            return Err(PullError::Offline { repository }.into());
        }
        let (endpoint, revision) =
            (self.client.endpoint(), http::encode(&reference.revision, false));
        let url = format!("{endpoint}/api/models/{repository}/revision/{revision}?blobs=true");
        let bytes = self.with_retries(watch, || {
            let response = self.client.get(&url, None)?;
            let mut response = self.successful(reference, &url, response)?;
            let body = response.body_mut().with_config().limit(MAX_LISTING_BYTES);
            body.read_to_vec().map_err(|e| http::failure(&url, &e))
        })?;
        Ok(Listing::parse(&bytes).map_err(|message| PullError::Listing { url, message })?)
    }

    /// Where a person finds a file of the repository.
    pub fn page_of(&self, reference: &Reference, file: &str) -> String {
        let (endpoint, repository) = (self.client.endpoint(), reference.repository());
        let (revision, file) = (http::encode(&reference.revision, false), http::encode(file, true));
        format!("{endpoint}/{repository}/blob/{revision}/{file}")
    }

    /// Fetches the files into the store, those that are not there yet.
    ///
    /// # Errors
    /// No room, no network, no access, wrong sizes or checksums; [`HubError::Stopped`]. What has arrived is kept, and
    /// fetching goes on from there the next time.
    pub fn fetch(
        &self,
        store: &Store,
        reference: &Reference,
        listing: &Listing,
        files: &[RemoteFile],
        watch: Watch<'_>,
    ) -> Result<Vec<ManifestFile>, HubError> {
        // Where there are no links, the model's folder has copies.
        let n_copies = u64::from(!store.has_links()?);
        let room = |f: &RemoteFile| f.size.saturating_mul(n_copies);
        let needed = files.iter().map(|f| fetch::n_missing(store, f).saturating_add(room(f)));
        disk::check_free(store.root(), needed.fold(0, u64::saturating_add))?;
        let fetched = files.iter().map(|file| {
            let url = self.url_of(reference, listing, file);
            let sha256 = fetch::file(self, store, reference, file, &url, watch)?;
            Ok(ManifestFile { path: file.path.clone(), size: file.size, sha256 })
        });
        fetched.collect()
    }

    /// Fetches a model and enters it into the store.
    ///
    /// # Errors
    /// As [`Hub::fetch`].
    pub fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        listing: &Listing,
        selection: &Selection,
        licence: Acceptance,
        watch: Watch<'_>,
    ) -> Result<Manifest, HubError> {
        loop {
            let files = self.fetch(store, reference, listing, &selection.files, watch)?;
            let model = model_name(reference, selection);
            let Selection { form, open, .. } = selection.clone();
            let manifest =
                Manifest::new(model, listing.commit.clone(), form, licence.clone(), open, files);
            // Between the last file and this moment another process may have removed a file again.
            if store.commit(&manifest)?.is_empty() {
                return Ok(manifest);
            }
        }
    }

    fn url_of(&self, reference: &Reference, listing: &Listing, file: &RemoteFile) -> String {
        let (endpoint, path) = (self.client.endpoint(), http::encode(&file.path, true));
        format!("{endpoint}/{}/resolve/{}/{path}", reference.repository(), listing.commit)
    }

    /// The response, or what its status means for this repository.
    fn successful(
        &self,
        reference: &Reference,
        url: &str,
        mut response: Response<Body>,
    ) -> Result<Response<Body>, Failure> {
        if response.status().is_success() {
            return Ok(response);
        }
        let repository = reference.repository();
        let (endpoint, has_token) = (self.client.endpoint().to_owned(), self.client.has_token());
        let code = http::header_text(&response, "x-error-code");
        let error = match (code.as_str(), response.status()) {
            ("GatedRepo", _) | ("", StatusCode::FORBIDDEN) => {
                let page = format!("{endpoint}/{repository}");
                let message = http::error_message(&mut response);
                PullError::Gated { repository, page, message, has_token }
            }
            ("RevisionNotFound", _) => {
                PullError::NoRevision { repository, revision: reference.revision.clone() }
            }
            ("", StatusCode::UNAUTHORIZED) if has_token && http::blames_token(&response) => {
                PullError::Token { endpoint }
            }
            // The hub answers 401 for repositories that are not there as for private ones.
            ("RepoNotFound", _) | ("", StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) => {
                PullError::NoRepository { repository, endpoint, has_token }
            }
            _ => return Err(http::status_failure(url, response)),
        };
        Err(Failure::lasting(error))
    }

    /// Does `work` until it succeeds, fails for good, or has failed [`MAX_ATTEMPTS`] times.
    fn with_retries<T>(
        &self,
        watch: Watch<'_>,
        mut work: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut attempt = 0;
        loop {
            match work() {
                Ok(value) => return Ok(value),
                Err(failure) => self.pause(failure, &mut attempt, watch)?,
            }
        }
    }

    /// Waits before another attempt, or gives up.
    fn pause(&self, failure: Failure, attempt: &mut u32, watch: Watch<'_>) -> Result<(), HubError> {
        *attempt += 1;
        let Some(asked) = failure.retry.filter(|_| *attempt < MAX_ATTEMPTS) else {
            return Err(failure.error.into());
        };
        let mut left = (self.options.pause * 2u32.pow(*attempt - 1)).max(asked);
        if !watch(Event::Retrying(&failure.error, left)) {
            return Err(HubError::Stopped);
        }
        while !left.is_zero() {
            let step = left.min(Duration::from_millis(50));
            std::thread::sleep(step);
            left -= step;
            if !watch(Event::Idle) {
                return Err(HubError::Stopped);
            }
        }
        Ok(())
    }
}

/// What the model is called once it is pulled.
pub fn model_name(reference: &Reference, selection: &Selection) -> ModelName {
    ModelName {
        org: reference.org.clone(),
        name: reference.name.clone(),
        revision: reference.revision.clone(),
        tag: selection.tag.clone(),
    }
}
