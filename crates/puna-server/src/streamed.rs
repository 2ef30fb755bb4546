//! Answers that are sent as they come.

use std::fmt::{Display, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::stream::unfold;
use puna_engine::Usage;
use serde_json::Value;

use crate::error::ApiError;
use crate::service::{Answers, Part, Times};

/// After so long without a word a comment is sent, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Parts that are ready are sent together, up to so many bytes.
const MAX_TOGETHER: usize = 16 << 10;

/// What happens next in a stream.
pub(crate) enum Step {
    Part(Part),
    /// It ends here.
    Failed(ApiError),
    /// All answers have ended.
    Done(Usage, Times),
}

/// Lines of the events that browsers know (`text/event-stream`).
pub(crate) const EVENTS: Form = Form { kind: "text/event-stream", comment: ": still here\n\n" };
/// A line of JSON for each part.
pub(crate) const LINES: Form = Form { kind: "application/x-ndjson", comment: "" };

/// How a stream is written.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    kind: &'static str,
    /// What a reader skips.
    comment: &'static str,
}

/// A response that is written step by step: first `opening`, then what `write` appends for each step.
pub(crate) fn streamed(
    form: Form,
    opening: String,
    answers: Answers,
    write: impl FnMut(Step, &mut String) + Send + 'static,
) -> Response {
    let state = State { answers, write, out: opening, has_ended: false };
    let body = Body::from_stream(unfold(state, move |mut state| async move {
        if state.out.is_empty() && !state.has_ended {
            state.advance(form).await;
        }
        let out = std::mem::take(&mut state.out);
        (!out.is_empty()).then(|| (Ok::<_, std::convert::Infallible>(Bytes::from(out)), state))
    }));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(form.kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // nginx would else collect what should come at once.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

struct State<W> {
    answers: Answers,
    write: W,
    /// Not sent yet.
    out: String,
    has_ended: bool,
}

impl<W: FnMut(Step, &mut String)> State<W> {
    /// Waits for something to send, and adds what is ready besides.
    async fn advance(&mut self, form: Form) {
        while self.out.is_empty() && !self.has_ended {
            match tokio::time::timeout(KEEP_ALIVE, self.answers.next()).await {
                Ok(next) => self.take(next),
                Err(_) => self.out.push_str(form.comment),
            }
        }
        while !self.has_ended && self.out.len() < MAX_TOGETHER {
            let Some(next) = self.answers.next().now_or_never() else { return };
            self.take(next);
        }
    }

    fn take(&mut self, next: Option<Result<Part, ApiError>>) {
        let step = match next {
            Some(Ok(part)) => Step::Part(part),
            Some(Err(error)) => Step::Failed(error),
            None => Step::Done(self.answers.usage(), self.answers.times()),
        };
        self.has_ended = !matches!(step, Step::Part(_));
        (self.write)(step, &mut self.out);
    }
}

/// Appends one event.
pub(crate) fn event(out: &mut String, data: impl Display) {
    let _ = write!(out, "data: {data}\n\n");
}

/// Appends one line.
pub(crate) fn line(out: &mut String, data: &Value) {
    let _ = writeln!(out, "{data}");
}
