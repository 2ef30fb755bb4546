//! `/v1/responses`: create, stream, retrieve, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use puna_engine::{Sampling, Usage};
use puna_tokenizer::chat::{Message, Role};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::chat::{Content, WireRole};
use super::stored::Stored;
use crate::access::Client;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{Asked, blocking};
use crate::grammar::Form;
use crate::model::Model;
use crate::service::{Answers, Ask, End};
use crate::streamed::{EVENTS, Step, streamed};

#[derive(Debug, Deserialize)]
struct Create {
    model: Option<String>,
    input: Input,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    store: Option<bool>,
    stream: Option<bool>,
    max_output_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    text: Option<Text>,
    tools: Option<Vec<Value>>,
    truncation: Option<String>,
    metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of messages")]
enum Input {
    Text(String),
    Items(Vec<Item>),
}

#[derive(Debug, Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: WireRole,
    content: Content,
}

#[derive(Debug, Deserialize)]
struct Text {
    format: Option<Format>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format {
    Text,
    JsonObject,
    JsonSchema { schema: Value },
}

/// What the response needs to know of the request.
struct Shape {
    app: App,
    client: Client,
    id: String,
    message_id: String,
    /// Without output.
    object: Value,
    /// Of the dialogue up to the answer.
    messages: Vec<Message>,
    is_kept: bool,
    wants_stream: bool,
}

/// `POST /v1/responses`
pub(super) async fn create(asked: Asked) -> Result<Response, ApiError> {
    let (shape, mut answers) = blocking(move || prepare(&asked)).await?;
    if shape.wants_stream {
        return Ok(stream(shape, answers));
    }
    let parts = answers.collect().await?;
    let end = parts[0].end.unwrap_or(End::Eos);
    let object = shape.finish(&parts[0].text, end, &answers.usage());
    Ok(Json(object).into_response())
}

/// `GET /v1/responses/{id}`
pub(super) async fn retrieve(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let stored = app.responses.find(&id, client);
    stored.map(|stored| Json(stored.object)).ok_or_else(|| missing(&id))
}

/// `DELETE /v1/responses/{id}`
pub(super) async fn delete(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    match app.responses.forget(&id, client) {
        true => Ok(Json(json!({ "id": id, "object": "response", "deleted": true }))),
        false => Err(missing(&id)),
    }
}

fn missing(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("no response {id:?} is kept"))
}

fn prepare(asked: &Asked) -> Result<(Shape, Answers), ApiError> {
    let request: Create = asked.fields()?;
    let (app, client) = (&asked.app, asked.client);
    asked.log_text("input");
    if request.tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
        return Err(ApiError::field("tools", "this address knows none; /v1/chat/completions does"));
    }
    if request.truncation.as_deref() == Some("auto") {
        return Err(ApiError::field("truncation", "expected \"disabled\": nothing is cut"));
    }
    let model = asked.model(request.model.as_deref())?;
    let mut messages = match &request.previous_response_id {
        None => Vec::new(),
        Some(id) => app.responses.find(id, client).ok_or_else(|| missing(id))?.messages,
    };
    match &request.input {
        Input::Text(text) => messages.push(Message::new(Role::User, text.as_str())),
        Input::Items(items) => {
            for (idx, item) in items.iter().enumerate() {
                messages.push(item.check(idx)?);
            }
        }
    }
    let instructions = request.instructions.as_ref();
    let system = instructions.map(|text| Message::new(Role::System, text.as_str()));
    let dialogue: Vec<Message> = system.into_iter().chain(messages.iter().cloned()).collect();
    let form = match request.text.as_ref().and_then(|text| text.format.as_ref()) {
        None | Some(Format::Text) => None,
        Some(Format::JsonObject) => Some(Form::any_object()),
        Some(Format::JsonSchema { schema }) => Some(Form::Schema(schema.clone())),
    };
    let default = Sampling::default().suggested(&model.about.sampling);
    let ask = Ask {
        prompts: vec![model.encode_chat(&dialogue)?],
        n: 1,
        max_new_tokens: request.max_output_tokens,
        sampling: Sampling {
            temperature: request.temperature.unwrap_or(default.temperature),
            top_p: request.top_p.unwrap_or(default.top_p),
            seed: app.random(),
            ..default
        },
        n_logprobs: None,
        stops: Vec::new(),
        grammar: form.map(|form| model.compile("text", &form, true)).transpose()?,
        trim_start: true,
    };
    let id = app.new_id("resp_");
    let object = request.object(model, &id, asked);
    let answers = model.answer(ask, &asked.entry)?;
    let shape = Shape {
        app: Arc::clone(app),
        client,
        id,
        message_id: app.new_id("msg_"),
        object,
        messages,
        is_kept: request.store.unwrap_or(true),
        wants_stream: request.stream.unwrap_or(false),
    };
    Ok((shape, answers))
}

impl Item {
    fn check(&self, idx: usize) -> Result<Message, ApiError> {
        let param = format!("input[{idx}]");
        match self.kind.as_deref() {
            None | Some("message") => self.content.message(self.role, &param),
            Some(kind) => Err(ApiError::field(
                param,
                format!("expected a message, found an item of type {kind:?}"),
            )),
        }
    }
}

impl Create {
    fn object(&self, model: &Model, id: &str, asked: &Asked) -> Value {
        let created = chrono::Utc::now().timestamp();
        let format = asked.raw("text").get("format").cloned();
        let default = Sampling::default().suggested(&model.about.sampling);
        json!({
            "id": id, "object": "response", "created_at": created, "status": "in_progress",
            "model": model.about.name, "output": [], "error": null, "incomplete_details": null,
            "instructions": self.instructions, "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata.clone().unwrap_or_default(), "parallel_tool_calls": false,
            "previous_response_id": self.previous_response_id, "store": self.store.unwrap_or(true),
            "temperature": self.temperature.unwrap_or(default.temperature),
            "top_p": self.top_p.unwrap_or(default.top_p),
            "text": { "format": format.unwrap_or_else(|| json!({ "type": "text" })) },
            "tool_choice": "none", "tools": [], "truncation": "disabled", "usage": null,
        })
    }
}

impl Shape {
    fn message(&self, text: &str, status: &str) -> Value {
        json!({
            "id": self.message_id, "type": "message", "status": status, "role": "assistant",
            "content": [part(text)],
        })
    }

    /// The whole response, which is kept if it is to be.
    fn finish(&self, text: &str, end: End, usage: &Usage) -> Value {
        let status = if end == End::Length { "incomplete" } else { "completed" };
        let mut object = self.object.clone();
        object["status"] = status.into();
        if end == End::Length {
            object["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        object["output"] = json!([self.message(text, status)]);
        object["usage"] = json!({
            "input_tokens": usage.n_prompt,
            "input_tokens_details": { "cached_tokens": usage.n_cached },
            "output_tokens": usage.n_generated,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": usage.n_prompt + usage.n_generated,
        });
        if self.is_kept {
            let mut messages = self.messages.clone();
            messages.push(Message::new(Role::Assistant, text));
            let stored = Stored { object: object.clone(), messages };
            self.app.responses.keep(&self.id, self.client, stored);
        }
        object
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// Numbers events.
struct Events(u64);

impl Events {
    fn push(&mut self, out: &mut String, kind: &str, mut data: Value) {
        data["type"] = kind.into();
        data["sequence_number"] = self.0.into();
        self.0 += 1;
        out.push_str(&format!("event: {kind}\ndata: {data}\n\n"));
    }
}

fn stream(shape: Shape, answers: Answers) -> Response {
    let mut events = Events(0);
    let mut opening = String::new();
    let item = || json!({ "item_id": shape.message_id, "output_index": 0, "content_index": 0 });
    let empty = json!({
        "id": shape.message_id, "type": "message", "status": "in_progress", "role": "assistant", "content": [],
    });
    events.push(&mut opening, "response.created", json!({ "response": shape.object }));
    events.push(&mut opening, "response.in_progress", json!({ "response": shape.object }));
    let added = json!({ "output_index": 0, "item": empty });
    events.push(&mut opening, "response.output_item.added", added);
    let mut added_part = item();
    added_part["part"] = part("");
    events.push(&mut opening, "response.content_part.added", added_part);
    let (mut text, mut end) = (String::new(), End::Eos);
    streamed(EVENTS, opening, answers, move |step, out| {
        let item = || json!({ "item_id": shape.message_id, "output_index": 0, "content_index": 0 });
        match step {
            Step::Part(more) => {
                end = more.end.unwrap_or(end);
                if !more.text.is_empty() {
                    text.push_str(&more.text);
                    let mut data = item();
                    data["delta"] = more.text.into();
                    data["logprobs"] = json!([]);
                    events.push(out, "response.output_text.delta", data);
                }
            }
            Step::Failed(error) => {
                let mut object = shape.object.clone();
                object["status"] = "failed".into();
                object["error"] = json!({ "code": "server_error", "message": error.message });
                events.push(out, "response.failed", json!({ "response": object }));
            }
            Step::Done(usage, _) => {
                let object = shape.finish(&text, end, &usage);
                let mut data = item();
                data["text"] = text.as_str().into();
                data["logprobs"] = json!([]);
                events.push(out, "response.output_text.done", data);
                let mut data = item();
                data["part"] = part(&text);
                events.push(out, "response.content_part.done", data);
                let data = json!({ "output_index": 0, "item": object["output"][0] });
                events.push(out, "response.output_item.done", data);
                let kind = match end {
                    End::Length => "response.incomplete",
                    End::Eos | End::StopString => "response.completed",
                };
                events.push(out, kind, json!({ "response": object }));
            }
        }
    })
}
