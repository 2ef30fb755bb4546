//! Ollama's protocol: lines of JSON, and options of its own.
//!
//! Its defaults are Ollama's, with one exception: a prompt or text that does not fit is refused, never cut.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, SecondsFormat, Utc};
use puna_engine::{Sampling, Usage};
use puna_tokenizer::chat::{Message, Role};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::error::{ApiError, Dialect};
use crate::extract::{Asked, JsonBody, blocking};
use crate::grammar::{Form, Grammar};
use crate::model::Model;
use crate::openai::{OneOrMany, one_or_many};
use crate::service::{Ask, End, MAX_TEXTS, Times};
use crate::streamed::{LINES, Step, line, streamed};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/chat", post(chat))
        .route("/api/generate", post(generate))
        .route("/api/tags", get(tags))
        .route("/api/ps", get(tags))
        .route("/api/show", post(show))
        .route("/api/embed", post(embed))
        .route(
            "/api/version",
            get(|| async { Json(json!({ "version": env!("CARGO_PKG_VERSION") })) }),
        )
}

/// Fields of both requests.
#[derive(Debug, Deserialize)]
struct Common {
    model: Option<String>,
    stream: Option<bool>,
    format: Option<Value>,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<i64>,
    /// -1 and -2: no limit but the context.
    num_predict: Option<i64>,
    stop: Option<OneOrMany>,
}

#[derive(Debug, Deserialize)]
struct Chat {
    #[serde(default)]
    messages: Vec<WireMessage>,
}

#[derive(Debug, Deserialize)]
struct WireMessage {
    role: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    images: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
struct Generate {
    #[serde(default)]
    prompt: String,
    system: Option<String>,
    suffix: Option<String>,
    template: Option<String>,
    #[serde(default)]
    images: Option<Vec<Value>>,
    raw: Option<bool>,
}

impl Options {
    /// With ollama's defaults where neither the request nor the model says anything.
    fn sampling(&self, app: &Shared, model: &Model) -> Sampling {
        let usual = Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            repetition_penalty: 1.1,
            ..Sampling::default()
        };
        let default = usual.suggested(&model.about.sampling);
        Sampling {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repeat_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            logit_bias: Vec::new(),
            seed: self.seed.map_or_else(|| app.random(), |seed| seed as u64),
        }
    }
}

impl Common {
    /// `""`, `"json"` or a schema.
    fn grammar(&self, model: &Model, after_space: bool) -> Result<Option<Grammar>, ApiError> {
        let form = match &self.format {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(name)) if name.is_empty() => return Ok(None),
            Some(Value::String(name)) if name == "json" => Form::any_object(),
            Some(schema @ Value::Object(_)) => Form::Schema(schema.clone()),
            Some(_) => return Err(ApiError::field("format", "expected \"json\" or a schema")),
        };
        model.compile("format", &form, after_space).map(Some)
    }

    fn ask(self, app: &Shared, model: &Model, prompt: Prompt) -> Result<Ask, ApiError> {
        let Prompt { ids, is_chat } = prompt;
        Ok(Ask {
            prompts: vec![ids],
            n: 1,
            max_new_tokens: self.options.num_predict.and_then(|n| usize::try_from(n).ok()),
            sampling: self.options.sampling(app, model),
            n_logprobs: None,
            grammar: self.grammar(model, is_chat)?,
            trim_start: is_chat,
            stops: one_or_many(self.options.stop),
        })
    }
}

/// A model by its name, which may have a tag.
fn find<'a>(app: &'a Shared, name: Option<&str>) -> Result<&'a Arc<Model>, ApiError> {
    app.model(name.map(|name| name.strip_suffix(":latest").unwrap_or(name)))
}

fn refuse_images(images: Option<&Vec<Value>>) -> Result<(), ApiError> {
    match images {
        Some(images) if !images.is_empty() => {
            Err(ApiError::field("images", "Llama 2 reads text alone"))
        }
        _ => Ok(()),
    }
}

/// Where the text of an answer stands.
#[derive(Clone, Copy)]
enum Place {
    Message,
    Response,
}

/// What the response needs to know of the request.
struct Shape {
    place: Place,
    model: String,
    wants_stream: bool,
}

impl Shape {
    fn line(&self, text: &str) -> Value {
        let mut object = json!({ "model": self.model, "created_at": now(), "done": false });
        match self.place {
            Place::Message => object["message"] = json!({ "role": "assistant", "content": text }),
            Place::Response => object["response"] = text.into(),
        }
        object
    }

    fn last(&self, text: &str, end: End, usage: &Usage, times: Times) -> Value {
        let nanos = |secs: f64| Duration::from_secs_f64(secs).as_nanos() as u64;
        let mut object = self.line(text);
        let fields = json!({
            "done": true,
            "done_reason": end.openai(),
            "total_duration": nanos(times.total),
            "load_duration": 0,
            "prompt_eval_count": usage.n_prompt,
            "prompt_eval_duration": nanos(times.first_token),
            "eval_count": usage.n_generated,
            "eval_duration": nanos(times.answer),
        });
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
        }
        object
    }

    /// Nothing was asked: the model is loaded already.
    fn loaded(&self) -> Response {
        let mut object = self.line("");
        object["done"] = true.into();
        object["done_reason"] = "load".into();
        Json(object).into_response()
    }
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// What the model is to go on from.
struct Prompt {
    ids: Vec<u32>,
    /// Its template is part of it.
    is_chat: bool,
}

/// `POST /api/chat`
async fn chat(asked: Asked) -> Result<Response, ApiError> {
    asked.log_text("messages");
    respond(asked, Place::Message, |own: Chat, model| {
        if own.messages.is_empty() {
            return Ok(None);
        }
        let messages: Vec<Message> =
            own.messages.into_iter().map(WireMessage::check).collect::<Result<_, _>>()?;
        Ok(Some(Prompt { ids: model.encode_chat(&messages)?, is_chat: true }))
    })
    .await
}

/// `POST /api/generate`
async fn generate(asked: Asked) -> Result<Response, ApiError> {
    asked.log_text("prompt");
    respond(asked, Place::Response, |own: Generate, model| {
        if own.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::field("suffix", "Llama 2 cannot fill in; only the end is open"));
        }
        if own.template.is_some_and(|template| !template.is_empty()) {
            let message = "the model's own is used, or none with \"raw\"";
            return Err(ApiError::field("template", message));
        }
        refuse_images(own.images.as_ref())?;
        if own.prompt.is_empty() {
            return Ok(None);
        }
        if own.raw.unwrap_or(false) {
            return Ok(Some(Prompt { ids: model.encode(&own.prompt), is_chat: false }));
        }
        let system = own.system.map(|text| Message::new(Role::System, text));
        let messages: Vec<Message> =
            system.into_iter().chain([Message::new(Role::User, own.prompt)]).collect();
        Ok(Some(Prompt { ids: model.encode_chat(&messages)?, is_chat: true }))
    })
    .await
}

/// Answers the prompt that `read` finds in the fields of one of the two requests; without one, says that the model is
/// loaded.
async fn respond<T: DeserializeOwned>(
    asked: Asked,
    place: Place,
    read: impl FnOnce(T, &Model) -> Result<Option<Prompt>, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let prepared = blocking(move || {
        let common: Common = asked.fields()?;
        let model = find(&asked.app, common.model.as_deref())?;
        let shape = Shape::new(place, model, &common);
        let Some(prompt) = read(asked.fields()?, model)? else { return Ok((shape, None)) };
        let ask = common.ask(&asked.app, model, prompt)?;
        Ok((shape, Some(model.answer(ask, &asked.entry)?)))
    });
    let (shape, answers) = prepared.await?;
    let Some(mut answers) = answers else { return Ok(shape.loaded()) };
    if !shape.wants_stream {
        let parts = answers.collect().await?;
        let (text, end) = (&parts[0].text, parts[0].end.unwrap_or(End::Eos));
        return Ok(Json(shape.last(text, end, &answers.usage(), answers.times())).into_response());
    }
    let mut ended = End::Eos;
    Ok(streamed(LINES, String::new(), answers, move |step, out| match step {
        Step::Part(part) => {
            ended = part.end.unwrap_or(ended);
            if !part.text.is_empty() {
                line(out, &shape.line(&part.text));
            }
        }
        Step::Failed(error) => line(out, &Dialect::Ollama.error(&error)),
        Step::Done(usage, times) => line(out, &shape.last("", ended, &usage, times)),
    }))
}

impl WireMessage {
    fn check(self) -> Result<Message, ApiError> {
        refuse_images(self.images.as_ref())?;
        let role = match self.role.as_str() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let message = format!("expected role system, user or assistant, found {other:?}");
                return Err(ApiError::field("messages", message));
            }
        };
        Ok(Message::new(role, self.content))
    }
}

impl Shape {
    fn new(place: Place, model: &Model, common: &Common) -> Self {
        let wants_stream = common.stream.unwrap_or(true);
        Self { place, model: model.about.name.clone(), wants_stream }
    }
}

fn details(model: &Model) -> Value {
    let about = &model.about;
    let billions = about.n_params as f64 / 1e9;
    let size =
        if billions >= 0.1 { format!("{billions:.1}B") } else { format!("{:.2}M", billions * 1e3) };
    json!({
        "parent_model": "", "format": "puna", "family": "llama", "families": ["llama"],
        "parameter_size": size, "quantization_level": about.weight_type.to_uppercase(),
    })
}

fn modified_at(model: &Model) -> String {
    let time = DateTime::from_timestamp(model.about.created as i64, 0).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `GET /api/tags`, and `/api/ps`: what is there is loaded.
async fn tags(State(app): State<App>) -> Json<Value> {
    let model = |model: &Arc<Model>| {
        let about = &model.about;
        json!({
            "name": about.name, "model": about.name, "modified_at": modified_at(model),
            "size": about.n_bytes, "digest": "", "details": details(model),
            "size_vram": 0, "context_length": about.ctx,
        })
    };
    Json(json!({ "models": app.models.iter().map(model).collect::<Vec<_>>() }))
}

#[derive(Debug, Deserialize)]
struct Show {
    model: Option<String>,
    name: Option<String>,
}

/// `POST /api/show`
async fn show(State(app): State<App>, body: JsonBody) -> Result<Json<Value>, ApiError> {
    let request: Show = body.fields()?;
    let model = find(&app, request.model.or(request.name).as_deref())?;
    let about = &model.about;
    Ok(Json(json!({
        "modelfile": "", "parameters": "", "template": "",
        "modified_at": modified_at(model),
        "details": details(model),
        "capabilities": ["completion", "embedding"],
        "model_info": {
            "general.architecture": "llama",
            "general.parameter_count": about.n_params,
            "llama.context_length": about.ctx,
            "llama.embedding_length": about.dim,
        },
    })))
}

#[derive(Debug, Deserialize)]
struct Embed {
    model: Option<String>,
    input: OneOrMany,
    dimensions: Option<usize>,
}

/// `POST /api/embed`
async fn embed(asked: Asked) -> Result<Response, ApiError> {
    let request: Embed = asked.fields()?;
    let model = find(&asked.app, request.model.as_deref())?.clone();
    asked.log_text("input");
    let texts = one_or_many(Some(request.input));
    if texts.len() > MAX_TEXTS {
        let message = format!("expected at most {MAX_TEXTS} texts, found {}", texts.len());
        return Err(ApiError::field("input", message));
    }
    if request.dimensions.is_some_and(|n| n != 0 && n != model.about.dim) {
        let message = format!("this model's embeddings have {} numbers", model.about.dim);
        return Err(ApiError::field("dimensions", message));
    }
    let encoder = model.clone();
    let ids = blocking(move || Ok(texts.iter().map(|text| encoder.encode(text)).collect())).await?;
    let (vectors, n_tokens) = model.embed(ids, &asked.entry).await?;
    let respond = move || {
        let object = json!({
            "model": model.about.name,
            "embeddings": vectors,
            "total_duration": asked.entry.started().elapsed().as_nanos() as u64,
            "load_duration": 0,
            "prompt_eval_count": n_tokens,
        });
        Ok(Json(object).into_response())
    };
    blocking(respond).await
}
