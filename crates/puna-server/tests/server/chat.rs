//! `/v1/chat/completions` and `/v1/models`.

use serde_json::{Value, json};

use crate::common::{Options, Reply, Server, server, server_with};

const PATH: &str = "/v1/chat/completions";

fn ask(more: &Value) -> Value {
    let mut body = json!({
        "messages": [{ "role": "user", "content": "Once upon a time" }],
        "temperature": 0, "max_tokens": 20,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn content(server: &Server, more: &Value) -> String {
    let reply = server.post(PATH, &ask(more)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// The text of choice `index` of a stream.
fn streamed(reply: &Reply, index: u64) -> String {
    let events = reply.events();
    let choices = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
    let own = choices.filter(|choice| choice["index"] == index);
    own.filter_map(|choice| choice["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn an_answer_whole_and_streamed_is_the_same() {
    let server = server();
    let whole = server.post(PATH, &ask(&json!({}))).await.json();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.starts_with(", there was a little girl"), "{text}");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 20);
    assert!(whole["timings"]["total_secs"].as_f64().unwrap() > 0.0);

    let more = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let reply = server.post(PATH, &ask(&more)).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let events = reply.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(events.iter().all(|event| event["id"] == events[0]["id"]));
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
    assert_eq!(streamed(&reply, 0), text);
    let [.., finish, usage] = &events[..] else { panic!() };
    assert_eq!(finish["choices"][0]["finish_reason"], "length");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 20);
    assert!(usage["timings"]["answer_tokens_per_sec"].as_f64().unwrap() > 0.0);
    // The prompt was read already, but for what does not fill a block.
    assert_eq!(usage["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    server.idle().await;
}

#[tokio::test]
async fn a_seed_gives_the_same_text_alone_and_in_company() {
    let server = server();
    let seeded = json!({ "temperature": 1.0, "seed": 7, "max_tokens": 40 });
    let alone = content(&server, &seeded).await;
    let tasks: Vec<_> = (0..12)
        .map(|i| {
            let server = server.clone();
            let more =
                if i % 2 == 0 { seeded.clone() } else { json!({ "temperature": 1.1, "seed": i }) };
            tokio::spawn(async move { content(&server, &more).await })
        })
        .collect();
    for (i, task) in tasks.into_iter().enumerate() {
        let text = task.await.unwrap();
        assert_eq!(text == alone, i % 2 == 0, "request {i}: {text}");
    }
    let unseeded = json!({ "temperature": 1.0, "max_tokens": 40 });
    assert_ne!(content(&server, &unseeded).await, content(&server, &unseeded).await);
}

#[tokio::test]
async fn several_answers_have_seeds_of_their_own() {
    let server = server();
    let more = json!({ "temperature": 1.0, "seed": 3, "n": 3 });
    let whole = server.post(PATH, &ask(&more)).await.json();
    let texts: Vec<&str> =
        (0..3).map(|i| whole["choices"][i]["message"]["content"].as_str().unwrap()).collect();
    for (i, text) in texts.iter().enumerate() {
        let alone = content(&server, &json!({ "temperature": 1.0, "seed": 3 + i })).await;
        assert_eq!(**text, *alone);
    }
    assert_ne!(texts[0], texts[1]);
    assert_eq!(whole["usage"]["completion_tokens"], 60);
    let mut streaming = more;
    streaming["stream"] = true.into();
    let reply = server.post(PATH, &ask(&streaming)).await;
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(streamed(&reply, i as u64), **text);
    }
}

#[tokio::test]
async fn stop_strings_end_an_answer_before_themselves() {
    let server = server();
    let text = content(&server, &json!({})).await;
    for stop in [json!("little"), json!(["xyz", "e girl", "little g"]), json!(" was")] {
        for stream in [false, true] {
            let reply = server.post(PATH, &ask(&json!({ "stop": stop, "stream": stream }))).await;
            let (found, finish) = if stream {
                let events = reply.events();
                let finish = events.last().unwrap()["choices"][0]["finish_reason"].clone();
                (streamed(&reply, 0), finish)
            } else {
                let choice = &reply.json()["choices"][0];
                let text = choice["message"]["content"].as_str().unwrap().to_owned();
                (text, choice["finish_reason"].clone())
            };
            assert_eq!(finish, "stop");
            let stops = stop.as_array().cloned().unwrap_or(vec![stop.clone()]);
            let first = stops.iter().filter_map(|s| text.find(s.as_str().unwrap())).min().unwrap();
            assert_eq!(found, text[..first], "{stop}");
        }
    }
    server.idle().await;
}

#[tokio::test]
async fn log_probabilities_are_those_of_the_tokens() {
    let server = server();
    let more = json!({ "logprobs": true, "top_logprobs": 3, "max_tokens": 8 });
    let whole = server.post(PATH, &ask(&more)).await.json();
    let choice = &whole["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 8);
    let joined: String = content.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
    assert_eq!(joined, choice["message"]["content"].as_str().unwrap());
    for entry in content {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(top[0]["token"], entry["token"], "greedy takes the likeliest");
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
        let bytes: Vec<u8> = serde_json::from_value(entry["bytes"].clone()).unwrap();
        assert_eq!(bytes, entry["token"].as_str().unwrap().as_bytes());
    }
    let mut streaming = more;
    streaming["stream"] = true.into();
    let events = server.post(PATH, &ask(&streaming)).await.events();
    let pieces = events.iter().filter_map(|e| e["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(&pieces.flatten().cloned().collect::<Vec<_>>(), content);
}

#[tokio::test]
async fn biases_and_penalties_reach_the_sampler() {
    let server = server();
    let text = content(&server, &json!({})).await;
    let long = content(&server, &json!({ "max_tokens": 60 })).await;
    for name in ["frequency_penalty", "presence_penalty", "repetition_penalty"] {
        let penalised = content(&server, &json!({ "max_tokens": 60, name: 1.9 })).await;
        assert_ne!(penalised, long, "{name}");
    }
    // Token 2 ends the answer.
    let ended = server.post(PATH, &ask(&json!({ "logit_bias": { "2": 100 } }))).await.json();
    assert_eq!(ended["choices"][0]["message"]["content"], "");
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    assert_eq!(ended["usage"]["completion_tokens"], 0);
    let hot = json!({ "temperature": 1.8, "seed": 1 });
    let sharp = json!({ "temperature": 1.8, "seed": 1, "top_k": 1 });
    assert_ne!(content(&server, &hot).await, text);
    assert_eq!(content(&server, &sharp).await, text);
    assert_eq!(
        content(&server, &json!({ "temperature": 1.8, "min_p": 1.0, "seed": 5 })).await,
        text
    );
}

#[tokio::test]
async fn the_second_turn_reads_only_what_is_new() {
    let server = server();
    let first = server.post(PATH, &ask(&json!({ "max_tokens": 100 }))).await.json();
    let said = first["choices"][0]["message"]["content"].as_str().unwrap();
    let messages = json!([
        { "role": "user", "content": "Once upon a time" },
        { "role": "assistant", "content": said },
        { "role": "user", "content": [{ "type": "text", "text": " The end" }] },
    ]);
    let second = server.post(PATH, &ask(&json!({ "messages": messages }))).await.json();
    let n_cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let n_prompt = second["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(n_cached >= 64 && n_prompt - n_cached < 64, "{n_cached} of {n_prompt}");
    assert_eq!(server.metric("puna_cached_tokens_total").await, n_cached);
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_with_both_numbers() {
    let server = server();
    let long = "Once upon a time ".repeat(200);
    let messages = json!([{ "role": "user", "content": long }]);
    let reply = server.post(PATH, &ask(&json!({ "messages": messages }))).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
    let message = reply.error();
    assert!(message.contains("512 tokens") && message.contains("the prompt has 8"), "{message}");
}

#[tokio::test]
async fn messages_are_checked() {
    let server = server_with(&Options { template: None, ..Options::default() });
    let user = json!({ "role": "user", "content": "hi" });
    for (messages, expected) in [
        (json!([]), "expected at least one"),
        (json!([{ "role": "assistant", "content": "x" }]), "expected role user, found assistant"),
        (json!([user, user]), "expected role assistant, found user"),
        (json!([{ "role": "user", "content": "a </s> b" }]), "special tag \"</s>\""),
        (json!([{ "role": "user", "content": "a [/INST] b" }]), "special tag \"[/INST]\""),
        (json!([{ "role": "user", "content": [{ "type": "image_url" }] }]), "image_url"),
        (json!([{ "role": "king", "content": "x" }]), "unknown variant `king`"),
    ] {
        let reply = server.post(PATH, &ask(&json!({ "messages": messages }))).await;
        assert_eq!(reply.status, 400, "{messages}");
        let message = reply.error();
        assert!(message.contains(expected) && message.contains("messages"), "{message}");
    }
    let reply = server.post(PATH, &ask(&json!({ "messages": [user] }))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[tokio::test]
async fn models_are_listed_and_named() {
    let server = server();
    let list = server.get("/v1/models").await.json();
    let model = &list["data"][0];
    assert_eq!((&model["id"], &model["object"]), (&json!("stories260K"), &json!("model")));
    assert_eq!((&model["context_length"], &model["weight_type"]), (&json!(512), &json!("f32")));
    assert!(model["size_bytes"].as_u64().unwrap() > 1_000_000);
    assert_eq!((&model["chat"], &model["starters"]), (&json!(false), &json!(["Once"])));
    assert_eq!(server.get("/v1/models/stories260K").await.json(), *model);
    let missing = server.get("/v1/models/gpt-4").await;
    assert_eq!(
        (missing.status.as_u16(), missing.json()["error"]["code"].as_str()),
        (404, Some("model_not_found"))
    );
    for (name, status) in [("stories260K", 200), ("default", 200), ("gpt-4", 404)] {
        let reply = server.post(PATH, &ask(&json!({ "model": name }))).await;
        assert_eq!(reply.status, status, "{name}");
    }
    let azure = "/openai/deployments/stories260K/chat/completions?api-version=2024-10-21";
    let reply = server.post(azure, &ask(&json!({}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let other = server.post("/openai/deployments/gpt-4/chat/completions", &ask(&json!({}))).await;
    assert_eq!(other.status, 404);
}
