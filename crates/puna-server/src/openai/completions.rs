//! `/v1/completions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::common::{Common, Head, one_or_many, timings_json, usage_json};
use super::logprobs;
use crate::app::App;
use crate::error::ApiError;
use crate::extract::{JsonBody, blocking};
use crate::log::Entry;
use crate::model::Model;
use crate::service::{Answers, Ask, End, MAX_LOGPROBS, Part};
use crate::streamed::{EVENTS, Step, event, streamed};

/// OpenAI's default of `max_tokens`.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Fields of a completion alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Completion {
    prompt: Option<Prompts>,
    logprobs: Option<usize>,
    echo: Option<bool>,
    suffix: Option<String>,
    best_of: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string, a list of token ids, or a list of either")]
pub(crate) enum Prompts {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<u32>>),
}

impl Prompts {
    /// The ids of each.
    pub(crate) fn encode(&self, model: &Model) -> Vec<Vec<u32>> {
        match self {
            Self::Text(text) => vec![model.encode(text)],
            Self::Texts(texts) => texts.iter().map(|text| model.encode(text)).collect(),
            Self::Ids(ids) => vec![ids.clone()],
            Self::IdLists(lists) => lists.clone(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Ids(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::IdLists(lists) => lists.len(),
        }
    }
}

/// What the response needs to know of the request.
struct Shape {
    head: Head,
    model: Arc<Model>,
    wants_stream: bool,
    wants_usage: bool,
    wants_logprobs: bool,
    /// What comes before each answer, where the request asked for it.
    echoes: Vec<String>,
}

/// `POST /v1/completions`
pub(super) async fn create(
    State(app): State<App>,
    Extension(entry): Extension<Entry>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    respond(app, entry, body, None).await
}

/// `POST /openai/deployments/{name}/completions`
pub(super) async fn create_in_deployment(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(entry): Extension<Entry>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    respond(app, entry, body, Some(name)).await
}

pub(super) async fn respond(
    app: App,
    entry: Entry,
    body: JsonBody,
    deployment: Option<String>,
) -> Result<Response, ApiError> {
    let (shape, mut answers) =
        blocking(move || prepare(&app, &entry, &body, deployment.as_deref())).await?;
    if shape.wants_stream {
        return Ok(stream(shape, answers));
    }
    let parts = answers.collect().await?;
    let (usage, times) = (answers.usage(), answers.times());
    let choices: Vec<Value> = parts
        .iter()
        .map(|part| {
            let echo = shape.echoes.get(part.index).map_or("", String::as_str);
            let mut offset = echo.chars().count();
            let text = format!("{echo}{}", part.text);
            shape.choice(part.index, &text, part, &mut offset)
        })
        .collect();
    let mut object = shape.head.with_choices(choices.into());
    object["usage"] = usage_json(&usage);
    object["timings"] = timings_json(&usage, times);
    Ok(Json(object).into_response())
}

fn prepare(
    app: &App,
    entry: &Entry,
    body: &JsonBody,
    deployment: Option<&str>,
) -> Result<(Shape, Answers), ApiError> {
    let common: Common = body.fields()?;
    let own: Completion = body.fields()?;
    let model = app.model(deployment.or(common.model.as_deref()))?;
    entry.set_text("prompt", || body.0["prompt"].clone());
    if own.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::field("suffix", "Llama 2 cannot fill in; only the end is open"));
    }
    let n = common.n.unwrap_or(1);
    if own.best_of.is_some_and(|best_of| best_of != n) {
        return Err(ApiError::field("best_of", "expected the value of n: all answers are sent"));
    }
    if own.logprobs.is_some_and(|n| n > MAX_LOGPROBS) {
        let message = format!("expected at most {MAX_LOGPROBS}");
        return Err(ApiError::field("logprobs", message));
    }
    let prompts = own.prompt.unwrap_or(Prompts::Text(String::new())).encode(model);
    let echoes = match own.echo {
        Some(true) => prompts
            .iter()
            .flat_map(|ids| std::iter::repeat_n(model.tokenizer.decode(ids), n))
            .collect(),
        _ => Vec::new(),
    };
    let (wants_stream, wants_usage) = (common.wants_stream(), common.wants_usage());
    let ask = Ask {
        prompts,
        n,
        max_new_tokens: common.max_new_tokens().or(Some(DEFAULT_MAX_TOKENS)),
        sampling: common.sampling(app)?,
        n_logprobs: own.logprobs,
        grammar: common.grammar(model, false)?,
        trim_start: false,
        stops: one_or_many(common.stop),
    };
    let wants_logprobs = own.logprobs.is_some();
    let head = Head::new(app, "cmpl-", "text_completion", model);
    let answers = model.answer(ask, entry)?;
    let model = Arc::clone(model);
    Ok((Shape { head, model, wants_stream, wants_usage, wants_logprobs, echoes }, answers))
}

impl Shape {
    fn choice(&self, index: usize, text: &str, part: &Part, offset: &mut usize) -> Value {
        let logprobs = match self.wants_logprobs {
            true => logprobs::completion(&self.model.tokenizer, &part.tokens, offset),
            false => Value::Null,
        };
        let finish = part.end.map(End::openai);
        json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish })
    }
}

fn stream(shape: Shape, answers: Answers) -> Response {
    let mut opening = String::new();
    for (index, text) in shape.echoes.iter().enumerate() {
        let choice =
            json!([{ "index": index, "text": text, "logprobs": null, "finish_reason": null }]);
        event(&mut opening, &shape.head.with_choices(choice));
    }
    let mut offsets: Vec<usize> = shape.echoes.iter().map(|text| text.chars().count()).collect();
    streamed(EVENTS, opening, answers, move |step, out| match step {
        Step::Part(part) => {
            if part.index >= offsets.len() {
                offsets.resize(part.index + 1, 0);
            }
            let offset = &mut offsets[part.index];
            if !part.text.is_empty() || part.end.is_some() || shape.wants_logprobs {
                let choice = shape.choice(part.index, &part.text, &part, offset);
                event(out, &shape.head.with_choices(json!([choice])));
            }
        }
        Step::Failed(error) => event(out, &error.openai()),
        Step::Done(usage, times) => {
            if shape.wants_usage {
                let mut last = shape.head.with_choices(json!([]));
                last["usage"] = usage_json(&usage);
                last["timings"] = timings_json(&usage, times);
                event(out, &last);
            }
            out.push_str("data: [DONE]\n\n");
        }
    })
}
