//! What went wrong, in one place on its way to the wire.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use puna_engine::SubmitError;
use puna_tokenizer::chat::ChatError;
use serde_json::{Value, json};

/// An answer that is an error. It leaves the handlers in OpenAI's form; `Dialect` puts it into that of another protocol.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field that is wrong.
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which it is worth to come again.
    retry_after: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// The request cannot be meant.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field of the request cannot be meant.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("{param}: {}", message.into());
        Self { param: Some(param), ..Self::bad(message) }
    }

    /// The request is fine, but the server is not.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Too much at once; come again.
    pub(crate) fn busy(message: impl Into<String>, retry_after: u64) -> Self {
        let retry_after = Some(retry_after);
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    pub(crate) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The prompt does not fit.
    pub(crate) fn too_long(n_prompt: usize, n_new: usize, ctx: usize) -> Self {
        let message = format!(
            "this model's context is {ctx} tokens, but the prompt has {n_prompt} and at least {n_new} must be free for \
             the answer; nothing is cut in silence: shorten the prompt"
        );
        Self::bad(message).with_code("context_length_exceeded")
    }

    /// Seconds after which it is worth to come again.
    #[cfg(test)]
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// OpenAI's word for the kind of error.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// `{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`
    pub(crate) fn openai(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        } })
    }
}

/// Whose form errors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Ollama,
    Tgi,
}

impl Dialect {
    /// The protocol that a path belongs to.
    pub(crate) fn of_path(path: &str) -> Self {
        match path {
            path if path.starts_with("/api/") => Self::Ollama,
            "/" | "/generate" | "/generate_stream" | "/info" => Self::Tgi,
            _ => Self::OpenAi,
        }
    }

    pub(crate) fn error(self, error: &ApiError) -> Value {
        match self {
            Self::OpenAi => error.openai(),
            Self::Ollama => json!({ "error": error.message }),
            Self::Tgi => {
                let kind = if error.status.is_client_error() { "validation" } else { "generation" };
                json!({ "error": error.message, "error_type": kind })
            }
        }
    }

    /// Puts an error that comes from a handler into this form.
    pub(crate) fn translate(self, response: Response) -> Response {
        match response.extensions().get::<ApiError>() {
            Some(error) if self != Self::OpenAi => respond(error, self),
            _ => response,
        }
    }
}

fn respond(error: &ApiError, dialect: Dialect) -> Response {
    let mut response = (error.status, Json(dialect.error(error))).into_response();
    let headers = response.headers_mut();
    if let Some(secs) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response.extensions_mut().insert(error.clone());
    response
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        respond(&self, Dialect::OpenAi)
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let too_long =
            matches!(error, SubmitError::PromptTooLong { .. } | SubmitError::TextTooLong { .. });
        let code = too_long.then_some("context_length_exceeded");
        Self { code, ..Self::bad(error.to_string()) }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        Self::field("messages", error.to_string())
    }
}
