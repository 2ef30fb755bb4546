//! The whole server as a function from request to response.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::FutureExt;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::access::Access;
use crate::error::{ApiError, Dialect};
use crate::log::{Entry, Log};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::patient::Patience;
use crate::worker::panic_text;
use crate::{ollama, openai, openapi, page, sagemaker, tgi};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// For whoever asks at an address that is none.
const NOTHING_HERE: &str = "there is nothing here; /openapi.json lists all addresses";
/// Longest request id that is taken over from a client.
const MAX_ID_CHARS: usize = 64;

/// What a server is made of.
pub struct Config {
    /// At least one; the first is also called `default`.
    pub models: Vec<Model>,
    /// Who may ask.
    pub access: Access,
    /// Other origins whose pages may ask; `*` for all.
    pub cors: Vec<String>,
    /// Whether only names of this machine are accepted as the server's. Then no page of the web can reach a server that
    /// asks for no key by giving its own name this machine's address.
    pub local_names_only: bool,
    /// Where requests are logged.
    pub log: Log,
    /// How long clients may take.
    pub patience: Patience,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) models: Vec<Arc<Model>>,
    access: Access,
    cors: Vec<String>,
    local_names_only: bool,
    log: Log,
    pub(crate) patience: Patience,
    metrics: Metrics,
    draining: AtomicBool,
    /// What `/v1/responses` keeps.
    pub(crate) responses: openai::Responses,
    ids: Ids,
}

pub(crate) type App = Arc<Shared>;

/// Names that nobody can guess and that are never used twice.
struct Ids {
    random: std::hash::RandomState,
    last: AtomicU64,
}

impl Shared {
    /// Gathers what a server is made of.
    pub(crate) fn new(config: Config) -> App {
        let Config { models, access, cors, local_names_only, log, patience } = config;
        assert!(!models.is_empty(), "a server has at least one model");
        Arc::new(Self {
            models: models.into_iter().map(Arc::new).collect(),
            access,
            cors,
            local_names_only,
            log,
            patience,
            metrics: Metrics::default(),
            draining: AtomicBool::new(false),
            responses: openai::Responses::default(),
            ids: Ids { random: std::hash::RandomState::new(), last: AtomicU64::new(0) },
        })
    }

    /// From now on no work is taken.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The model of this name; the first if none is given.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<&Arc<Model>, ApiError> {
        let first = &self.models[0];
        let Some(name) = name.filter(|name| *name != "default") else { return Ok(first) };
        self.models.iter().find(|model| model.about.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.models.iter().map(|m| m.about.name.as_str()).collect();
            let message = format!("no model {name:?}; there is {}, and default", names.join(", "));
            ApiError::new(StatusCode::NOT_FOUND, message).with_code("model_not_found")
        })
    }

    /// A new random number.
    pub(crate) fn random(&self) -> u64 {
        use std::hash::BuildHasher;
        self.ids.random.hash_one(self.ids.last.fetch_add(1, Ordering::Relaxed))
    }

    /// A new name: `prefix` and 32 hexadecimal digits.
    pub(crate) fn new_id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:016x}", self.random(), self.random())
    }
}

/// The server. [`run`](crate::run) puts it on a port.
pub fn app(config: Config) -> Router {
    router(Shared::new(config))
}

pub(crate) fn router(app: App) -> Router {
    let guarded = Router::new()
        .merge(openai::routes())
        .merge(ollama::routes())
        .merge(tgi::routes())
        .merge(sagemaker::routes())
        .route("/metrics", get(metrics))
        .layer(from_fn_with_state(Arc::clone(&app), guard));
    let open = Router::new()
        .route("/health", get(health))
        .route("/ping", get(health))
        .route("/ready", get(ready))
        .merge(openapi::routes())
        .merge(page::routes());
    let cors = cors(&app.cors);
    let origin = from_fn_with_state(Arc::clone(&app), refuse_foreign_pages);
    Router::new()
        .merge(guarded)
        .merge(open)
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, NOTHING_HERE) })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this address")
        })
        .layer(origin)
        .layer(cors)
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// What every request goes through first: its id, its line in the log, its count, and what becomes of a panic.
async fn around(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = request_id(&app, &request);
    let path = request.uri().path().to_owned();
    let entry = Entry::new(&app.log, &id, request.method().as_str(), &path);
    request.extensions_mut().insert(entry.clone());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            entry.set("panic", panic_text(&*panic));
            ApiError::internal("something went wrong inside the server").into_response()
        }
    };
    let mut response = Dialect::of_path(&path).translate(response);
    let status = response.status().as_u16();
    entry.set("status", status);
    if let Some(error) = response.extensions().get::<ApiError>() {
        entry.set_text("error", || error.message.as_str().into());
    }
    app.metrics.respond(route.as_deref().unwrap_or("none"), status);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The client's own id where it is fit to be written down, else a new one.
fn request_id(app: &Shared, request: &Request) -> String {
    let sent = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_fit = |id: &&str| {
        !id.is_empty()
            && id.len() <= MAX_ID_CHARS
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    sent.filter(is_fit).map_or_else(|| app.new_id("req-"), str::to_owned)
}

/// Keys, rates, and whether the server still takes work.
async fn guard(
    State(app): State<App>,
    Extension(entry): Extension<Entry>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let checked = app.access.client(request.headers(), address).and_then(|client| {
        if request.method() == Method::POST {
            app.access.count(client, Instant::now())?;
            if app.draining.load(Ordering::Relaxed) {
                let message = "the server is about to end and takes no more work";
                return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
            }
        }
        Ok(client)
    });
    match checked {
        Ok(client) => {
            entry.set("client", client.to_string());
            request.extensions_mut().insert(client);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Pages of other origins may ask only where `--cors` lets them; and, where that is so configured, the server answers to
/// names of this machine alone.
async fn refuse_foreign_pages(State(app): State<App>, request: Request, next: Next) -> Response {
    match check_origin(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_origin(app: &Shared, request: &Request) -> Result<(), ApiError> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).unwrap_or("");
    if app.local_names_only && !is_local(host) {
        let message = format!(
            "{host:?} is not a name of this machine, and the server asks for no key: start it with --api-key-file"
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    if let Some(origin) = header(header::ORIGIN) {
        let same =
            origin.split_once("://").is_some_and(|(_, name)| name.eq_ignore_ascii_case(host));
        let allowed = app.cors.iter().any(|allowed| allowed == "*" || allowed == origin);
        if !same && !allowed {
            let message = format!("pages of {origin:?} may not ask; --cors would let them");
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
    }
    Ok(())
}

/// Whether a `Host` header names this machine; none at all is no page's.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    host.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        // A `*` would not let `Authorization` through.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID, header::RETRY_AFTER])
}

/// Whether the process lives and its engines work.
async fn health(State(app): State<App>) -> Response {
    let broken = app.models.iter().find(|model| model.worker.is_broken());
    match broken {
        None => "ok\n".into_response(),
        Some(model) => {
            let message = format!("the model {} cannot answer any more", model.about.name);
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
    }
}

/// Whether work is taken.
async fn ready(State(app): State<App>) -> Response {
    if app.draining.load(Ordering::Relaxed) {
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is about to end")
            .into_response();
    }
    health(State(app)).await
}

async fn metrics(State(app): State<App>) -> Response {
    let models: Vec<_> = app
        .models
        .iter()
        .map(|model| (model.about.name.as_str(), &model.metrics, model.worker.load()))
        .collect();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], app.metrics.render(&models)).into_response()
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
