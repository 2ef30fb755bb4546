//! `/v1/embeddings`: the mean of a text's hidden states, of length 1.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::completions::Prompts;
use crate::error::ApiError;
use crate::extract::{Asked, blocking};
use crate::model::Model;
use crate::service::MAX_TEXTS;

#[derive(Debug, Deserialize)]
struct Embeddings {
    #[serde(default)]
    model: Option<String>,
    input: Prompts,
    #[serde(default)]
    encoding_format: Option<Encoding>,
    #[serde(default)]
    dimensions: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    /// The numbers as 32-bit floats, little-endian.
    Base64,
}

/// `POST /v1/embeddings`, and the same of a deployment.
pub(crate) async fn create(asked: Asked) -> Result<Response, ApiError> {
    let request: Embeddings = asked.fields()?;
    let model = asked.model(request.model.as_deref())?.clone();
    asked.log_text("input");
    let n_texts = request.input.len();
    if n_texts == 0 || n_texts > MAX_TEXTS {
        let message = format!("expected 1 to {MAX_TEXTS} texts, found {n_texts}");
        return Err(ApiError::field("input", message));
    }
    if request.dimensions.is_some_and(|n| n != model.about.dim) {
        let message = format!("this model's embeddings have {} numbers", model.about.dim);
        return Err(ApiError::field("dimensions", message));
    }
    let (input, encoder) = (request.input, model.clone());
    let texts = blocking(move || Ok(input.encode(&encoder))).await?;
    let (vectors, n_tokens) = model.embed(texts, &asked.entry).await?;
    let encoding = request.encoding_format.unwrap_or_default();
    // Millions of numbers, perhaps.
    blocking(move || Ok(respond(&model, &vectors, n_tokens, encoding))).await
}

fn respond(model: &Model, vectors: &[Vec<f32>], n_tokens: usize, encoding: Encoding) -> Response {
    let data: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = match encoding {
                Encoding::Float => json!(vector),
                Encoding::Base64 => {
                    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                    json!(STANDARD.encode(bytes))
                }
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    Json(json!({
        "object": "list",
        "data": data,
        "model": model.about.name,
        "usage": { "prompt_tokens": n_tokens, "total_tokens": n_tokens },
    }))
    .into_response()
}
