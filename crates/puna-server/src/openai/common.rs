//! What `/v1/chat/completions` and `/v1/completions` have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use puna_engine::{Sampling, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::error::ApiError;
use crate::grammar::{Form, Grammar};
use crate::model::Model;
use crate::service::{Answers, Ask, Times};
use crate::streamed::event;

/// Fields of both requests. What other servers add is here too: `top_k`, `min_p`, `repetition_penalty`, `ignore_eos`,
/// `grammar`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Common {
    pub(super) model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<usize>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    stop: Option<OneOrMany>,
    seed: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Option<BTreeMap<String, f32>>,
    ignore_eos: Option<bool>,
    response_format: Option<ResponseFormat>,
    grammar: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    include_usage: Option<bool>,
}

/// A string or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// As a list.
pub(crate) fn one_or_many(strings: Option<OneOrMany>) -> Vec<String> {
    match strings {
        None => Vec::new(),
        Some(OneOrMany::One(string)) => vec![string],
        Some(OneOrMany::Many(strings)) => strings,
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: NamedSchema },
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedSchema {
    schema: Option<Value>,
}

impl Common {
    /// Answers to each prompt.
    pub(super) fn n(&self) -> usize {
        self.n.unwrap_or(1)
    }

    /// What is wanted of `model`: so far without log-probabilities, and with all white space.
    pub(super) fn ask(
        self,
        app: &Shared,
        model: &Model,
        prompts: Vec<Vec<u32>>,
        grammar: Option<Grammar>,
    ) -> Result<Ask, ApiError> {
        Ok(Ask {
            prompts,
            n: self.n(),
            max_new_tokens: self.max_completion_tokens.or(self.max_tokens),
            sampling: self.sampling(app, model)?,
            n_logprobs: None,
            stops: one_or_many(self.stop),
            grammar,
            trim_start: false,
        })
    }

    /// As the model's maker suggests where the request does not say, else with OpenAI's defaults: the model's own
    /// distribution, and a seed that is another one each time.
    fn sampling(&self, app: &Shared, model: &Model) -> Result<Sampling, ApiError> {
        let default = Sampling::default().suggested(&model.about.sampling);
        let mut logit_bias = Vec::new();
        for (id, &bias) in self.logit_bias.iter().flatten() {
            let id = id.parse().map_err(|_| {
                ApiError::field("logit_bias", format!("expected token ids, found {id:?}"))
            })?;
            logit_bias.push((id, bias));
        }
        if self.ignore_eos.unwrap_or(false) {
            logit_bias.extend(model.stop_ids.iter().map(|&id| (id, f32::NEG_INFINITY)));
        }
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias,
            seed: self.seed.map_or_else(|| app.random(), |seed| seed as u64),
        })
    }

    /// Whether the answer is to have a form.
    pub(super) fn has_form(&self) -> bool {
        self.grammar.is_some()
            || matches!(self.response_format, Some(ref format) if !matches!(format, ResponseFormat::Text))
    }

    /// The form that the answer is to have.
    pub(super) fn grammar(
        &self,
        model: &Model,
        after_space: bool,
    ) -> Result<Option<Grammar>, ApiError> {
        let form = match (&self.response_format, &self.grammar) {
            (None | Some(ResponseFormat::Text), None) => return Ok(None),
            (None | Some(ResponseFormat::Text), Some(source)) => {
                return model
                    .compile("grammar", &Form::Lark(source.clone()), after_space)
                    .map(Some);
            }
            (Some(_), Some(_)) => {
                return Err(ApiError::field("grammar", "a response_format is given already"));
            }
            (Some(ResponseFormat::JsonObject), None) => Form::any_object(),
            (Some(ResponseFormat::JsonSchema { json_schema }), None) => {
                json_schema.schema.clone().map_or_else(Form::any_object, Form::Schema)
            }
        };
        model.compile("response_format", &form, after_space).map(Some)
    }
}

/// `usage`, in OpenAI's words.
fn usage_json(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.n_prompt,
        "completion_tokens": usage.n_generated,
        "total_tokens": usage.n_prompt + usage.n_generated,
        "prompt_tokens_details": { "cached_tokens": usage.n_cached },
        "completion_tokens_details": { "accepted_prediction_tokens": usage.n_accepted },
    })
}

/// `timings`, which are ours, under the names that `puna generate --json` gives them.
fn timings_json(usage: &Usage, times: Times) -> Value {
    let rate = |n: usize, secs: f64| (n > 0 && secs > 0.0).then(|| n as f64 / secs);
    json!({
        "prompt_secs": times.first_token,
        "answer_secs": times.answer,
        "total_secs": times.total,
        "prompt_tokens_per_sec": rate(usage.n_prompt - usage.n_cached, times.first_token),
        "answer_tokens_per_sec": rate(usage.n_generated.saturating_sub(1), times.answer),
    })
}

/// What every response and chunk begins with, and what its end has to tell.
pub(super) struct Head {
    /// The JSON object up to the choices.
    opening: String,
    pub(super) model: Arc<Model>,
    pub(super) wants_stream: bool,
    wants_usage: bool,
}

impl Head {
    /// Of an answer to a request with these fields; an `object` has another name when it comes in chunks.
    pub(super) fn new(
        app: &Shared,
        model: &Arc<Model>,
        common: &Common,
        prefix: &str,
        object: [&'static str; 2],
    ) -> Self {
        let wants_stream = common.stream.unwrap_or(false);
        let options = common.stream_options.as_ref();
        let object = json!({
            "id": app.new_id(prefix),
            "object": object[usize::from(wants_stream)],
            "created": chrono::Utc::now().timestamp().max(0),
            "model": model.about.name,
            "system_fingerprint": concat!("puna-", env!("CARGO_PKG_VERSION")),
        });
        Self {
            opening: object.to_string().trim_end_matches('}').to_owned() + ",\"choices\":",
            model: Arc::clone(model),
            wants_stream,
            wants_usage: options.and_then(|options| options.include_usage).unwrap_or(false),
        }
    }

    /// Appends a chunk.
    pub(super) fn chunk(&self, choices: &Value, out: &mut String) {
        event(out, format_args!("{}{choices}}}", self.opening));
    }

    /// The response that is not streamed.
    pub(super) fn whole(&self, choices: Vec<Value>, answers: &Answers) -> Response {
        let kind = HeaderValue::from_static("application/json");
        let object = self.with_usage(choices, &answers.usage(), answers.times());
        ([(header::CONTENT_TYPE, kind)], object).into_response()
    }

    /// The end of a stream.
    pub(super) fn done(&self, usage: &Usage, times: Times, out: &mut String) {
        if self.wants_usage {
            event(out, self.with_usage(Vec::new(), usage, times));
        }
        event(out, "[DONE]");
    }

    fn with_usage(&self, choices: Vec<Value>, usage: &Usage, times: Times) -> String {
        let (usage, timings) = (usage_json(usage), timings_json(usage, times));
        let (opening, choices) = (&self.opening, Value::from(choices));
        format!("{opening}{choices},\"usage\":{usage},\"timings\":{timings}}}")
    }
}
