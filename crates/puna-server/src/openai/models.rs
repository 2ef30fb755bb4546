//! `/v1/models`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::model::Model;

/// A model in OpenAI's form, with what a page wants to show besides.
pub(crate) fn model_json(model: &Model) -> Value {
    let about = &model.about;
    let stated = about.sampling.stated().map(|(name, x)| (name.to_owned(), json!(x)));
    let sampling: serde_json::Map<_, _> = stated.collect();
    json!({
        "id": about.name,
        "object": "model",
        "created": about.created,
        "owned_by": "puna",
        "context_length": about.ctx,
        "max_model_len": about.ctx,
        "embedding_length": about.dim,
        "n_params": about.n_params,
        "size_bytes": about.n_bytes,
        "weight_type": about.weight_type,
        "kv_type": about.kv_type.name(),
        "places": model.n_places,
        "chat": about.is_chat,
        "starters": about.starters,
        "sampling": sampling,
    })
}

/// `GET /v1/models`
pub(super) async fn list(State(app): State<App>) -> Json<Value> {
    let data: Vec<Value> = app.models.iter().map(|model| model_json(model)).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{name}`
pub(super) async fn one(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.model(Some(&name)).map(|model| Json(model_json(model)))
}
