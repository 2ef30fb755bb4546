//! Answers of a model to a file of prompts, many at once.

use std::path::Path;

use puna_data::chat::{OnProblem, PromptRecord, read_prompts};
use puna_engine::Sampling;
use puna_hub::{OpenOptions, Opened};
use puna_kernels::Cpu;
use puna_ops::Precision;
use puna_tokenizer::chat::ChatTemplate;
use puna_train::rl::SAFETY_THRESHOLD;
use serde_json::{Value, json};

use crate::RecipeError;
use crate::reward::{Author, Judges};
use crate::tune::{Growing, Prompt, Writer, answer_seed};

/// Prompts that are answered and written together.
const CHUNK: usize = 64;

/// What to answer, and how.
#[derive(Clone, Debug)]
pub struct AnswerJob<'a> {
    /// Any MODEL.
    pub model: &'a str,
    /// A JSONL file of prompts.
    pub prompts: &'a Path,
    /// Reward models that score the answers, by the rule of rejection sampling and PPO.
    pub helpfulness: Option<&'a Path>,
    /// Only beside the other.
    pub safety: Option<&'a Path>,
    /// Where each prompt's record goes, with a field `answers` added: of each its `text`, whether it is `complete`, and
    /// `score`, `helpfulness` and `safety` where there are reward models. A file that is there is gone on with.
    pub out: &'a Path,
    /// Answers to each prompt.
    pub n_answers: usize,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// How they are drawn; every answer has a seed of its own, derived from this one.
    pub sampling: Sampling,
}

/// Answers all prompts that have none yet; `false` if it was asked to stop. `progress` is told prompts done and all.
///
/// # Errors
/// A model or file that cannot be read; a prompt that does not fit; the disk is full.
pub fn answer(
    cpu: &Cpu,
    options: &OpenOptions,
    job: &AnswerJob<'_>,
    stop: &dyn Fn() -> bool,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<bool, RecipeError> {
    let opened = puna_hub::open(job.model, options)?;
    let (records, _) = read_prompts(job.prompts, OnProblem::Refuse)?;
    let text = std::fs::read_to_string(job.prompts).map_err(RecipeError::io(job.prompts))?;
    let objects: Vec<Value> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            serde_json::from_str(line)
                .map_err(|e| RecipeError::run(job.prompts, "prompts", "JSONL", e))
        })
        .collect::<Result<_, _>>()?;
    let ctx = opened.checkpoint.source.config().max_seq_len;
    let judges =
        job.helpfulness.map(|path| judges(cpu, options, job, path, &opened)).transpose()?;
    let mut writer = Writer::of_source(cpu, &*opened.checkpoint.source, ctx, &opened.stop_ids)?;
    let template: &ChatTemplate = &opened.template;
    let mut file = Growing::open(job.out)?;
    if file.len() > 0 {
        check_old(job)?;
    }
    while file.len() < records.len() {
        if stop() {
            return Ok(false);
        }
        let first = file.len();
        let chunk = first..records.len().min(first + CHUNK);
        let prompts: Vec<Vec<u32>> = records[chunk.clone()]
            .iter()
            .map(|record| template.render(&opened.tokenizer, &record.messages))
            .collect::<Result<_, _>>()?;
        let k = job.n_answers;
        let asked: Vec<&[u32]> =
            prompts.iter().flat_map(|p| std::iter::repeat_n(&p[..], k)).collect();
        let drawn = writer.write(&asked, job.max_new_tokens, |i| Sampling {
            seed: answer_seed(job.sampling.seed, (first + i / k) as u64, (i % k) as u64),
            ..job.sampling.clone()
        })?;
        let mut texts: Vec<Value> = drawn
            .iter()
            .map(|d| json!({"text": opened.tokenizer.decode(&d.tokens).trim(), "complete": d.is_complete}))
            .collect();
        if let (Some(judges), Some(eos_id)) = (&judges, opened.tokenizer.eos_id()) {
            let prompt = |(record, ids): (&PromptRecord, Vec<u32>)| Prompt {
                ids,
                messages: Vec::new(),
                is_safety: record.is_safety.unwrap_or(false),
            };
            let prompts: Vec<_> = records[chunk.clone()].iter().zip(prompts).map(prompt).collect();
            let answers: Vec<_> =
                drawn.iter().enumerate().map(|(i, drawn)| (&prompts[i / k], drawn)).collect();
            for (text, verdict) in texts.iter_mut().zip(judges.verdicts(cpu, &answers, eos_id)?) {
                text["score"] = verdict.score.into();
                text["helpfulness"] = verdict.helpfulness.into();
                text["safety"] = verdict.safety.into();
            }
        }
        let with_answers = |(i, object): (usize, &Value)| {
            let mut object = object.clone();
            object["answers"] = texts[i * k..(i + 1) * k].into();
            object
        };
        let lines: Vec<Value> = objects[chunk].iter().enumerate().map(with_answers).collect();
        file.add(&lines)?;
        progress(file.len(), records.len());
    }
    Ok(true)
}

/// Refuses to go on with a file whose answers are of another number than asked for now, or have scores where these have none.
fn check_old(job: &AnswerJob<'_>) -> Result<(), RecipeError> {
    let text = std::fs::read_to_string(job.out).map_err(RecipeError::io(job.out))?;
    let first: Value = serde_json::from_str(text.lines().next().unwrap_or_default())
        .map_err(|e| RecipeError::run(job.out, "line 1", "JSON", e))?;
    let scored = |has_score: bool| if has_score { "with scores" } else { "without scores" };
    let answers = first["answers"].as_array().map_or(&[][..], Vec::as_slice);
    let has_score = answers.iter().any(|answer| !answer["score"].is_null());
    if (answers.len(), has_score) == (job.n_answers, job.helpfulness.is_some()) {
        return Ok(());
    }
    let expected = format!("{} a prompt, {}", job.n_answers, scored(job.helpfulness.is_some()));
    let found = format!("{}, {}; another file begins anew", answers.len(), scored(has_score));
    Err(RecipeError::run(job.out, "answers", expected, found))
}

/// The reward models, which must read what the model writes.
fn judges(
    cpu: &Cpu,
    options: &OpenOptions,
    job: &AnswerJob<'_>,
    helpfulness: &Path,
    opened: &Opened,
) -> Result<Judges, RecipeError> {
    let refuse = |e: String| RecipeError::Check(format!("{}: tokenizer: {e}", job.model));
    if opened.tokenizer.eos_id().is_none() {
        return Err(refuse(
            "expected an EOS piece, after which answers are scored, found none".into(),
        ));
    }
    let tokenizer_file = opened.tokenizer.to_sentencepiece().map_err(|e| refuse(e.to_string()))?;
    let author = Author {
        name: job.model,
        tokenizer_file: &tokenizer_file,
        context: opened.checkpoint.source.config().max_seq_len,
    };
    let (threshold, precision) = (SAFETY_THRESHOLD, Precision::best(cpu.isa()));
    Judges::open(Path::new(""), helpfulness, job.safety, threshold, &author, options, precision)
}
