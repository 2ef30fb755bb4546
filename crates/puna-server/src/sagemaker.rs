//! Amazon SageMaker's protocol: a container answers `/ping` and `/invocations`.

use axum::Json;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;

use crate::app::App;
use crate::error::ApiError;
use crate::extract::Asked;
use crate::{openai, tgi};

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/invocations", post(invoke))
}

/// `POST /invocations`: what the body has says what it is, a chat (`messages`), a text for Hugging Face's containers
/// (`inputs`), a text to embed (`input`), or a completion (`prompt`).
async fn invoke(asked: Asked) -> Result<Response, ApiError> {
    if asked.has("messages") {
        openai::chat(asked).await
    } else if asked.has("inputs") {
        Ok(Json(json!([tgi::whole(asked).await?])).into_response())
    } else if asked.has("input") {
        openai::embeddings(asked).await
    } else if asked.has("prompt") {
        openai::completion(asked).await
    } else {
        Err(ApiError::bad("expected an object with messages, prompt, inputs or input"))
    }
}
