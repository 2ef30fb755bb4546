//! `/v1/completions`.

use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::common::{Common, Head};
use super::logprobs;
use crate::error::ApiError;
use crate::extract::{Asked, blocking};
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
    wants_logprobs: bool,
    /// What comes before each answer, where the request asked for it.
    echoes: Vec<String>,
}

/// `POST /v1/completions`, and the same of a deployment.
pub(crate) async fn create(asked: Asked) -> Result<Response, ApiError> {
    let (shape, mut answers) = blocking(move || prepare(&asked)).await?;
    if shape.head.wants_stream {
        return Ok(stream(shape, answers));
    }
    let parts = answers.collect().await?;
    let choice = |part: &Part| {
        let echo = shape.echoes.get(part.index).map_or("", String::as_str);
        let mut offset = echo.chars().count();
        shape.choice(part.index, &format!("{echo}{}", part.text), part, &mut offset)
    };
    Ok(shape.head.whole(parts.iter().map(choice).collect(), &answers))
}

fn prepare(asked: &Asked) -> Result<(Shape, Answers), ApiError> {
    let common: Common = asked.fields()?;
    let own: Completion = asked.fields()?;
    let model = asked.model(common.model.as_deref())?;
    asked.log_text("prompt");
    if own.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::field("suffix", "Llama 2 cannot fill in; only the end is open"));
    }
    let n = common.n();
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
    let grammar = common.grammar(model, false)?;
    let head = Head::new(&asked.app, model, &common, "cmpl-", ["text_completion"; 2]);
    let ask = common.ask(&asked.app, model, prompts, grammar)?;
    let max_new_tokens = ask.max_new_tokens.or(Some(DEFAULT_MAX_TOKENS));
    let n_logprobs = own.logprobs;
    let answers = model.answer(Ask { max_new_tokens, n_logprobs, ..ask }, &asked.entry)?;
    Ok((Shape { head, wants_logprobs: n_logprobs.is_some(), echoes }, answers))
}

impl Shape {
    fn choice(&self, index: usize, text: &str, part: &Part, offset: &mut usize) -> Value {
        let logprobs = match self.wants_logprobs {
            true => logprobs::completion(&self.head.model.tokenizer, &part.tokens, offset),
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
        shape.head.chunk(&choice, &mut opening);
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
                shape.head.chunk(&json!([choice]), out);
            }
        }
        Step::Failed(error) => event(out, error.openai()),
        Step::Done(usage, times) => shape.head.done(&usage, times, out),
    })
}
