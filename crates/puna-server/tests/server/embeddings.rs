//! `/v1/embeddings`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::common::server;

const PATH: &str = "/v1/embeddings";

#[tokio::test]
async fn embeddings_are_of_length_one_and_the_same_in_any_company() {
    let server = server();
    let texts = ["Once upon a time", "a cat", "the sun was shining and the bird sang"];
    let all = server.post(PATH, &json!({ "input": texts })).await.json();
    let vector =
        |json: &serde_json::Value| -> Vec<f32> { serde_json::from_value(json.clone()).unwrap() };
    for (i, text) in texts.iter().enumerate() {
        let alone = server.post(PATH, &json!({ "input": text })).await.json();
        let (found, alone) =
            (vector(&all["data"][i]["embedding"]), vector(&alone["data"][0]["embedding"]));
        assert_eq!(found, alone, "{text}");
        assert_eq!(found.len(), 64);
        let norm: f32 = found.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    assert_eq!(all["usage"]["prompt_tokens"], all["usage"]["total_tokens"]);
    let packed =
        server.post(PATH, &json!({ "input": texts[0], "encoding_format": "base64" })).await.json();
    let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let unpacked: Vec<f32> =
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(unpacked, vector(&all["data"][0]["embedding"]));
    server.idle().await;
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused() {
    let server = server();
    for (body, expected) in [
        (json!({}), "input"),
        (json!({ "input": [] }), "found none"),
        (json!({ "input": vec!["x"; 2049] }), "found 2049"),
        (json!({ "input": "x", "dimensions": 3 }), "64 numbers"),
        (json!({ "input": "x", "encoding_format": "int8" }), "encoding_format"),
        (json!({ "input": "Once upon a time ".repeat(200) }), "512 tokens"),
        (json!({ "input": [999_999] }), "vocabulary"),
    ] {
        let reply = server.post(PATH, &body).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert!(reply.error().contains(expected), "{}", reply.text);
    }
}
