//! Request bodies: JSON within limits of size and time, with errors that name the field.

use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Path, Request};
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::access::Client;
use crate::app::App;
use crate::error::ApiError;
use crate::log::Entry;
use crate::model::Model;

/// Most bytes of a request's body.
const MAX_BODY_BYTES: usize = 8 << 20;

/// A request for work, as handlers take it.
pub(crate) struct Asked {
    pub(crate) app: App,
    pub(crate) entry: Entry,
    pub(crate) client: Client,
    /// The model that a path of Azure's names.
    deployment: Option<String>,
    body: JsonBody,
}

/// What such a path holds, and others do not.
#[derive(Deserialize)]
struct Deployment {
    name: Option<String>,
}

impl FromRequest<App> for Asked {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, ApiError> {
        let path = request.extract_parts::<Path<Deployment>>().await;
        let Path(path) = path.map_err(|error| ApiError::bad(error.body_text()))?;
        let extensions = request.extensions();
        let (Some(entry), Some(&client)) = (extensions.get(), extensions.get()) else {
            return Err(ApiError::internal("an address without its guards"));
        };
        Ok(Self {
            app: Arc::clone(app),
            entry: Entry::clone(entry),
            client,
            deployment: path.name,
            body: JsonBody::from_request(request, app).await?,
        })
    }
}

impl Asked {
    /// Those of the body's fields that `T` has.
    pub(crate) fn fields<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        self.body.fields()
    }

    /// A field of the body as it was sent; null where it was not.
    pub(crate) fn raw(&self, field: &str) -> &Value {
        &self.body.0[field]
    }

    /// Whether the body has such a field.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.body.0.get(field).is_some()
    }

    /// The model that the path names, else that of the body, else the first.
    pub(crate) fn model(&self, of_body: Option<&str>) -> Result<&Arc<Model>, ApiError> {
        self.app.model(self.deployment.as_deref().or(of_body))
    }

    /// Adds a field of the body to the log, if that may have text.
    pub(crate) fn log_text(&self, field: &str) {
        self.entry.set_text(field, || self.raw(field).clone());
    }
}

/// A body that is a JSON object. Its `Content-Type` is not looked at: half of the clients in the world send another one.
///
/// It is read in two steps, first as JSON and then as the structs whose fields it has: so several structs can share an
/// object, and errors still name the field.
pub(crate) struct JsonBody(pub(crate) Value);

impl FromRequest<App> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), app.patience.body).await?;
        // The parser refuses what is nested more than 128 levels deep.
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))?;
        if !value.is_object() {
            return Err(ApiError::bad("the body is JSON, but not an object"));
        }
        Ok(Self(value))
    }
}

impl JsonBody {
    /// Those of its fields that `T` has.
    pub(crate) fn fields<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_path_to_error::deserialize(&self.0).map_err(|error| {
            let (path, message) = (error.path().to_string(), error.inner().to_string());
            if path == "." { ApiError::bad(message) } else { ApiError::field(path, message) }
        })
    }
}

/// Runs work that takes a processor for longer than a moment where it holds up no other request.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // The panic goes on to whoever catches those of handlers.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ApiError::internal("the server is about to end")),
        },
    }
}

/// The whole body, if it comes in time.
async fn read(body: Body, max_time: Duration) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than the limit of {MAX_BODY_BYTES} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    match tokio::time::timeout(max_time, to_bytes(body, MAX_BODY_BYTES)).await {
        Err(_) => {
            let message = format!("the body did not arrive within {max_time:?}");
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
        }
        Ok(Err(error)) => {
            // `axum` hides which of the two it was in the error's causes.
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                if error.to_string() == "length limit exceeded" {
                    return Err(too_large());
                }
                cause = error.source();
            }
            Err(ApiError::bad(format!("the body cannot be read: {error}")))
        }
        Ok(Ok(bytes)) => Ok(bytes.to_vec()),
    }
}
