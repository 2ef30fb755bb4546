//! Request bodies: JSON within limits of size and time, with errors that name the field.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ApiError;

/// Most bytes of a request's body.
const MAX_BODY_BYTES: usize = 8 << 20;
/// A body that takes longer is not waited for.
const MAX_BODY_TIME: Duration = Duration::from_secs(30);

/// A body that is a JSON object. Its `Content-Type` is not looked at: half of the clients in the world send another one.
///
/// It is read in two steps, first as JSON and then as the structs whose fields it has: so several structs can share an
/// object, and errors still name the field.
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request.into_body()).await?;
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

/// The whole body.
async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than the limit of {MAX_BODY_BYTES} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    match tokio::time::timeout(MAX_BODY_TIME, to_bytes(body, MAX_BODY_BYTES)).await {
        Err(_) => {
            let secs = MAX_BODY_TIME.as_secs();
            let message = format!("the body did not arrive within {secs} seconds");
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
