//! The other protocols: Ollama's, SageMaker's, Text Generation Inference's, `/v1/responses`, tools, `/openapi.json`.

use puna_core::SamplingHints;
use serde_json::{Value, json};

use crate::common::{Options, Reply, Server, server, server_with};

const START: &str = "Once upon a time";
const GREEDY: &str = ", there was a little girl";

fn lines(reply: &Reply) -> Vec<Value> {
    reply.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn ollama_answers_whole_and_in_lines() {
    let server = server();
    let options = json!({ "temperature": 0, "num_predict": 20, "repeat_penalty": 1.0 });
    let messages = json!([{ "role": "user", "content": START }]);
    for (path, asked, read) in [
        ("/api/chat", json!({ "messages": messages }), "/message/content"),
        ("/api/generate", json!({ "prompt": START }), "/response"),
        ("/api/generate", json!({ "prompt": START, "raw": true }), "/response"),
    ] {
        let mut body = asked;
        body["model"] = "stories260K:latest".into();
        body["options"] = options.clone();
        let streamed = server.post(path, &body).await;
        assert_eq!(streamed.headers["content-type"], "application/x-ndjson");
        let lines = lines(&streamed);
        let joined: String =
            lines.iter().map(|line| line.pointer(read).unwrap().as_str().unwrap()).collect();
        body["stream"] = false.into();
        let whole = server.post(path, &body).await.json();
        assert_eq!(whole.pointer(read).unwrap(), &json!(joined), "{path}");
        assert!(joined.starts_with(GREEDY), "{joined}");
        for last in [lines.last().unwrap(), &whole] {
            assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("length")));
            assert_eq!(last["eval_count"], 20);
        }
    }
    let unloaded = server.post("/api/chat", &json!({ "messages": [] })).await.json();
    assert_eq!(unloaded["done_reason"], "load");
    let formed = json!({ "prompt": START, "stream": false, "format": { "enum": ["yes", "no"] } });
    let formed = server.post("/api/generate", &formed).await.json();
    assert!(["\"yes\"", "\"no\""].contains(&formed["response"].as_str().unwrap()), "{formed}");
    server.idle().await;
}

/// What a request does not say of drawing, the model's files say.
#[tokio::test]
async fn tokens_are_drawn_as_the_model_suggests() {
    let sampling = SamplingHints {
        temperature: Some(0.0),
        repetition_penalty: Some(1.0),
        ..SamplingHints::default()
    };
    let server = server_with(&Options { sampling, ..Options::default() });
    let messages = json!([{ "role": "user", "content": START }]);
    for (path, body, read) in [
        ("/v1/chat/completions", json!({ "messages": messages }), "/choices/0/message/content"),
        ("/v1/completions", json!({ "prompt": START }), "/choices/0/text"),
        ("/v1/responses", json!({ "input": START }), "/output/0/content/0/text"),
        ("/api/generate", json!({ "prompt": START, "raw": true }), "/response"),
        (
            "/generate",
            json!({ "inputs": START, "parameters": { "do_sample": true } }),
            "/generated_text",
        ),
    ] {
        let mut body = body;
        for limit in ["max_tokens", "max_output_tokens"] {
            body[limit] = 20.into();
        }
        (body["stream"], body["options"]) = (false.into(), json!({ "num_predict": 20 }));
        let reply = server.post(path, &body).await.json();
        let text = reply.pointer(read).and_then(Value::as_str).unwrap_or_default();
        assert!(text.starts_with(GREEDY), "{path}: {reply}");
    }
    let own = json!({ "messages": messages, "temperature": 1.8, "seed": 1, "max_tokens": 20 });
    let reply = server.post("/v1/chat/completions", &own).await.json();
    let text = reply["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.starts_with(GREEDY), "{reply}");
    server.idle().await;
}

#[tokio::test]
async fn ollama_tells_of_models_and_errors_in_its_form() {
    let server = server();
    let tags = server.get("/api/tags").await.json();
    assert_eq!(tags["models"][0]["name"], "stories260K");
    assert_eq!(tags["models"][0]["details"]["quantization_level"], "F32");
    let show = server.post("/api/show", &json!({ "model": "stories260K" })).await.json();
    assert_eq!(show["model_info"]["llama.context_length"], 512);
    assert!(server.get("/api/version").await.json()["version"].is_string());
    let embedded = server.post("/api/embed", &json!({ "input": ["a", "b"] })).await.json();
    assert_eq!(embedded["embeddings"].as_array().unwrap().len(), 2);
    for (path, body, status) in [
        ("/api/chat", json!({ "model": "llama3", "messages": [] }), 404),
        ("/api/chat", json!({ "messages": [{ "role": "king", "content": "x" }] }), 400),
        (
            "/api/chat",
            json!({ "messages": [{ "role": "user", "content": "x", "images": ["aa"] }] }),
            400,
        ),
        ("/api/generate", json!({ "prompt": "x", "format": 3 }), 400),
        ("/api/generate", json!({ "prompt": "x", "options": { "temperature": "hot" } }), 400),
        ("/api/embed", json!({}), 400),
    ] {
        let reply = server.post(path, &body).await;
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.text);
        assert!(reply.json()["error"].is_string(), "{}", reply.text);
    }
}

#[tokio::test]
async fn text_generation_inference_answers() {
    let server = server();
    let parameters = json!({ "max_new_tokens": 10, "details": true });
    let whole = server
        .post("/generate", &json!({ "inputs": START, "parameters": parameters }))
        .await
        .json();
    let text = whole["generated_text"].as_str().unwrap();
    assert!(text.starts_with(", there was"), "{text}");
    assert_eq!(whole["details"]["finish_reason"], "length");
    assert_eq!(whole["details"]["tokens"].as_array().unwrap().len(), 10);
    let stream = server
        .post("/generate_stream", &json!({ "inputs": START, "parameters": parameters }))
        .await;
    let events: Vec<Value> = stream
        .text
        .split("\n\n")
        .filter_map(|event| Some(serde_json::from_str(event.strip_prefix("data: ")?).unwrap()))
        .collect();
    assert_eq!(events.len(), 10);
    let joined: String =
        events.iter().map(|event| event["token"]["text"].as_str().unwrap()).collect();
    assert_eq!((joined.as_str(), &events[9]["generated_text"]), (text, &json!(text)));
    assert!(events[..9].iter().all(|event| event["generated_text"].is_null()));
    let regex = json!({ "grammar": { "type": "regex", "value": "[0-9]{3}" } });
    let formed =
        server.post("/generate", &json!({ "inputs": START, "parameters": regex })).await.json();
    assert!(formed["generated_text"].as_str().unwrap().parse::<u16>().is_ok(), "{formed}");
    assert_eq!(server.get("/info").await.json()["max_total_tokens"], 512);
    let wrong = server.post("/generate", &json!({ "inputs": 3 })).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["error_type"]), (400, &json!("validation")));
}

#[tokio::test]
async fn sagemaker_invokes_any_of_them() {
    let server = server();
    assert_eq!(server.get("/ping").await.status, 200);
    let messages = json!([{ "role": "user", "content": START }]);
    for (body, read) in [
        (json!({ "inputs": START, "parameters": { "max_new_tokens": 5 } }), "/0/generated_text"),
        (json!({ "prompt": START, "max_tokens": 5, "temperature": 0 }), "/choices/0/text"),
        (
            json!({ "messages": messages, "max_tokens": 5, "temperature": 0 }),
            "/choices/0/message/content",
        ),
    ] {
        let reply = server.post("/invocations", &body).await.json();
        let text = reply.pointer(read).unwrap().as_str().unwrap();
        assert!(text.starts_with(", there"), "{text}");
    }
    assert_eq!(
        server.post("/invocations", &json!({ "input": "x" })).await.json()["object"],
        "list"
    );
    assert_eq!(server.post("/invocations", &json!({})).await.status, 400);
}

async fn respond(server: &Server, more: &Value) -> Value {
    let mut body = json!({ "input": START, "temperature": 0, "max_output_tokens": 20 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = server.post("/v1/responses", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

#[tokio::test]
async fn responses_are_kept_continued_and_forgotten() {
    let server = server();
    let first = respond(&server, &json!({ "metadata": { "a": "b" } })).await;
    let text = first["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with(GREEDY), "{text}");
    assert_eq!((&first["status"], &first["metadata"]["a"]), (&json!("incomplete"), &json!("b")));
    let path = format!("/v1/responses/{}", first["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.json(), first);
    let second =
        respond(&server, &json!({ "input": " The end", "previous_response_id": first["id"] }))
            .await;
    let n_tokens = |response: &Value| response["usage"]["input_tokens"].as_u64().unwrap();
    assert!(n_tokens(&second) > n_tokens(&first) + 20);
    let unkept = respond(&server, &json!({ "store": false })).await;
    let unkept = format!("/v1/responses/{}", unkept["id"].as_str().unwrap());
    assert_eq!(server.get(&unkept).await.status, 404);
    let delete = axum::http::Request::delete(&path).body(axum::body::Body::empty()).unwrap();
    assert_eq!(server.read(delete).await.json()["deleted"], true);
    assert_eq!(server.get(&path).await.status, 404);
    let stream = server
        .post(
            "/v1/responses",
            &json!({ "input": START, "temperature": 0, "max_output_tokens": 20, "stream": true }),
        )
        .await;
    let events: Vec<Value> = stream
        .text
        .lines()
        .filter_map(|line| Some(serde_json::from_str(line.strip_prefix("data: ")?).unwrap()))
        .collect();
    let numbers: Vec<u64> =
        events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    assert_eq!(deltas.map(|event| event["delta"].as_str().unwrap()).collect::<String>(), text);
    assert_eq!(events.last().unwrap()["type"], "response.incomplete");
    let kept = events.last().unwrap()["response"].clone();
    let path = format!("/v1/responses/{}", kept["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.json(), kept);
}

#[tokio::test]
async fn nobody_sees_the_responses_of_another() {
    let keys = vec!["the-first-key".to_owned(), "the-second-key".to_owned()];
    let server = server_with(&Options { keys, ..Options::default() });
    let request = |method: &str, path: &str, key: &str, body: Value| {
        let request =
            axum::http::Request::builder().method(method).uri(path).header("api-key", key);
        server.read(request.body(axum::body::Body::from(body.to_string())).unwrap())
    };
    let asked = json!({ "input": START, "max_output_tokens": 3 });
    let made = request("POST", "/v1/responses", "the-first-key", asked).await.json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(request("GET", &path, "the-second-key", Value::Null).await.status, 404);
    assert_eq!(request("DELETE", &path, "the-second-key", Value::Null).await.status, 404);
    let stolen = json!({ "input": "x", "previous_response_id": made["id"] });
    assert_eq!(request("POST", "/v1/responses", "the-second-key", stolen).await.status, 404);
    assert_eq!(request("GET", &path, "the-first-key", Value::Null).await.status, 200);
}

#[tokio::test]
async fn tools_are_called_by_their_schema() {
    let server = server();
    let tool = json!({ "type": "function", "function": {
        "name": "weather", "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": { "place": { "enum": ["sea", "wood"] }, "day": { "type": "integer", "minimum": 1, "maximum": 7 } },
            "required": ["place", "day"], "additionalProperties": false,
        },
    } });
    let ask = |choice: Value, stream: bool| {
        let body = json!({
            "messages": [{ "role": "user", "content": START }], "max_tokens": 100, "seed": 1,
            "tools": [tool], "tool_choice": choice, "stream": stream,
        });
        let server = server.clone();
        async move { server.post("/v1/chat/completions", &body).await }
    };
    let named = json!({ "type": "function", "function": { "name": "weather" } });
    for choice in [json!("required"), named] {
        let whole = ask(choice.clone(), false).await.json();
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls", "{whole}");
        let call = whole["choices"][0]["message"]["tool_calls"][0]["function"].clone();
        assert_eq!(call["name"], "weather");
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
        assert!((1..=7).contains(&arguments["day"].as_i64().unwrap()), "{arguments}");
        assert!(["sea", "wood"].contains(&arguments["place"].as_str().unwrap()), "{arguments}");
        let events = ask(choice, true).await.events();
        let found = events.iter().find_map(|e| e["choices"][0]["delta"].get("tool_calls")).unwrap();
        assert_eq!(found[0]["function"], call);
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    }
    let free = ask(json!("auto"), false).await;
    assert_eq!(free.status, 200, "{}", free.text);
    let events = ask(json!("auto"), true).await.events();
    let text: String =
        events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    let message = &free.json()["choices"][0]["message"];
    match message["content"].as_str() {
        Some(content) => assert_eq!(text, content),
        None => assert!(message["tool_calls"].is_array(), "{message}"),
    }
    let unknown = json!({ "type": "function", "function": { "name": "time" } });
    assert_eq!(ask(unknown, false).await.status, 400);
    let after = json!({
        "messages": [
            { "role": "user", "content": "How is the sea?" },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "call_1", "type": "function", "function": { "name": "weather", "arguments": "{\"place\":\"sea\"}" } },
            ] },
            { "role": "tool", "tool_call_id": "call_1", "content": "calm" },
        ],
        "tools": [tool], "max_tokens": 3,
    });
    assert_eq!(server.post("/v1/chat/completions", &after).await.status, 200);
    server.idle().await;
}

#[tokio::test]
async fn the_document_names_addresses_that_exist() {
    let server = server();
    let document = server.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 20);
    for (path, methods) in paths {
        let path = path.replace("{name}", "stories260K").replace("{id}", "resp_none");
        for method in methods.as_object().unwrap().keys() {
            let request = axum::http::Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(&path)
                .body(axum::body::Body::from("{}"))
                .unwrap();
            let reply = server.read(request).await;
            let status = reply.status.as_u16();
            assert!(status < 500 && status != 405, "{method} {path}: {status}");
            assert!(
                status != 404 || reply.text.contains("resp_none"),
                "{method} {path}: {}",
                reply.text
            );
        }
    }
    let text = document.to_string();
    for (at, _) in text.match_indices("#/components/schemas/") {
        let name: String =
            text[at + 21..].chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(document["components"]["schemas"].get(&name).is_some(), "{name}");
    }
}

/// The types that a schema allows, as JSON has them.
fn types(schema: &Value, found: &mut Vec<&'static str>) {
    let name = |value: &Value| match value {
        Value::String(_) => "string",
        Value::Number(_) => "number",
        _ => "other",
    };
    for one in schema["anyOf"].as_array().into_iter().flatten() {
        types(one, found);
    }
    found.extend(schema["enum"].as_array().into_iter().flatten().map(name));
    found.extend(schema.get("const").map(name));
    match schema["type"].as_str() {
        Some("string") => found.push("string"),
        Some("number" | "integer") => found.push("number"),
        Some("object") => found.push("object"),
        _ => {}
    }
}

#[tokio::test]
async fn wrong_types_in_every_documented_field_are_refused() {
    let server = server();
    let document = server.get("/openapi.json").await.json();
    let messages = json!([{ "role": "user", "content": "x" }]);
    let mut n_checked = 0;
    for (path, required) in [
        ("/v1/chat/completions", json!({ "messages": messages, "max_tokens": 1 })),
        ("/v1/completions", json!({ "prompt": "x", "max_tokens": 1 })),
        ("/v1/responses", json!({ "input": "x", "max_output_tokens": 1 })),
        ("/v1/embeddings", json!({ "input": "x" })),
        ("/api/chat", json!({ "messages": messages, "options": { "num_predict": 1 } })),
        ("/api/generate", json!({ "prompt": "x", "options": { "num_predict": 1 } })),
        ("/api/embed", json!({ "input": "x" })),
        ("/api/show", json!({})),
        ("/generate", json!({ "inputs": "x", "parameters": { "max_new_tokens": 1 } })),
    ] {
        assert_eq!(server.post(path, &required).await.status, 200, "{path}");
        let schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            ["schema"]["$ref"]
            .as_str()
            .unwrap();
        let schema = document.pointer(schema.trim_start_matches('#')).unwrap();
        for (field, schema) in schema["properties"].as_object().unwrap() {
            let mut allowed = Vec::new();
            types(schema, &mut allowed);
            for (kind, wrong) in
                [("number", json!(7)), ("string", json!("wrong")), ("object", json!({ "a": [1] }))]
            {
                if allowed.contains(&kind) {
                    continue;
                }
                let mut body = required.clone();
                body[field] = wrong;
                let reply = server.post(path, &body).await;
                assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text);
                assert!(reply.text.contains(field.as_str()), "{path} {body}: {}", reply.text);
                n_checked += 1;
            }
        }
    }
    assert!(n_checked > 100, "{n_checked}");
}
