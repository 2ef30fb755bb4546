//! Text Generation Inference's protocol.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use puna_engine::{Logprobs, Sampling, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::error::{ApiError, Dialect};
use crate::extract::{Asked, blocking};
use crate::grammar::Form;
use crate::model::Model;
use crate::service::{Answers, Ask, End};
use crate::streamed::{EVENTS, Step, event, streamed};

/// The protocol's default of `max_new_tokens`.
const DEFAULT_MAX_TOKENS: usize = 100;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", post(either))
        .route("/generate", post(generate))
        .route("/generate_stream", post(generate_stream))
        .route("/info", get(info))
}

#[derive(Debug, Deserialize)]
struct Request {
    inputs: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    repetition_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    do_sample: Option<bool>,
    seed: Option<u64>,
    max_new_tokens: Option<usize>,
    stop: Option<Vec<String>>,
    return_full_text: Option<bool>,
    details: Option<bool>,
    grammar: Option<GrammarParameter>,
    truncate: Option<usize>,
    best_of: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
enum GrammarParameter {
    Json(Value),
    JsonObject(Value),
    Regex(String),
}

/// What the response needs to know of the request.
pub(crate) struct Shape {
    model: Arc<Model>,
    /// Put before the answer.
    full_text: String,
    details: bool,
    seed: Option<u64>,
}

impl Parameters {
    /// Greedy unless the request says otherwise.
    fn sampling(&self, app: &Shared, model: &Model) -> Sampling {
        let default = Sampling::default().suggested(&model.about.sampling);
        let samples = self.do_sample.unwrap_or(false)
            || self.temperature.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some();
        Sampling {
            temperature: if samples {
                self.temperature.unwrap_or(default.temperature)
            } else {
                0.0
            },
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            seed: self.seed.unwrap_or_else(|| app.random()),
            ..default
        }
    }
}

fn prepare(asked: &Asked) -> Result<(Shape, Answers), ApiError> {
    let request: Request = asked.fields()?;
    asked.log_text("inputs");
    let own = request.parameters.unwrap_or_default();
    let model = asked.model(None)?;
    if own.best_of.is_some_and(|n| n > 1) {
        return Err(ApiError::field(
            "parameters.best_of",
            "expected 1: one answer is made and sent",
        ));
    }
    let prompt = model.encode(&request.inputs);
    if own.truncate.is_some_and(|n| n < prompt.len()) {
        let message = format!("the prompt has {} tokens, and nothing is cut", prompt.len());
        return Err(ApiError::field("parameters.truncate", message));
    }
    let grammar = match &own.grammar {
        None => None,
        Some(GrammarParameter::Json(schema) | GrammarParameter::JsonObject(schema)) => {
            Some(model.compile("parameters.grammar", &Form::Schema(schema.clone()), false)?)
        }
        Some(GrammarParameter::Regex(regex)) => {
            Some(model.compile("parameters.grammar", &Form::Regex(regex.clone()), false)?)
        }
    };
    let sampling = own.sampling(&asked.app, model);
    let seed = (sampling.temperature > 0.0).then_some(sampling.seed);
    let ask = Ask {
        prompts: vec![prompt],
        n: 1,
        max_new_tokens: own.max_new_tokens.or(Some(DEFAULT_MAX_TOKENS)),
        sampling,
        n_logprobs: Some(0),
        stops: own.stop.unwrap_or_default(),
        grammar,
        trim_start: false,
    };
    let full = own.return_full_text.unwrap_or(false);
    let full_text = if full { request.inputs } else { String::new() };
    let answers = model.answer(ask, &asked.entry)?;
    let model = Arc::clone(model);
    Ok((Shape { model, full_text, details: own.details.unwrap_or(false), seed }, answers))
}

fn reason(end: End) -> &'static str {
    match end {
        End::Eos => "eos_token",
        End::StopString => "stop_sequence",
        End::Length => "length",
    }
}

impl Shape {
    fn token(&self, id: u32, logprobs: Option<&Logprobs>) -> Value {
        let piece = self.model.tokenizer.piece(id).map_or("", |piece| piece.text.as_str());
        let logprob = logprobs.map_or(0.0, |logprobs| logprobs.chosen.max(-9999.0));
        json!({ "id": id, "text": piece.replace('▁', " "), "logprob": logprob, "special": false })
    }
}

/// `POST /generate`
async fn generate(asked: Asked) -> Result<Json<Value>, ApiError> {
    whole(asked).await.map(Json)
}

/// An answer in one piece.
pub(crate) async fn whole(asked: Asked) -> Result<Value, ApiError> {
    let (shape, mut answers) = blocking(move || prepare(&asked)).await?;
    let parts = answers.collect().await?;
    let part = &parts[0];
    let mut object = json!({ "generated_text": format!("{}{}", shape.full_text, part.text) });
    if shape.details {
        let tokens: Vec<Value> =
            part.tokens.iter().map(|(id, logprobs)| shape.token(*id, logprobs.as_ref())).collect();
        object["details"] = json!({
            "finish_reason": part.end.map(reason), "generated_tokens": answers.usage().n_generated,
            "seed": shape.seed, "prefill": [], "tokens": tokens,
        });
    }
    Ok(object)
}

/// `POST /`, which Hugging Face's own client uses: `stream` says which of the two it is.
async fn either(asked: Asked) -> Result<Response, ApiError> {
    if asked.raw("stream") == true {
        return generate_stream(asked).await;
    }
    Ok(Json(json!([whole(asked).await?])).into_response())
}

/// `POST /generate_stream`
async fn generate_stream(asked: Asked) -> Result<Response, ApiError> {
    let (shape, answers) = blocking(move || prepare(&asked)).await?;
    let mut text = shape.full_text.clone();
    let (mut index, mut end, mut held) = (0, End::Eos, None::<Value>);
    Ok(streamed(EVENTS, String::new(), answers, move |step, out| match step {
        Step::Part(part) => {
            text.push_str(&part.text);
            end = part.end.unwrap_or(end);
            // The last token's event carries the whole text, so each waits for the next.
            for (id, logprobs) in &part.tokens {
                if let Some(before) = held.take() {
                    event(out, &before);
                }
                index += 1;
                held = Some(json!({
                    "index": index, "token": shape.token(*id, logprobs.as_ref()),
                    "generated_text": null, "details": null,
                }));
            }
        }
        Step::Failed(error) => event(out, Dialect::Tgi.error(&error)),
        Step::Done(usage, _) => event(out, last(&shape, held.take(), &text, end, &usage)),
    })
    .into_response())
}

fn last(shape: &Shape, held: Option<Value>, text: &str, end: End, usage: &Usage) -> Value {
    let none = || {
        let token = json!({ "id": 0, "text": "", "logprob": 0.0, "special": true });
        json!({ "index": 0, "token": token })
    };
    let mut object = held.unwrap_or_else(none);
    object["generated_text"] = text.into();
    object["details"] = json!({
        "finish_reason": reason(end), "generated_tokens": usage.n_generated, "seed": shape.seed,
        "input_length": usage.n_prompt,
    });
    object
}

/// `GET /info`
async fn info(State(app): State<App>) -> Json<Value> {
    let model = &app.models[0];
    let about = &model.about;
    Json(json!({
        "model_id": about.name,
        "model_dtype": about.weight_type,
        "model_device_type": "cpu",
        "max_concurrent_requests": model.n_places,
        "max_best_of": 1,
        "max_stop_sequences": crate::stop::MAX_STOPS,
        "max_input_tokens": about.ctx - 1,
        "max_total_tokens": about.ctx,
        "router": "puna",
        "version": env!("CARGO_PKG_VERSION"),
    }))
}
