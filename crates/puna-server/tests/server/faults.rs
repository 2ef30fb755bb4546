//! What the world does to a server: nothing crashes, no place is lost, nobody sees another's text.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures_util::stream;
use serde_json::{Value, json};

use crate::common::{Options, first_pieces, server, server_with};

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let server = server();
    let deep = format!("{{\"prompt\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [Vec<u8>; 9] = [
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\"x\"".to_vec(),
        b"{\"prompt\": \"\xff\xfe\"}".to_vec(),
        b"{\"prompt\": \"\\ud800\"}".to_vec(),
        b"{\"prompt\": \"x\"} trailing".to_vec(),
        deep.into_bytes(),
    ];
    for path in ["/v1/completions", "/v1/chat/completions", "/v1/embeddings"] {
        for body in &bodies {
            let reply = server.post_raw(path, body.clone()).await;
            let brief = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            assert_eq!(reply.status, 400, "{path} {brief}: {}", reply.text);
            let _ = reply.error();
        }
    }
    let huge = format!("{{\"prompt\": \"{}\"}}", "a".repeat(9 << 20));
    let reply = server.post_raw("/v1/completions", huge).await;
    assert_eq!(reply.status, 413);
    assert!(reply.error().contains("8388608"), "{}", reply.text);
}

#[tokio::test]
async fn clients_that_leave_free_their_places() {
    let server = server();
    let body = json!({ "prompt": "Once upon a time", "stream": true, "max_tokens": 400, "n": 3 });
    for n_pieces in [0, 1, 2, 10] {
        let request = Request::post("/v1/completions").body(Body::from(body.to_string())).unwrap();
        let response = server.send(request).await;
        assert_eq!(response.status(), 200);
        let _ = first_pieces(response, n_pieces).await;
        server.idle().await;
    }
    // Before there is a response at all.
    let whole = json!({ "prompt": "Once upon a time", "max_tokens": 400, "n": 3 });
    for millis in [0, 1, 5, 20] {
        let asking = server.post("/v1/completions", &whole);
        let _ = tokio::time::timeout(Duration::from_millis(millis), asking).await;
        server.idle().await;
    }
    // While the body is still being sent.
    let never = stream::once(async { Ok::<_, std::io::Error>(Bytes::from("{\"prompt\":")) });
    let body = Body::from_stream(futures_util::StreamExt::chain(never, stream::pending()));
    let asking = server.post_raw("/v1/completions", body);
    assert!(tokio::time::timeout(Duration::from_millis(20), asking).await.is_err());
    let broken = stream::iter([Ok(Bytes::from("{\"pro")), Err(std::io::Error::other("gone"))]);
    let reply = server.post_raw("/v1/completions", Body::from_stream(broken)).await;
    assert_eq!(reply.status, 400);
    server.idle().await;
}

#[tokio::test]
async fn a_thousand_at_once_are_answered_or_told_to_come_again() {
    let server = server_with(&Options { max_concurrent: 4, ..Options::default() });
    let greedy = |prompt: &str| json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 });
    let prompts = ["Once upon a time", "Lily", "The cat"];
    let mut expected = Vec::new();
    for prompt in prompts {
        expected.push(
            server.post("/v1/completions", &greedy(prompt)).await.json()["choices"][0]["text"]
                .clone(),
        );
    }
    let tasks: Vec<_> = (0..1000)
        .map(|i| {
            let (server, body) = (server.clone(), greedy(prompts[i % 3]));
            tokio::spawn(async move { server.post("/v1/completions", &body).await })
        })
        .collect();
    let (mut n_answered, mut n_refused) = (0, 0);
    for (i, task) in tasks.into_iter().enumerate() {
        let reply = task.await.unwrap();
        match reply.status.as_u16() {
            200 => {
                assert_eq!(reply.json()["choices"][0]["text"], expected[i % 3], "request {i}");
                n_answered += 1;
            }
            429 => {
                assert!(reply.headers.contains_key("retry-after"));
                assert_eq!(reply.json()["error"]["code"], "server_busy");
                n_refused += 1;
            }
            status => panic!("{status}: {}", reply.text),
        }
    }
    assert_eq!(n_answered + n_refused, 1000);
    assert!(n_answered >= 20 && n_refused > 0, "{n_answered} answered, {n_refused} refused");
    server.idle().await;
    let reply = server.post("/v1/completions", &greedy("Lily")).await;
    assert_eq!(reply.status, 200, "all places are free again");
}

#[tokio::test]
async fn control_tokens_in_prompts_are_plain_text() {
    let server = server();
    let body = json!({ "prompt": "</s><s>", "max_tokens": 3, "temperature": 0, "echo": true });
    let reply = server.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.json()["choices"][0]["text"].as_str().unwrap().starts_with("</s><s>"),
        "{}",
        reply.text
    );
    let chat = json!({ "messages": [{ "role": "user", "content": "</s>" }], "max_tokens": 3 });
    assert_eq!(server.post("/v1/chat/completions", &chat).await.status, 400);
}

#[tokio::test]
async fn a_template_that_would_run_for_ever_is_stopped() {
    let template = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    let server = server_with(&Options { template: Some(template), ..Options::default() });
    let chat = json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 3 });
    let reply = server.post("/v1/chat/completions", &chat).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert!(reply.error().contains("template"), "{}", reply.text);
}

#[tokio::test]
async fn errors_within_a_stream_are_events() {
    let server = server();
    // A bias that forbids everything shows only when a token is to be drawn.
    let ids: Value =
        (0..512).map(|id| (id.to_string(), json!(-3e38))).collect::<serde_json::Map<_, _>>().into();
    let body = json!({ "prompt": "x", "logit_bias": ids, "frequency_penalty": 2.0, "max_tokens": 3, "stream": true });
    let reply = server.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200);
    assert!(reply.text.contains("data: "), "{}", reply.text);
    server.idle().await;
}
