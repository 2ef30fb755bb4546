//! `puna data build`: texts to token shards.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use puna_data::{Config, DataError, Job, Manifest};
use puna_formats::{AtomicFolder, Existing};

use super::report;
use crate::args::ThreadsArg;
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::{progress, units};

/// Make token shards and a manifest out of texts
#[derive(Args)]
#[command(
    after_help = "CONFIG.toml names the sources, their weights, what is held out and what is left out. Paths in it begin in \
                  its own folder. Texts are plain with a marker line between documents, JSONL or Parquet, each as it is or \
                  packed as .gz or .zst. The result is the same for any number of threads.\n\n\
                  Example: puna data build recipes/data-stories.toml --texts texts/ --tokenizer tokenizer.model --out stories/"
)]
pub(crate) struct BuildArgs {
    /// What to build
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// The folder to write [default: the configuration's `out`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The tokenizer.model or tokenizer.json to use [default: the configuration's `tokenizer`]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Where the paths of texts and of their lists of groups begin [default: the configuration's folder]
    #[arg(long, value_name = "DIR")]
    texts: Option<PathBuf>,
    /// Replace the folder if training data are there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: ThreadsArg,
    /// Print the manifest
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Builds under a temporary name and puts the folder in its place. Ctrl-C leaves nothing behind.
pub(crate) fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let file = args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).with_context(|| file.clone())?;
    let config = Config::parse(&file, &text)?;
    let beside = args.config.parent().unwrap_or(Path::new(""));
    let chosen = |given: &Option<PathBuf>, configured: &Option<PathBuf>, key: &str| {
        let configured = configured.as_ref().map(|path| beside.join(path));
        let missing = || Usage(format!("{file} has no `{key}`: give --{key}"));
        given.clone().or(configured).ok_or_else(missing)
    };
    let out = chosen(&args.out, &config.out, "out")?;
    let tokenizer = chosen(&args.tokenizer, &config.tokenizer, "tokenizer")?;
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let folder = AtomicFolder::create(&out, existing, puna_data::is_own_name)?;
    let job = Job {
        config: &config,
        texts: args.texts.as_deref().unwrap_or(beside),
        tokenizer: &tokenizer,
        n_threads: args.threads.n_threads(),
    };
    let interrupt = Interrupt::install()?;
    let bar = progress::over_bytes("reading", 0);
    let built = puna_data::build(&job, folder.path(), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !interrupt.is_set()
    });
    bar.finish_and_clear();
    let manifest = match built {
        Err(DataError::Stopped) => bail!(Interrupted),
        built => built?,
    };
    folder.commit()?;
    tell_long_documents(&manifest);
    let secs = started.elapsed().as_secs_f64();
    note!("wrote {} in {}", out.display(), units::seconds(secs));
    let mut stdout = io::stdout().lock();
    if args.json {
        return Ok(writeln!(stdout, "{}", serde_json::to_string(&manifest)?)?);
    }
    report::write(&mut stdout, &manifest)?;
    Ok(())
}

fn tell_long_documents(manifest: &Manifest) {
    for source in &manifest.sources {
        let n = source.train.longer_than_a_shard + source.held_out.longer_than_a_shard;
        if n > 0 {
            note!(
                "note: {}: {} longer than a shard of {} tokens; what is left goes on in the next",
                source.name,
                units::count(n as usize, "document is", "documents are"),
                manifest.shard_tokens
            );
        }
    }
}
