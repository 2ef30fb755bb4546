use axum::body::{Body, to_bytes};
use axum::http::Request as HttpRequest;
use puna_core::{KvType, SamplingHints};
use puna_engine::{Chunk, Engine, EngineConfig, Forward, Output};
use puna_tokenizer::chat::ChatTemplate;
use puna_tokenizer::{Piece, PieceKind, Settings, Tokenizer};
use tower::ServiceExt;

use super::*;
use crate::model::{About, Words};

/// A network that fails whatever it reads.
struct Broken;

impl Forward for Broken {
    fn vocab_size(&self) -> usize {
        5
    }

    fn dim(&self) -> usize {
        1
    }

    fn n_blocks(&self) -> usize {
        4
    }

    fn max_seq_len(&self) -> usize {
        64
    }

    fn forward(&mut self, _: &[Chunk<'_>]) -> Output<'_> {
        panic!("the network is out of order")
    }
}

fn broken_app() -> App {
    let piece = |text: &str, kind| Piece { text: text.to_owned(), score: 0.0, kind };
    let pieces = vec![
        piece("<unk>", PieceKind::Unknown),
        piece("<s>", PieceKind::Control),
        piece("</s>", PieceKind::Control),
        piece("▁", PieceKind::Normal),
        piece("a", PieceKind::Normal),
    ];
    let settings = Settings { byte_fallback: false, ..Settings::default() };
    let tokenizer = Tokenizer::from_pieces(pieces, settings).unwrap();
    let words =
        Words { tokenizer, template: ChatTemplate::Llama2, bos_id: Some(1), stop_ids: vec![2] };
    let about = About {
        name: "broken".to_owned(),
        ctx: 64,
        dim: 1,
        n_params: 0,
        n_bytes: 0,
        weight_type: "none",
        kv_type: KvType::F16,
        created: 0,
        is_chat: false,
        sampling: SamplingHints::default(),
        starters: Vec::new(),
    };
    let engine = Engine::new(Broken, EngineConfig::default());
    let model = Model::start(about, words, engine, 4, Box::new(|| Ok(()))).unwrap();
    Shared::new(Config {
        models: vec![model],
        access: Access::new(&[], None),
        cors: Vec::new(),
        local_names_only: false,
        log: Log::new(std::io::sink(), false),
        patience: Patience::default(),
    })
}

async fn read(router: &Router, request: HttpRequest<Body>) -> (u16, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn names_of_this_machine_are_known() {
    for host in
        ["", "localhost", "localhost:8080", "127.0.0.1", "127.1.2.3:80", "[::1]:8080", "[::1]"]
    {
        assert!(is_local(host), "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "10.0.0.1:80",
        "127.0.0.1.evil.example",
    ] {
        assert!(!is_local(host), "{host}");
    }
}

async fn mistaken() -> &'static str {
    panic!("a mistake of ours")
}

#[tokio::test]
async fn a_panic_in_a_handler_is_an_error_and_the_server_goes_on() {
    let app = broken_app();
    let router = Router::new()
        .route("/panic", get(mistaken))
        .route("/fine", get(|| async { "fine" }))
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app);
    let get = |path: &str| HttpRequest::get(path).body(Body::empty()).unwrap();
    for _ in 0..3 {
        let (status, text) = read(&router, get("/panic")).await;
        assert_eq!(status, 500);
        assert!(text.contains("server_error") && !text.contains("a mistake of ours"), "{text}");
        assert_eq!(read(&router, get("/fine")).await, (200, "fine".to_owned()));
    }
}

#[tokio::test]
async fn an_engine_that_fails_tells_everybody_and_the_server_goes_on() {
    let router = router(broken_app());
    let get = |path: &str| HttpRequest::get(path).body(Body::empty()).unwrap();
    assert_eq!(read(&router, get("/health")).await.0, 200);
    for i in 0..3 {
        let body = Body::from(r#"{"prompt": "a"}"#);
        let (status, text) =
            read(&router, HttpRequest::post("/v1/completions").body(body).unwrap()).await;
        assert_eq!(status, 500, "request {i}: {text}");
        assert!(text.contains("cannot answer any more"), "request {i}: {text}");
    }
    for path in ["/health", "/ready", "/ping"] {
        assert_eq!(read(&router, get(path)).await.0, 503, "{path}");
    }
    assert_eq!(read(&router, get("/v1/models")).await.0, 200);
}
