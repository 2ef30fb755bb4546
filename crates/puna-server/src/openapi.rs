//! `/openapi.json`: what the server understands, for programs that want to know.

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/openapi.json", get(|| async { Json(document()) }))
}

/// The document, OpenAPI 3.1.
fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Puna",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Llama 2 behind the protocols of OpenAI, Azure, Ollama, SageMaker and Text Generation \
                            Inference. Fields that are not named here are ignored.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "security": [{}, { "bearer": [] }, { "apiKey": [] }],
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "apiKey": { "type": "apiKey", "in": "header", "name": "api-key" },
            },
            "schemas": schemas(),
        },
        "paths": paths(),
    })
}

fn paths() -> Value {
    let mut paths = Map::new();
    for (path, summary, media) in [
        ("/health", "Whether the process lives and its engines work", "text/plain"),
        ("/ready", "Whether work is taken", "text/plain"),
        ("/ping", "The same as /health, for SageMaker", "text/plain"),
        ("/metrics", "Numbers for Prometheus", "text/plain"),
        ("/openapi.json", "This document", "application/json"),
        ("/v1/models", "The models that are served", "application/json"),
        ("/api/tags", "The models that are served, for Ollama's clients", "application/json"),
        ("/api/ps", "The models that are loaded, which are all", "application/json"),
        ("/api/version", "The program's version", "application/json"),
        ("/info", "The first model, for clients of Text Generation Inference", "application/json"),
    ] {
        let get = json!({ "summary": summary, "responses": responses(&[media], "OpenAiError") });
        paths.insert(path.to_owned(), json!({ "get": get }));
    }
    let named = |what: &str| json!([{ "name": what, "in": "path", "required": true, "schema": { "type": "string" } }]);
    let one = json!({ "get": {
        "summary": "A model", "parameters": named("name"),
        "responses": responses(&["application/json"], "OpenAiError"),
    } });
    paths.insert("/v1/models/{name}".to_owned(), one);
    let stored = |summary: &str| {
        json!({
            "summary": summary, "parameters": named("id"),
            "responses": responses(&["application/json"], "OpenAiError"),
        })
    };
    let response = json!({
        "get": stored("A response that was stored"), "delete": stored("Forget a response"),
    });
    paths.insert("/v1/responses/{id}".to_owned(), response);

    let json_or_events = &["application/json", "text/event-stream"][..];
    for (path, summary, schema, media, error) in [
        ("/v1/chat/completions", "Answer a conversation", "Chat", json_or_events, "OpenAiError"),
        ("/v1/completions", "Continue a text", "Completion", json_or_events, "OpenAiError"),
        ("/v1/responses", "Answer, and keep the answer", "Response", json_or_events, "OpenAiError"),
        ("/v1/embeddings", "Embed texts", "Embedding", &["application/json"], "OpenAiError"),
        ("/invocations", "Any of them, for SageMaker", "Invocation", json_or_events, "OpenAiError"),
        (
            "/api/chat",
            "Answer a conversation",
            "OllamaChat",
            &["application/json", "application/x-ndjson"],
            "OllamaError",
        ),
        (
            "/api/generate",
            "Answer a prompt",
            "OllamaGenerate",
            &["application/json", "application/x-ndjson"],
            "OllamaError",
        ),
        ("/api/show", "A model", "OllamaShow", &["application/json"], "OllamaError"),
        ("/api/embed", "Embed texts", "OllamaEmbed", &["application/json"], "OllamaError"),
        ("/generate", "Continue a text", "TgiGenerate", &["application/json"], "TgiError"),
        (
            "/generate_stream",
            "Continue a text, token by token",
            "TgiGenerate",
            &["text/event-stream"],
            "TgiError",
        ),
    ] {
        paths.insert(path.to_owned(), json!({ "post": post(summary, schema, media, error) }));
    }
    for (name, summary, schema) in [
        ("chat/completions", "Answer a conversation", "Chat"),
        ("completions", "Continue a text", "Completion"),
        ("embeddings", "Embed texts", "Embedding"),
    ] {
        let mut post = post(summary, schema, json_or_events, "OpenAiError");
        post["parameters"] = json!([
            { "name": "name", "in": "path", "required": true, "schema": { "type": "string" } },
            { "name": "api-version", "in": "query", "schema": { "type": "string" } },
        ]);
        paths.insert(format!("/openai/deployments/{{name}}/{name}"), json!({ "post": post }));
    }
    paths.into()
}

fn post(summary: &str, schema: &str, media: &[&str], error: &str) -> Value {
    json!({
        "summary": summary,
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": reference(schema) } },
        },
        "responses": responses(media, error),
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn responses(media: &[&str], error: &str) -> Value {
    let content: Map<String, Value> =
        media.iter().map(|&media| (media.to_owned(), json!({}))).collect();
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({ "description": "Done", "content": content }));
    for (status, description) in [
        ("400", "The request cannot be meant; the error names the field"),
        ("401", "A key is needed"),
        ("403", "The page that asks is not allowed to"),
        ("404", "No such model or address"),
        ("405", "No such method"),
        ("408", "The body did not arrive in time"),
        ("413", "The body is too large"),
        ("429", "Too much at once, or too often: come again after the time in Retry-After"),
        ("500", "The server failed"),
        ("503", "The server is about to end, or its engine has failed"),
    ] {
        let content = json!({ "application/json": { "schema": reference(error) } });
        responses
            .insert(status.to_owned(), json!({ "description": description, "content": content }));
    }
    responses.into()
}

/// A field and its type.
type Field = (&'static str, Value);

/// An object whose fields may be left out or null, but for those `required`.
fn object(fields: Vec<Field>, required: &[&str]) -> Value {
    let properties: Map<String, Value> = fields
        .into_iter()
        .map(|(name, schema)| {
            let schema = if required.contains(&name) {
                schema
            } else {
                json!({ "anyOf": [schema, { "type": "null" }] })
            };
            (name.to_owned(), schema)
        })
        .collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn string() -> Value {
    json!({ "type": "string" })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn number(low: f64, high: f64) -> Value {
    json!({ "type": "number", "minimum": low, "maximum": high })
}

fn integer(low: i64, high: i64) -> Value {
    json!({ "type": "integer", "minimum": low, "maximum": high })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn string_or_list() -> Value {
    json!({ "anyOf": [string(), list(string())] })
}

fn prompts() -> Value {
    let ids = || list(integer(0, i64::from(u32::MAX)));
    json!({ "anyOf": [string(), list(string()), ids(), list(ids())] })
}

fn messages(roles: &[&str]) -> Value {
    let parts = list(object(
        vec![("type", json!({ "const": "text" })), ("text", string())],
        &["type", "text"],
    ));
    let content = json!({ "anyOf": [string(), parts] });
    list(object(
        vec![("role", json!({ "enum": roles })), ("content", content)],
        &["role", "content"],
    ))
}

/// What chats and completions have in common.
fn sampling() -> Vec<Field> {
    vec![
        ("model", string()),
        ("stream", boolean()),
        ("stream_options", object(vec![("include_usage", boolean())], &[])),
        ("n", integer(1, 128)),
        ("max_tokens", integer(1, 1 << 31)),
        ("max_completion_tokens", integer(1, 1 << 31)),
        ("stop", string_or_list()),
        ("seed", integer(i64::MIN, i64::MAX)),
        ("temperature", number(0.0, 100.0)),
        ("top_p", number(0.0, 1.0)),
        ("top_k", integer(0, 1 << 31)),
        ("min_p", number(0.0, 1.0)),
        ("repetition_penalty", number(0.01, 100.0)),
        ("presence_penalty", number(-100.0, 100.0)),
        ("frequency_penalty", number(-100.0, 100.0)),
        ("logit_bias", json!({ "type": "object", "additionalProperties": { "type": "number" } })),
        ("ignore_eos", boolean()),
        (
            "response_format",
            object(
                vec![
                    ("type", json!({ "enum": ["text", "json_object", "json_schema"] })),
                    ("json_schema", object(vec![("schema", json!({ "type": "object" }))], &[])),
                ],
                &["type"],
            ),
        ),
        (
            "grammar",
            json!({ "type": "string", "description": "A grammar in llguidance's form of Lark" }),
        ),
    ]
}

fn ollama(fields: Vec<Field>) -> Value {
    let options = object(
        vec![
            ("temperature", number(0.0, 100.0)),
            ("top_k", integer(0, 1 << 31)),
            ("top_p", number(0.0, 1.0)),
            ("min_p", number(0.0, 1.0)),
            ("repeat_penalty", number(0.01, 100.0)),
            ("presence_penalty", number(-100.0, 100.0)),
            ("frequency_penalty", number(-100.0, 100.0)),
            ("seed", integer(i64::MIN, i64::MAX)),
            ("num_predict", integer(-2, 1 << 31)),
            ("stop", string_or_list()),
        ],
        &[],
    );
    let format = json!({ "anyOf": [{ "const": "json" }, { "type": "object" }] });
    let common =
        vec![("model", string()), ("stream", boolean()), ("format", format), ("options", options)];
    object([common, fields].concat(), &[])
}

fn schemas() -> Value {
    let function = object(
        vec![
            ("name", string()),
            ("description", string()),
            ("parameters", json!({ "type": "object" })),
        ],
        &["name"],
    );
    let tool = object(
        vec![("type", json!({ "const": "function" })), ("function", function)],
        &["type", "function"],
    );
    let chat = [
        sampling(),
        vec![
            ("messages", messages(&["system", "developer", "user", "assistant", "tool"])),
            ("logprobs", boolean()),
            ("top_logprobs", integer(0, 20)),
            ("tools", list(tool)),
            ("tool_choice", json!({ "enum": ["none", "auto", "required"] })),
        ],
    ];
    let completion = [
        sampling(),
        vec![
            ("prompt", prompts()),
            ("logprobs", integer(0, 20)),
            ("echo", boolean()),
            ("suffix", string()),
            ("best_of", integer(1, 128)),
        ],
    ];
    let tgi = object(
        vec![
            ("temperature", number(0.0, 100.0)),
            ("top_k", integer(0, 1 << 31)),
            ("top_p", number(0.0, 1.0)),
            ("repetition_penalty", number(0.01, 100.0)),
            ("frequency_penalty", number(-100.0, 100.0)),
            ("do_sample", boolean()),
            ("seed", integer(0, i64::MAX)),
            ("max_new_tokens", integer(1, 1 << 31)),
            ("stop", list(string())),
            ("return_full_text", boolean()),
            ("details", boolean()),
        ],
        &[],
    );
    let response = vec![
        ("model", string()),
        (
            "input",
            json!({ "anyOf": [string(), messages(&["system", "developer", "user", "assistant"])] }),
        ),
        ("instructions", string()),
        ("previous_response_id", string()),
        ("store", boolean()),
        ("stream", boolean()),
        ("max_output_tokens", integer(1, 1 << 31)),
        ("temperature", number(0.0, 100.0)),
        ("top_p", number(0.0, 1.0)),
    ];
    let embedding = vec![
        ("model", string()),
        ("input", prompts()),
        ("encoding_format", json!({ "enum": ["float", "base64"] })),
        ("dimensions", integer(1, 1 << 31)),
    ];
    let openai_error = object(vec![("error", json!({ "type": "object" }))], &["error"]);
    let plain_error =
        |more: Vec<Field>| object([vec![("error", string())], more].concat(), &["error"]);
    json!({
        "Chat": object(chat.concat(), &["messages"]),
        "Completion": object(completion.concat(), &[]),
        "Response": object(response, &["input"]),
        "Embedding": object(embedding, &["input"]),
        "Invocation": { "anyOf": [reference("Chat"), reference("Completion"), reference("TgiGenerate"), reference("Embedding")] },
        "OllamaChat": ollama(vec![("messages", messages(&["system", "user", "assistant"]))]),
        "OllamaGenerate": ollama(vec![("prompt", string()), ("system", string()), ("raw", boolean())]),
        "OllamaShow": object(vec![("model", string())], &[]),
        "OllamaEmbed": object(vec![("model", string()), ("input", string_or_list()), ("dimensions", integer(0, 1 << 31))], &["input"]),
        "TgiGenerate": object(vec![("inputs", string()), ("parameters", tgi)], &["inputs"]),
        "OpenAiError": openai_error,
        "OllamaError": plain_error(vec![]),
        "TgiError": plain_error(vec![("error_type", string())]),
    })
}
