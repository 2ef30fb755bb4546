//! `puna serve`: models behind the protocols that clients speak.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use puna_core::{KvType, TensorSource};
use puna_engine::{Engine, EngineConfig};
use puna_hub::{Opened, built_in_names, default_chat_model, default_model};
use puna_kernels::Cpu;
use puna_model::{KvCache, MemoryPlan, Runner};
use puna_server::{
    About, Access, Config, Ended, Log, Model, Patience, Tls, Words, bind, read_keys,
};
use puna_tokenizer::Tokenizer;
use puna_tokenizer::chat::ChatTemplate;

use crate::args::{DraftArg, ModelArgs, ThreadsArg, count, whole};
use crate::failure::{Interrupted, Usage};
use crate::runtime::{BATCH_TOKENS, context_len, load_network, open};
use crate::{environment, system};

/// Where Amazon SageMaker puts the model of a container that it starts with the single argument `serve`.
const SAGEMAKER_MODEL: &str = "/opt/ml/model";
/// Of the memory that is free, the caches of keys and values may take one part in so many.
const CACHE_SHARE: u64 = 2;
/// The built-in model was trained on stories, not on dialogues: it goes on with what was said.
const STORY_TEMPLATE: &str = "{% for message in messages %}{% if not loop.first %} {% endif %}{{ message.content }}{% endfor %}";

/// Answer requests over HTTP
#[derive(Args)]
#[command(
    after_help = "Without MODEL the built-in stories7m-chat is served, which tells short stories. Requests name a model by its file's stem or its \
                  name; \"default\" is the first. Logs go to stderr, a line of JSON for each request.\n\n\
                  Ctrl-C or SIGTERM: what was begun is answered, then the server ends; a second one ends it at once.\n\n\
                  Example: puna serve llama-2-7b-chat.Q4_0.gguf --api-key-file keys.txt --host 0.0.0.0"
)]
pub(crate) struct ServeArgs {
    /// Files, folders or names
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    options: ModelArgs,
    #[command(flatten)]
    threads: ThreadsArg,
    #[command(flatten)]
    draft: DraftArg,
}

#[derive(Args)]
#[command(next_help_heading = "Address")]
struct ListenArgs {
    /// The address to listen at [default: PUNA_HOST, else 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// The port; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 8080, value_parser = whole(0, 65535))]
    port: u64,
    /// Serve HTTPS with this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let pages of ORIGIN (scheme://host:port) ask; * for all; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
}

#[derive(Args)]
#[command(next_help_heading = "Access and limits")]
struct LimitArgs {
    /// Ask for a key: FILE has one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen at an address that others reach though no key is asked for
    #[arg(long)]
    allow_anyone: bool,
    /// Compute up to N answers at once for each model; four times as many wait, others are told to come again
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count(1))]
    max_concurrent: usize,
    /// Take at most N requests a minute from each key, or from each address [default: no limit]
    #[arg(long, value_name = "N", value_parser = whole(1, 1_000_000))]
    rate_limit: Option<u64>,
    /// Write prompts and errors with their text to the log
    #[arg(long)]
    log_prompts: bool,
}

/// Loads the models, opens the port, and serves until told to end.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let host = args.listen.host.map_or_else(environment::host, |host| Ok(Some(host)))?;
    let host = host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let keys = match &args.limits.api_key_file {
        Some(path) => read_keys(path)?,
        None => Vec::new(),
    };
    let anyone = args.limits.allow_anyone || environment::allow_anyone();
    if keys.is_empty() && !host.is_loopback() && !anyone {
        bail!(Usage(format!(
            "at {host} others reach this server, and no key is asked for: give --api-key-file, or --allow-anyone if that \
             is what you want"
        )));
    }
    if let Some(origin) = args.listen.cors.iter().find(|origin| !is_origin(origin)) {
        bail!(Usage(format!(
            "--cors: expected scheme://host or scheme://host:port as browsers write it, or *; found {origin:?}"
        )));
    }
    let tls = match (&args.listen.tls_cert, &args.listen.tls_key) {
        (Some(cert), Some(key)) => Some(Tls::read(cert, key)?),
        _ => None,
    };
    // The port before the models: loading may take long.
    let listener = bind(host, args.listen.port as u16)?;
    let address = listener.local_addr().context("the port")?;
    let models = load(args)?;
    let names: Vec<String> = models.iter().map(|model| model.name().to_owned()).collect();
    let config = Config {
        models,
        local_names_only: keys.is_empty() && host.is_loopback(),
        access: Access::new(&keys, args.limits.rate_limit.map(|n| n as u32)),
        cors: args.listen.cors.clone(),
        log: Log::new(io::stderr(), args.limits.log_prompts),
        patience: Patience::default(),
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let shown = if host.is_unspecified() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    };
    note!("serving {} at {scheme}://{shown}/", names.join(", "));
    let ended = puna_server::run(config, listener, tls, || {
        note!("ending: what was begun is answered first; again ends at once");
    })?;
    if ended == Ended::Cut { Err(Interrupted.into()) } else { Ok(()) }
}

/// Whether browsers may send this as the origin of a page, or it is the word for all.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_host = |host: &str| !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    text == "*" || host.is_some_and(is_host) && text == text.to_lowercase()
}

/// The models asked for, each with a name of its own.
fn load(args: &ServeArgs) -> anyhow::Result<Vec<Model>> {
    let mut asked = args.models.clone();
    if asked.is_empty() {
        let given = Path::new(SAGEMAKER_MODEL).exists();
        let built_in = default_chat_model().unwrap_or_else(default_model);
        asked.push(if given { SAGEMAKER_MODEL } else { built_in }.to_owned());
    }
    let mut models: Vec<Model> = Vec::new();
    for model in &asked {
        let name = short_name(model);
        if models.iter().any(|other| other.name() == name) || (name == "default" && asked.len() > 1)
        {
            bail!(Usage(format!(
                "two models would be called {name}: give one of them another name"
            )));
        }
        models.push(load_one(args, model, &name, asked.len())?);
    }
    Ok(models)
}

/// The stem of a file or folder; the name of what is no path.
fn short_name(model: &str) -> String {
    let path = Path::new(model);
    if !path.exists() {
        return model.to_owned();
    }
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn load_one(args: &ServeArgs, model: &str, name: &str, n_models: usize) -> anyhow::Result<Model> {
    let opened = open(model, &args.options)?;
    let own_template = opened.checkpoint.chat_template.is_some();
    let tells_stories = !own_template && built_in_names().contains(&model);
    let Opened { checkpoint, tokenizer, template, is_chat, starters, bos_id, stop_ids, .. } =
        opened;
    let template = if tells_stories { story_template(&tokenizer)? } else { template };
    let source = checkpoint.source;
    let kv_type = args.options.kv_type;
    let ctx = context_len(source.config(), args.options.ctx);
    let network = load_network(model, &*source, kv_type, ctx)?;
    let max_concurrent = args.limits.max_concurrent;
    let n_blocks = n_blocks(&*source, kv_type, ctx, max_concurrent, n_models);
    let cpu = Cpu::new(args.threads.n_threads()).context("PUNA_ISA")?;
    let runner = Runner::new(network, cpu, kv_type, n_blocks);
    let config = EngineConfig {
        max_batch_tokens: BATCH_TOKENS.max(max_concurrent),
        max_seqs: max_concurrent,
        prefix_cache: true,
        max_draft: args.draft.draft,
    };
    let about = About {
        is_chat,
        sampling: checkpoint.sampling,
        starters: starters.iter().map(|&words| words.to_owned()).collect(),
        ..About::new(name, &*source, ctx, kv_type)
    };
    let words = Words { tokenizer, template, bos_id, stop_ids };
    let watch = Box::new(move || source.check_unchanged().map_err(|error| error.to_string()));
    let engine = Engine::new(runner, config);
    Ok(Model::start(about, words, engine, max_concurrent, watch)?)
}

fn story_template(tokenizer: &Tokenizer) -> anyhow::Result<ChatTemplate> {
    let text = |id: Option<u32>| {
        id.and_then(|id| tokenizer.piece(id)).map_or("", |piece| piece.text.as_str())
    };
    let (bos, eos) = (text(tokenizer.bos_id()), text(tokenizer.eos_id()));
    Ok(ChatTemplate::from_jinja(STORY_TEMPLATE, bos, eos)?)
}

/// Blocks for as many whole contexts as may be computed at once, or for as many as this model's share of the memory that
/// is free has room for; at least for one. Requests that find no block wait or are computed again.
fn n_blocks(
    source: &dyn TensorSource,
    kv_type: KvType,
    ctx: usize,
    max_concurrent: usize,
    n_models: usize,
) -> usize {
    let one = KvCache::blocks_for(ctx);
    let wanted = one.saturating_mul(max_concurrent);
    let Some(free) = system::available_memory() else { return wanted };
    let weights = {
        let plan = MemoryPlan::new(source, kv_type, ctx, BATCH_TOKENS);
        plan.mapped + plan.scratch
    };
    let share = free.saturating_sub(weights) / CACHE_SHARE / n_models as u64;
    let per_block = KvCache::bytes_per_block(source.config(), kv_type) as u64;
    let fitting = usize::try_from(share / per_block.max(1)).unwrap_or(usize::MAX);
    wanted.min(fitting).max(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_told_from_other_texts() {
        for good in ["*", "https://a.example", "http://localhost:3000", "http://[::1]:80"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in
            ["", "a.example", "https://", "https://a.example/", "https://A.example", "ftp://a"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn models_are_called_by_their_stem() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("llama-2-7b.Q4_0.gguf");
        std::fs::write(&file, "").unwrap();
        assert_eq!(short_name(file.to_str().unwrap()), "llama-2-7b.Q4_0");
        assert_eq!(short_name("stories260K"), "stories260K");
        assert_eq!(short_name("meta-llama/Llama-2-7b"), "meta-llama/Llama-2-7b");
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(short_name(folder.path().to_str().unwrap()), name);
    }
}
