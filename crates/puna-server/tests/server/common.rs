//! A server over the built-in model, and ways to ask it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use futures_util::StreamExt;
use puna_core::{KvType, SamplingHints};
use puna_engine::{BLOCK_LEN, Engine, EngineConfig};
use puna_hub::{OpenOptions, Opened};
use puna_kernels::Cpu;
use puna_model::{Model as Network, Runner};
use puna_server::{About, Access, Config, Log, Model, Patience, Words, app};
use puna_tokenizer::chat::ChatTemplate;
use serde_json::Value;
use tower::ServiceExt;

/// Positions of the built-in model.
pub(crate) const CTX: usize = 512;

/// What tests vary.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) max_concurrent: usize,
    pub(crate) keys: Vec<String>,
    pub(crate) per_minute: Option<u32>,
    pub(crate) cors: Vec<String>,
    pub(crate) local_names_only: bool,
    pub(crate) log_text: bool,
    pub(crate) patience: Patience,
    /// What the model's files suggest.
    pub(crate) sampling: SamplingHints,
    /// Jinja; without it Llama 2's form.
    pub(crate) template: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent: 8,
            keys: Vec::new(),
            per_minute: None,
            cors: Vec::new(),
            local_names_only: false,
            log_text: false,
            patience: Patience::default(),
            sampling: SamplingHints::default(),
            template: Some("{% for m in messages %}{{ m.content }}{% endfor %}"),
        }
    }
}

/// A running server, and what it logs.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) log: Memory,
}

#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn server() -> Server {
    server_with(&Options::default())
}

pub(crate) fn server_with(options: &Options) -> Server {
    let (config, log) = config_with(options);
    Server { router: app(config), log }
}

/// What a server is made of, and what it logs.
pub(crate) fn config_with(options: &Options) -> (Config, Memory) {
    let Opened { checkpoint, tokenizer, bos_id, stop_ids, .. } =
        puna_hub::open("stories260K", &OpenOptions::default()).unwrap();
    let source = checkpoint.source;
    let network = Arc::new(Network::load(&*source, CTX).unwrap());
    let n_blocks = CTX.div_ceil(BLOCK_LEN) * 4;
    let runner = Runner::new(network, Cpu::new(1).unwrap(), KvType::F16, n_blocks);
    let config = EngineConfig { max_seqs: options.max_concurrent, ..EngineConfig::default() };
    let template = options.template.map_or(ChatTemplate::Llama2, |source| {
        ChatTemplate::from_jinja(source, "<s>", "</s>").unwrap()
    });
    let words = Words { tokenizer, template, bos_id, stop_ids };
    let about = About {
        starters: vec!["Once".to_owned()],
        sampling: options.sampling,
        ..About::new("stories260K", &*source, CTX, KvType::F16)
    };
    let engine = Engine::new(runner, config);
    let model =
        Model::start(about, words, engine, options.max_concurrent, Box::new(|| Ok(()))).unwrap();
    let log = Memory::default();
    let config = Config {
        models: vec![model],
        access: Access::new(&options.keys, options.per_minute),
        cors: options.cors.clone(),
        local_names_only: options.local_names_only,
        log: Log::new(log.clone(), options.log_text),
        patience: options.patience,
    };
    (config, log)
}

/// A response that has been read.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {:?}", self.text))
    }

    /// The data of each event of a stream.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut events: Vec<&str> =
            self.text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "the last event");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// OpenAI's error message.
    pub(crate) fn error(&self) -> String {
        let object = self.json();
        assert!(object["error"]["type"].is_string(), "{object}");
        object["error"]["message"].as_str().unwrap().to_owned()
    }
}

impl Server {
    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn read(&self, request: Request<Body>) -> Reply {
        let response = self.send(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Reply { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.read(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_raw(path, body.to_string()).await
    }

    pub(crate) async fn post_raw(&self, path: &str, body: impl Into<Body>) -> Reply {
        self.read(Request::post(path).body(body.into()).unwrap()).await
    }

    /// What a gauge or counter of the only model says.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.text;
        let start = format!("{name}{{model=\"stories260K\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until no request is computed and none waits.
    pub(crate) async fn idle(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let open = self.metric("puna_requests_running").await
                + self.metric("puna_requests_waiting").await
                + self.metric("puna_cache_blocks_held").await;
            if open == 0 {
                return;
            }
            assert!(Instant::now() < end, "still {open}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The first `n` pieces of a body; then the client goes.
pub(crate) async fn first_pieces(response: Response, n: usize) -> String {
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    for _ in 0..n {
        let Some(piece) = body.next().await else { break };
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    text
}
