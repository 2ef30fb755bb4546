//! Answers of a model to a file of prompts, many at once.

use std::path::Path;

use puna_data::chat::{OnProblem, read_prompts};
use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_tokenizer::chat::ChatTemplate;
use serde_json::{Value, json};

use crate::RecipeError;
use crate::tune::{Growing, Writer, answer_seed};

/// Prompts that are answered and written together.
const CHUNK: usize = 64;

/// What to answer, and how.
#[derive(Clone, Debug)]
pub struct AnswerJob<'a> {
    /// Any MODEL.
    pub model: &'a str,
    /// A JSONL file of prompts.
    pub prompts: &'a Path,
    /// Where each prompt's record goes, with a field `answers` added: of each its `text`, and whether it is `complete`. A
    /// file that is there is gone on with.
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
    let mut writer = Writer::of_source(cpu, &*opened.checkpoint.source, ctx, &opened.stop_ids)?;
    let template: &ChatTemplate = &opened.template;
    let mut file = Growing::open(job.out)?;
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
        let with_answers = |(i, object): (usize, &Value)| {
            let answers: Vec<Value> = drawn[i * k..(i + 1) * k]
                .iter()
                .map(|d| json!({"text": opened.tokenizer.decode(&d.tokens).trim(), "complete": d.is_complete}))
                .collect();
            let mut object = object.clone();
            object["answers"] = answers.into();
            object
        };
        let lines: Vec<Value> = objects[chunk].iter().enumerate().map(with_answers).collect();
        file.add(&lines)?;
        progress(file.len(), records.len());
    }
    Ok(true)
}
