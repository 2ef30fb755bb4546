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

use crate::app::App;

pub(crate) use chat::create as chat;
pub(crate) use common::{OneOrMany, one_or_many};
pub(crate) use completions::create as completion;
pub(crate) use embeddings::create as embeddings;
pub(crate) use stored::Responses;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/{id}", get(responses::retrieve).delete(responses::delete))
        .route("/openai/deployments/{name}/chat/completions", post(chat))
        .route("/openai/deployments/{name}/completions", post(completion))
        .route("/openai/deployments/{name}/embeddings", post(embeddings))
}
