//! `/v1/completions`.

use serde_json::{Value, json};

use crate::common::{Server, server};

const PATH: &str = "/v1/completions";

async fn complete(server: &Server, body: &Value) -> Value {
    let mut full = json!({ "prompt": "Once upon a time", "temperature": 0, "max_tokens": 12 });
    full.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let reply = server.post(PATH, &full).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

#[tokio::test]
async fn texts_and_ids_are_continued() {
    let server = server();
    let one = complete(&server, &json!({})).await;
    let text = one["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with(", there was a little"), "{text}");
    let two = complete(&server, &json!({ "prompt": ["Once upon a time", "Lily"], "n": 2 })).await;
    let choices = two["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    assert_eq!(
        choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!((&choices[0]["text"], &choices[1]["text"]), (&json!(text), &json!(text)));
    assert_ne!(choices[2]["text"], json!(text));
    let n_prompt = one["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(
        two["usage"]["prompt_tokens"].as_u64().unwrap() < 2 * n_prompt,
        "each prompt counts once"
    );
    // "Once upon a time", as this model's tokenizer has it.
    let ids = json!([1, 403, 407, 261, 378]);
    let by_ids = complete(&server, &json!({ "prompt": ids })).await;
    assert_eq!(by_ids["choices"][0]["text"], json!(text));
    let by_lists = complete(&server, &json!({ "prompt": [ids, ids] })).await;
    assert_eq!(by_lists["choices"][1]["text"], json!(text));
    let echoed = complete(&server, &json!({ "echo": true })).await;
    assert_eq!(echoed["choices"][0]["text"], format!("Once upon a time{text}"));
    let empty = complete(&server, &json!({ "prompt": "" })).await;
    assert!(empty["choices"][0]["text"].as_str().unwrap().starts_with("Once"), "{empty}");
}

#[tokio::test]
async fn streams_and_log_probabilities() {
    let server = server();
    let whole = complete(&server, &json!({ "logprobs": 2 })).await;
    let logprobs = &whole["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 12);
    assert_eq!(logprobs["text_offset"][0], 0);
    assert!(
        logprobs["top_logprobs"].as_array().unwrap().iter().all(|top| top
            .as_object()
            .unwrap()
            .len()
            == 2)
    );
    let body = json!({
        "prompt": "Once upon a time", "temperature": 0, "max_tokens": 12, "logprobs": 2, "stream": true,
        "stream_options": { "include_usage": true },
    });
    let events = server.post(PATH, &body).await.events();
    let text: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(json!(text), whole["choices"][0]["text"]);
    let join = |name: &str| -> Vec<Value> {
        let lists = events.iter().filter_map(|e| e["choices"][0]["logprobs"][name].as_array());
        lists.flatten().cloned().collect()
    };
    for name in ["tokens", "token_logprobs", "text_offset"] {
        assert_eq!(json!(join(name)), logprobs[name], "{name}");
    }
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 12);
}

#[tokio::test]
async fn the_end_of_text_can_be_ignored() {
    let server = server();
    // The end of text is likelier than anything, unless it cannot be.
    for (ignore, finish, n) in [(false, "stop", 0), (true, "length", 30)] {
        let body = json!({
            "prompt": "Once", "max_tokens": 30, "temperature": 0, "logit_bias": { "2": 100 }, "ignore_eos": ignore,
        });
        let reply = server.post("/v1/completions", &body).await.json();
        assert_eq!(reply["choices"][0]["finish_reason"], finish, "{reply}");
        assert_eq!(reply["usage"]["completion_tokens"], n, "{reply}");
    }
}

#[tokio::test]
async fn wrong_types_in_every_field_name_the_field() {
    let server = server();
    let bad = json!({ "a": ["b"] });
    for field in [
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "stop",
        "seed",
        "logprobs",
        "echo",
        "stream",
        "stream_options",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "response_format",
        "grammar",
        "best_of",
        "suffix",
        "model",
    ] {
        // An object fits where an object belongs; there, a number does not.
        for value in [&bad, &json!(true), &json!(-1.5), &json!([[]])] {
            let reply =
                server.post(PATH, &json!({ "prompt": "x", "max_tokens": 1, field: value })).await;
            let status = reply.status.as_u16();
            assert!(status == 400 || status == 200, "{field} {value}: {}", reply.text);
            if status == 400 {
                assert!(reply.error().contains(field), "{field} {value}: {}", reply.text);
            }
        }
        let reply =
            server.post(PATH, &json!({ "prompt": "x", "max_tokens": 1, field: null })).await;
        assert_eq!(reply.status, 200, "{field} null: {}", reply.text);
    }
    for (field, value) in [
        ("temperature", json!(-1)),
        ("top_p", json!(2)),
        ("min_p", json!(-0.5)),
        ("n", json!(0)),
        ("n", json!(1000)),
        ("max_tokens", json!(0)),
        ("logprobs", json!(21)),
        ("repetition_penalty", json!(0)),
        ("best_of", json!(2)),
        ("stop", json!("")),
        ("stop", json!(vec!["x"; 17])),
        ("suffix", json!("x")),
        ("logit_bias", json!({ "x": 1 })),
        ("logit_bias", json!({ "100000": 1 })),
        ("prompt", json!([100_000])),
        ("prompt", json!([])),
        ("prompt", json!([[]])),
        ("response_format", json!({ "type": "xml" })),
        ("temperature", json!(1e300)),
        ("seed", json!(1e30)),
    ] {
        let reply =
            server.post(PATH, &json!({ "prompt": "x", "max_tokens": 1, field: value })).await;
        assert_eq!(reply.status, 400, "{field} {value}: {}", reply.text);
        let _ = reply.error();
    }
    server.idle().await;
}
