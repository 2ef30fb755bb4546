//! Answers of a given form always have it.

use serde_json::{Value, json};

use crate::common::server;

const PATH: &str = "/v1/chat/completions";

fn ask(more: &Value) -> Value {
    let mut body = json!({
        "messages": [{ "role": "user", "content": "Once upon a time" }],
        "temperature": 1.0, "max_tokens": 300,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn json_of_a_schema_parses_and_fits() {
    let server = server();
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "mood": { "enum": ["glad", "sad"] },
            "tags": { "type": "array", "items": { "type": "boolean" }, "maxItems": 3 },
        },
        "required": ["name", "age", "mood", "tags"],
        "additionalProperties": false,
    });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema, "strict": true } });
    for seed in 0..20 {
        let n = if seed == 0 { 3 } else { 1 };
        let reply = server
            .post(PATH, &ask(&json!({ "response_format": format, "seed": seed, "n": n })))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        for choice in reply.json()["choices"].as_array().unwrap() {
            assert_eq!(choice["finish_reason"], "stop");
            let text = choice["message"]["content"].as_str().unwrap();
            let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert!(value["name"].as_str().unwrap().chars().count() <= 12, "{text}");
            assert!((0..=120).contains(&value["age"].as_i64().unwrap()), "{text}");
            assert!(["glad", "sad"].contains(&value["mood"].as_str().unwrap()), "{text}");
            assert!(value["tags"].as_array().unwrap().len() <= 3, "{text}");
        }
    }
    server.idle().await;
}

#[tokio::test]
async fn json_is_whole_however_short_it_must_be() {
    let server = server();
    let line = json!({
        "type": "object",
        "properties": { "text": { "type": "string" }, "by": { "type": ["string", "null"] }, "n": { "type": "number" } },
        "required": ["text", "by", "n"],
        "additionalProperties": false,
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "title": { "type": "string" },
            "lines": { "type": "array", "items": line },
            "more": { "type": "object" },
        },
        "required": ["title", "lines"],
        "additionalProperties": false,
    });
    let strict = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    let any = json!({ "type": "json_object" });
    let mut finishes = std::collections::BTreeSet::new();
    for (format, shortest) in [(&strict, 30), (&any, 4)] {
        for max_tokens in [shortest, shortest + 1, 40, 60, 90, 150, 250] {
            for seed in 0..4 {
                let more = json!({ "response_format": format, "seed": seed, "max_tokens": max_tokens, "temperature": 1.3 });
                let reply = server.post(PATH, &ask(&more)).await.json();
                let choice = &reply["choices"][0];
                let text = choice["message"]["content"].as_str().unwrap();
                let value: Result<Value, _> = serde_json::from_str(text);
                assert!(value.is_ok_and(|v| v.is_object()), "{max_tokens}, {seed}: {text}");
                assert!(reply["usage"]["completion_tokens"].as_u64().unwrap() <= max_tokens);
                finishes.insert(choice["finish_reason"].as_str().unwrap().to_owned());
            }
        }
    }
    assert!(finishes.contains("stop"), "{finishes:?}");
    // Where no end fits, what there is is told to be cut.
    let more = json!({ "response_format": strict, "max_tokens": 5 });
    let reply = server.post(PATH, &ask(&more)).await.json();
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
    server.idle().await;
}

#[tokio::test]
async fn grammars_are_kept_streamed_and_whole() {
    let server = server();
    let grammar = "start: \"yes\" | \"no\" | \"maybe\" /[0-9]{2}/";
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let body = ask(&json!({ "grammar": grammar, "seed": seed }));
        let whole = server.post(PATH, &body).await.json();
        let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        let is_maybe =
            text.strip_prefix("maybe").is_some_and(|n| n.len() == 2 && n.parse::<u8>().is_ok());
        assert!(text == "yes" || text == "no" || is_maybe, "{text:?}");
        let mut streaming = body;
        streaming["stream"] = true.into();
        let events = server.post(PATH, &streaming).await.events();
        let pieces = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str());
        assert_eq!(pieces.collect::<String>(), text);
        seen.insert(text);
    }
    assert!(seen.len() > 1, "{seen:?}");
}

#[tokio::test]
async fn what_is_no_grammar_is_refused() {
    let server = server();
    let nested = format!("start: {}\"a\"{}", "(".repeat(5000), ")".repeat(5000));
    let huge = format!("start: \"{}\"", "a".repeat(300_000));
    let wide = "start: /(a|b|c|d)*(a|b|c|d){900}(x|y){900}(a|b|c|d){900}/";
    let deep = (0..100)
        .fold(json!({ "type": "null" }), |inner, _| json!({ "type": "array", "items": inner }));
    for more in [
        json!({ "grammar": "start: (" }),
        json!({ "grammar": "" }),
        json!({ "grammar": "start: other" }),
        json!({ "grammar": "start: start" }),
        json!({ "grammar": nested }),
        json!({ "grammar": huge }),
        json!({ "grammar": wide }),
        json!({ "grammar": "start: /(/" }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "nonsense" } } } }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "$ref": "#/nowhere" } } } }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": deep } } }),
        json!({ "response_format": { "type": "json_object" }, "grammar": "start: \"a\"" }),
    ] {
        let reply = server
            .post(
                PATH,
                &ask(&json!({ "max_tokens": 5 })).as_object().map_or(json!({}), |body| {
                    let mut body = body.clone();
                    body.extend(more.as_object().unwrap().clone());
                    body.into()
                }),
            )
            .await;
        let brief: String = more.to_string().chars().take(100).collect();
        // A grammar may be strange and yet one that can be kept.
        assert!([200, 400].contains(&reply.status.as_u16()), "{brief}: {}", reply.text);
        if reply.status == 400 {
            let _ = reply.error();
        }
    }
    let reply = server.post(PATH, &ask(&json!({ "max_tokens": 5 }))).await;
    assert_eq!(reply.status, 200);
    server.idle().await;
}
