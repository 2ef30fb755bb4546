//! Amazon SageMaker's protocol: a container answers `/ping` and `/invocations`.

use axum::Json;
use axum::Router;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;

use crate::app::App;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::log::Entry;
use crate::{openai, tgi};

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/invocations", post(invoke))
}

/// `POST /invocations`: what the body has says what it is, a chat (`messages`), a text for Hugging Face's containers
/// (`inputs`), a text to embed (`input`), or a completion (`prompt`).
async fn invoke(
    State(app): State<App>,
    Extension(entry): Extension<Entry>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let has = |name: &str| body.0.get(name).is_some();
    if has("messages") {
        openai::chat(app, entry, body).await
    } else if has("inputs") {
        Ok(Json(json!([tgi::whole(app, entry, body).await?])).into_response())
    } else if has("input") {
        openai::embeddings(app, entry, body).await.map(IntoResponse::into_response)
    } else if has("prompt") {
        openai::completion(app, entry, body).await
    } else {
        Err(ApiError::bad("expected an object with messages, prompt, inputs or input"))
    }
}
