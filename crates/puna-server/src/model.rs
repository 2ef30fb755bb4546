//! A model that is served: its tokenizer and template, its engine's thread, and how many may ask it at once.

use std::io;
use std::sync::{Arc, OnceLock};

use puna_core::{KvType, SamplingHints, TensorSource, WeightId};
use puna_engine::{Engine, Forward};
use puna_tokenizer::Tokenizer;
use puna_tokenizer::chat::{ChatTemplate, Message};
use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::grammar::{Form, Grammar, Grammars};
use crate::metrics::ModelMetrics;
use crate::worker::{Watch, Worker};

/// For each request that is computed, so many may wait for their turn.
const N_WAITING_EACH: usize = 4;

/// What clients are told of a model.
#[derive(Clone, Debug)]
pub struct About {
    /// The name it is asked for by.
    pub name: String,
    /// Most tokens of a prompt and its answer.
    pub ctx: usize,
    /// Width of a hidden state, which is the length of an embedding.
    pub dim: usize,
    /// Number of parameters.
    pub n_params: u64,
    /// Bytes of all weights.
    pub n_bytes: u64,
    /// The type that most bytes of the weights have.
    pub weight_type: &'static str,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Whether it was made for conversations; else it continues texts.
    pub is_chat: bool,
    /// How tokens are drawn where a request does not say.
    pub sampling: SamplingHints,
    /// What a page offers to begin with.
    pub starters: Vec<String>,
}

impl About {
    /// Of the model in `source`, served with a context of `ctx`: one that continues texts, without anything to begin with.
    pub fn new(name: &str, source: &dyn TensorSource, ctx: usize, kv_type: KvType) -> Self {
        let config = source.config();
        let mut by_type: Vec<(&'static str, u64)> = Vec::new();
        for id in WeightId::all(config) {
            let Some(info) = source.info(id) else { continue };
            let n_bytes = info.n_bytes().unwrap_or(0) as u64;
            match by_type.iter_mut().find(|(name, _)| *name == info.dtype.name()) {
                Some((_, sum)) => *sum += n_bytes,
                None => by_type.push((info.dtype.name(), n_bytes)),
            }
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            name: name.to_owned(),
            ctx,
            dim: config.dim,
            n_params: config.n_params(),
            n_bytes: by_type.iter().map(|(_, n)| n).sum(),
            weight_type: by_type.iter().max_by_key(|(_, n)| *n).map_or("none", |(name, _)| name),
            kv_type,
            created: now.map_or(0, |since| since.as_secs()),
            is_chat: false,
            sampling: SamplingHints::default(),
            starters: Vec::new(),
        }
    }
}

/// How a model's text becomes ids.
pub struct Words {
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// How conversations become prompts.
    pub template: ChatTemplate,
    /// The token to put before a prompt, where the model wants one.
    pub bos_id: Option<u32>,
    /// Tokens that end an answer.
    pub stop_ids: Vec<u32>,
}

/// A model that is served.
pub struct Model {
    pub(crate) about: About,
    pub(crate) tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    bos_id: Option<u32>,
    pub(crate) stop_ids: Vec<u32>,
    pub(crate) worker: Worker,
    pub(crate) metrics: ModelMetrics,
    /// A place for each request that is computed or waits.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) n_places: usize,
    grammars: OnceLock<Result<Grammars, String>>,
}

impl Model {
    /// Starts a thread that steps `engine`, which computes at most `max_concurrent` requests at once. After each step
    /// `watch` says whether the model's files are still what they were.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start<F: Forward + Send + 'static>(
        about: About,
        words: Words,
        engine: Engine<F>,
        max_concurrent: usize,
        watch: Watch,
    ) -> io::Result<Self> {
        let Words { tokenizer, template, bos_id, stop_ids } = words;
        let about = About { ctx: about.ctx.min(engine.context()), ..about };
        let worker = Worker::start(&about.name, engine, watch)?;
        let n_places = max_concurrent * (1 + N_WAITING_EACH);
        Ok(Self {
            about,
            tokenizer: Arc::new(tokenizer),
            template,
            bos_id,
            stop_ids,
            worker,
            metrics: ModelMetrics::default(),
            places: Arc::new(Semaphore::new(n_places)),
            n_places,
            grammars: OnceLock::new(),
        })
    }

    /// What it is asked for by.
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// The ids of a text to be continued: what looks like a control token in it is plain text.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = self.bos_id.into_iter().collect();
        self.tokenizer.encode_into(text, &mut ids);
        ids
    }

    /// The ids after which the model answers a conversation. Control tokens in it are refused.
    pub(crate) fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, ApiError> {
        Ok(self.template.render(&self.tokenizer, messages)?)
    }

    /// Compiles the form of an answer; `param` is the field that it comes from.
    pub(crate) fn compile(
        &self,
        param: &str,
        form: &Form,
        after_space: bool,
    ) -> Result<Grammar, ApiError> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.tokenizer, &self.stop_ids));
        let grammars = grammars.as_ref().map_err(|why| ApiError::field(param, why.as_str()))?;
        grammars.compile(form, after_space).map_err(|why| ApiError::field(param, why))
    }
}
