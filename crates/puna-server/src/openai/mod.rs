//! OpenAI's protocol, and the path form in which Azure has it.

mod chat;
mod common;
mod completions;
mod embeddings;
mod logprobs;
mod models;
mod responses;
mod stored;
mod tools;

use axum::Router;
use axum::routing::{get, post};

use axum::Json;
use axum::response::Response;
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::log::Entry;

pub(crate) use stored::Responses;

pub(crate) use common::{OneOrMany, one_or_many};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/embeddings", post(embeddings::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/{id}", get(responses::retrieve).delete(responses::delete))
        .route("/openai/deployments/{name}/chat/completions", post(chat::create_in_deployment))
        .route("/openai/deployments/{name}/completions", post(completions::create_in_deployment))
        .route("/openai/deployments/{name}/embeddings", post(embeddings::create_in_deployment))
}

/// What `POST /v1/chat/completions` does.
pub(crate) async fn chat(app: App, entry: Entry, body: JsonBody) -> Result<Response, ApiError> {
    chat::respond(app, entry, body, None).await
}

/// What `POST /v1/completions` does.
pub(crate) async fn completion(
    app: App,
    entry: Entry,
    body: JsonBody,
) -> Result<Response, ApiError> {
    completions::respond(app, entry, body, None).await
}

/// What `POST /v1/embeddings` does.
pub(crate) async fn embeddings(
    app: App,
    entry: Entry,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    embeddings::respond(app, entry, body, None).await
}
