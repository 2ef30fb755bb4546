//! One line of JSON for each request, when its last byte has left or its client has.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chrono::{SecondsFormat, Utc};
use puna_engine::Usage;
use serde_json::{Map, Value, json};

/// Where lines go, and what may be in them.
#[derive(Clone)]
pub struct Log {
    out: Arc<Mutex<dyn Write + Send>>,
    with_text: bool,
}

impl Log {
    /// Lines go to `out`. Prompts and answers are part of them only `with_text`.
    pub fn new(out: impl Write + Send + 'static, with_text: bool) -> Self {
        Self { out: Arc::new(Mutex::new(out)), with_text }
    }

    /// Writes a line. A log that cannot be written stops nothing.
    fn write(&self, line: &Value) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(out, "{line}");
    }
}

/// What is known of a request. It is written when the last handle to it goes: that of the handler, or of the body that
/// is still being sent.
#[derive(Clone)]
pub(crate) struct Entry(Arc<Inner>);

struct Inner {
    log: Log,
    started: Instant,
    fields: Mutex<Map<String, Value>>,
}

impl Entry {
    /// A request that has just come.
    pub(crate) fn new(log: &Log, id: &str, method: &str, path: &str) -> Self {
        let mut fields = Map::new();
        let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        for (name, value) in [("time", &*time), ("request", id), ("method", method), ("path", path)]
        {
            fields.insert(name.to_owned(), value.into());
        }
        let inner = Inner { log: log.clone(), started: Instant::now(), fields: Mutex::new(fields) };
        Self(Arc::new(inner))
    }

    /// When it came.
    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    /// Adds to the line.
    pub(crate) fn set(&self, name: &str, value: impl Into<Value>) {
        self.fields().insert(name.to_owned(), value.into());
    }

    /// Adds text from a user or a model, if the log may have such.
    pub(crate) fn set_text(&self, name: &str, text: impl FnOnce() -> Value) {
        if self.0.log.with_text {
            self.set(name, text());
        }
    }

    /// Adds what an answer took; with several answers, what they took together.
    pub(crate) fn add_usage(&self, usage: &Usage) {
        let mut fields = self.fields();
        for (name, n) in [
            ("prompt_tokens", usage.n_prompt),
            ("cached_tokens", usage.n_cached),
            ("generated_tokens", usage.n_generated),
        ] {
            let sum = fields.get(name).and_then(Value::as_u64).unwrap_or(0) + n as u64;
            fields.insert(name.to_owned(), sum.into());
        }
    }

    fn fields(&self) -> std::sync::MutexGuard<'_, Map<String, Value>> {
        self.0.fields.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let fields = self.fields.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut fields = std::mem::take(fields);
        fields.insert("ms".to_owned(), json!(self.started.elapsed().as_millis() as u64));
        self.log.write(&Value::Object(fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that tests can read.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_written_at_the_end_and_holds_text_only_if_asked() {
        for with_text in [false, true] {
            let memory = Memory::default();
            let log = Log::new(memory.clone(), with_text);
            let entry = Entry::new(&log, "r-1", "POST", "/v1/completions");
            let body = entry.clone();
            entry.set("status", 200);
            body.set_text("prompt", || "secret".into());
            let usage = Usage { n_prompt: 5, n_generated: 2, ..Usage::default() };
            body.add_usage(&usage);
            body.add_usage(&usage);
            drop(entry);
            assert!(memory.0.lock().unwrap().is_empty(), "the body is not sent yet");
            drop(body);
            let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 1);
            let line: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&line["request"], &line["status"]), (&json!("r-1"), &json!(200)));
            assert_eq!(
                (&line["prompt_tokens"], &line["generated_tokens"]),
                (&json!(10), &json!(4))
            );
            assert_eq!(text.contains("secret"), with_text);
        }
    }
}
