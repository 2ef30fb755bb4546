//! Keys, rates, origins, logs, and the addresses that need none of them.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::common::{Options, server, server_with};

const KEY: &str = "a-secret-of-ours";

#[tokio::test]
async fn only_keys_open_what_is_closed() {
    let server = server_with(&Options { keys: vec![KEY.to_owned()], ..Options::default() });
    let get = |path: &str, header: Option<(&str, &str)>| {
        let mut request = Request::get(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        server.read(request.body(Body::empty()).unwrap())
    };
    for path in ["/v1/models", "/metrics", "/v1/models/x"] {
        for header in [None, Some(("authorization", "Bearer wrong")), Some(("api-key", ""))] {
            let reply = get(path, header).await;
            assert_eq!(reply.status, 401, "{path} {header:?}");
            assert_eq!(reply.headers["www-authenticate"], "Bearer");
            assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
        }
        let bearer = format!("Bearer {KEY}");
        for header in [("authorization", bearer.as_str()), ("api-key", KEY), ("x-api-key", KEY)] {
            assert_ne!(get(path, Some(header)).await.status, 401, "{path} {header:?}");
        }
    }
    for path in ["/", "/health", "/ready"] {
        assert_eq!(get(path, None).await.status, 200, "{path}");
    }
    let body = json!({ "prompt": "x", "max_tokens": 1 });
    assert_eq!(server.post("/v1/completions", &body).await.status, 401);
    assert!(!server.log.text().contains(KEY), "a key is never logged");
}

#[tokio::test]
async fn a_rate_is_kept() {
    let server = server_with(&Options { per_minute: Some(2), ..Options::default() });
    let body = json!({ "prompt": "x", "max_tokens": 1 });
    for status in [200, 200, 429, 429] {
        let reply = server.post("/v1/completions", &body).await;
        assert_eq!(reply.status, status);
        if status == 429 {
            let wait: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=30).contains(&wait), "{wait}");
        }
    }
    assert_eq!(server.get("/v1/models").await.status, 200, "looking costs nothing");
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let cors = vec!["https://good.example".to_owned()];
    let server = server_with(&Options { cors, local_names_only: true, ..Options::default() });
    let ask = |host: &'static str, origin: Option<&'static str>| {
        let mut request = Request::post("/v1/completions").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let body = json!({ "prompt": "x", "max_tokens": 1 }).to_string();
        server.read(request.body(Body::from(body)).unwrap())
    };
    for (host, origin, status) in [
        ("127.0.0.1:8080", None, 200),
        ("localhost:8080", Some("http://localhost:8080"), 200),
        ("localhost:8080", Some("https://good.example"), 200),
        ("localhost:8080", Some("https://evil.example"), 403),
        ("localhost:8080", Some("null"), 403),
        ("evil.example:8080", Some("http://evil.example:8080"), 403),
        ("evil.example:8080", None, 403),
    ] {
        assert_eq!(ask(host, origin).await.status, status, "{host} {origin:?}");
    }
    let preflight = Request::options("/v1/completions")
        .header("host", "localhost")
        .header("origin", "https://good.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let reply = server.read(preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["access-control-allow-origin"], "https://good.example");
}

#[tokio::test]
async fn the_log_has_a_line_for_each_request_and_no_text() {
    for log_text in [false, true] {
        let server = server_with(&Options { log_text, ..Options::default() });
        let body =
            json!({ "prompt": "Once upon a time, a very secret", "max_tokens": 3 }).to_string();
        let request = Request::post("/v1/completions").header("x-request-id", "mine-1");
        let reply = server.read(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(reply.headers["x-request-id"], "mine-1");
        let other = server.get("/nothing").await;
        let id = other.headers["x-request-id"].to_str().unwrap().to_owned();
        server.post("/v1/completions", &json!({ "prompt": ["secret"], "model": "none" })).await;
        let text = server.log.text();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!((&lines[0]["request"], &lines[0]["status"]), (&json!("mine-1"), &json!(200)));
        assert_eq!(
            (&lines[0]["path"], &lines[0]["generated_tokens"]),
            (&json!("/v1/completions"), &json!(3))
        );
        assert_eq!((&lines[1]["request"], &lines[1]["status"]), (&json!(id), &json!(404)));
        assert_eq!(lines[2]["status"], 404);
        assert_eq!(text.contains("secret"), log_text, "{text}");
    }
}

#[tokio::test]
async fn unknown_addresses_and_methods_have_errors_too() {
    let server = server();
    for path in [
        "/v2/models",
        "/v1/",
        "/ui/../Cargo.toml",
        "/ui/..%2f..%2fCargo.toml",
        "/ui//etc/passwd",
        "/ui/index.html/",
    ] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        let _ = reply.error();
    }
    let reply = server.get("/v1/completions").await;
    assert_eq!(reply.status, 405);
    let _ = reply.error();
    let page = server.get("/").await;
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    assert!(page.text.contains("Puna"));
}
