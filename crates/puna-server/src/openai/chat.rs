//! `/v1/chat/completions`.

use axum::response::Response;
use puna_tokenizer::chat::{Message, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use super::common::{Common, Head};
use super::logprobs;
use super::tools::{Call, Tools, may_be_call};
use crate::error::ApiError;
use crate::extract::{Asked, blocking};
use crate::service::{Answers, Ask, End, MAX_LOGPROBS, Part};
use crate::streamed::{EVENTS, Step, event, streamed};

/// Fields of a chat alone.
#[derive(Debug, Deserialize)]
struct Chat {
    messages: Vec<WireMessage>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct WireMessage {
    role: WireRole,
    #[serde(default)]
    content: Option<Content>,
    /// Of an assistant that called functions.
    #[serde(default)]
    tool_calls: Option<Vec<Call>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WireRole {
    System,
    Developer,
    User,
    Assistant,
    /// What a function that was called returned; to the model a user says it.
    Tool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of {\"type\": \"text\", \"text\": ...}")]
pub(super) enum Content {
    Text(String),
    Parts(Vec<TextPart>),
}

#[derive(Debug, Deserialize)]
pub(super) struct TextPart {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

impl Content {
    /// As a message; `param` is where it stands.
    pub(super) fn message(&self, role: WireRole, param: &str) -> Result<Message, ApiError> {
        let role = match role {
            WireRole::System | WireRole::Developer => Role::System,
            WireRole::User | WireRole::Tool => Role::User,
            WireRole::Assistant => Role::Assistant,
        };
        let parts = match self {
            Self::Text(text) => return Ok(Message::new(role, text.as_str())),
            Self::Parts(parts) => parts,
        };
        let mut text = String::new();
        for part in parts {
            match (part.kind.as_str(), &part.text) {
                ("text" | "input_text" | "output_text", Some(more)) => text.push_str(more),
                (kind, _) => {
                    let message = format!("expected text, found a part of type {kind:?}");
                    return Err(ApiError::field(format!("{param}.content"), message));
                }
            }
        }
        Ok(Message::new(role, text))
    }
}

/// The messages as the model reads them: what functions returned and what the user says then is one message.
fn dialogue(wire: &[WireMessage]) -> Result<Vec<Message>, ApiError> {
    let mut messages: Vec<Message> = Vec::new();
    let mut after_tool = false;
    for (idx, WireMessage { role, content, tool_calls }) in wire.iter().enumerate() {
        let param = format!("messages[{idx}]");
        let mut message = match content {
            Some(content) => content.message(*role, &param)?,
            None if tool_calls.is_some() => Message::new(Role::Assistant, ""),
            None => {
                return Err(ApiError::field(
                    format!("{param}.content"),
                    "expected text, found none",
                ));
            }
        };
        for call in tool_calls.iter().flatten() {
            message.content.push_str(&call.text());
        }
        match messages.last_mut() {
            Some(last) if after_tool && message.role == Role::User => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
            }
            _ => messages.push(message),
        }
        after_tool = matches!(role, WireRole::Tool);
    }
    Ok(messages)
}

/// What the response needs to know of the request.
struct Shape {
    head: Head,
    wants_logprobs: bool,
    n: usize,
    /// For each answer, how a call would be called; none if there are no tools.
    call_ids: Vec<String>,
}

/// `POST /v1/chat/completions`, and the same of a deployment.
pub(crate) async fn create(asked: Asked) -> Result<Response, ApiError> {
    let (shape, mut answers) = blocking(move || prepare(&asked)).await?;
    if shape.head.wants_stream {
        return Ok(stream(shape, answers));
    }
    let parts = answers.collect().await?;
    Ok(shape.head.whole(parts.iter().map(|part| shape.choice(part)).collect(), &answers))
}

fn prepare(asked: &Asked) -> Result<(Shape, Answers), ApiError> {
    let common: Common = asked.fields()?;
    let chat: Chat = asked.fields()?;
    let model = asked.model(common.model.as_deref())?;
    asked.log_text("messages");
    let mut messages = dialogue(&chat.messages)?;
    if messages.is_empty() {
        return Err(ApiError::field("messages", "expected at least one, found none"));
    }
    let wants_logprobs = chat.logprobs.unwrap_or(false);
    let n_logprobs = match (wants_logprobs, chat.top_logprobs) {
        (_, Some(n)) if n > MAX_LOGPROBS => {
            let message = format!("expected at most {MAX_LOGPROBS}, found {n}");
            return Err(ApiError::field("top_logprobs", message));
        }
        (false, Some(n)) if n > 0 => {
            return Err(ApiError::field("top_logprobs", "needs \"logprobs\": true"));
        }
        (wants, n) => wants.then(|| n.unwrap_or(0)),
    };
    let tools = Tools::read(asked)?;
    let grammar = match &tools {
        None => common.grammar(model, true)?,
        Some(_) if common.has_form() => {
            return Err(ApiError::field("tools", "an answer cannot have another form besides"));
        }
        Some(tools) => {
            tools.introduce(&mut messages);
            Some(model.compile("tools", &tools.form(), true)?)
        }
    };
    let app = &asked.app;
    let n = common.n();
    let object = ["chat.completion", "chat.completion.chunk"];
    let head = Head::new(app, model, &common, "chatcmpl-", object);
    let prompts = vec![model.encode_chat(&messages)?];
    let ask = common.ask(app, model, prompts, grammar)?;
    let answers = model.answer(Ask { n_logprobs, trim_start: true, ..ask }, &asked.entry)?;
    let call_ids = tools.iter().flat_map(|_| (0..n).map(|_| app.new_id("call_"))).collect();
    Ok((Shape { head, wants_logprobs, n, call_ids }, answers))
}

impl Shape {
    fn logprobs(&self, part: &Part) -> Value {
        match self.wants_logprobs {
            true => logprobs::chat(&self.head.model.tokenizer, &part.tokens),
            false => Value::Null,
        }
    }

    /// A whole answer.
    fn choice(&self, part: &Part) -> Value {
        let mut message = json!({ "role": "assistant", "content": part.text, "refusal": null });
        let mut finish = part.end.map(End::openai);
        if let Some(calls) = self.calls(part.index, &part.text) {
            message["content"] = Value::Null;
            message["tool_calls"] = calls;
            finish = Some("tool_calls");
        }
        json!({
            "index": part.index,
            "message": message,
            "logprobs": self.logprobs(part),
            "finish_reason": finish,
        })
    }

    /// The call that the answer `index` is.
    fn calls(&self, index: usize, text: &str) -> Option<Value> {
        Tools::call(text, self.call_ids.get(index)?)
    }

    /// Appends a piece of an answer.
    fn chunk(
        &self,
        index: usize,
        delta: &Value,
        logprobs: &Value,
        finish: Option<&str>,
        out: &mut String,
    ) {
        let choice = json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish });
        self.head.chunk(&json!([choice]), out);
    }
}

fn stream(shape: Shape, answers: Answers) -> Response {
    let mut opening = String::new();
    for index in 0..shape.n {
        let delta = json!({ "role": "assistant", "content": "" });
        shape.chunk(index, &delta, &Value::Null, None, &mut opening);
    }
    // What begins like a call is held back until it is one.
    let mut held = vec![String::new(); if shape.call_ids.is_empty() { 0 } else { shape.n }];
    streamed(EVENTS, opening, answers, move |step, out| match step {
        Step::Part(mut part) => {
            let mut finish = part.end.map(End::openai);
            if let Some(held) = held.get_mut(part.index) {
                held.push_str(&part.text);
                part.text.clear();
                if let Some(calls) = part.end.and_then(|_| shape.calls(part.index, held)) {
                    let delta = json!({ "tool_calls": calls });
                    shape.chunk(part.index, &delta, &shape.logprobs(&part), None, out);
                    finish = Some("tool_calls");
                } else if part.end.is_some() || !may_be_call(held) {
                    part.text = std::mem::take(held);
                }
            }
            if !part.text.is_empty() || (shape.wants_logprobs && !part.tokens.is_empty()) {
                let delta = json!({ "content": part.text });
                shape.chunk(part.index, &delta, &shape.logprobs(&part), None, out);
            }
            if finish.is_some() {
                shape.chunk(part.index, &json!({}), &Value::Null, finish, out);
            }
        }
        Step::Failed(error) => event(out, error.openai()),
        Step::Done(usage, times) => shape.head.done(&usage, times, out),
    })
}
