//! Rejection sampling (arXiv 2307.09288, section 3.2.3): of K answers to each prompt the one that the reward models like
//! best, and fine-tuning on these.
//!
//! Answers come from the batching engine; only complete ones count. Best answers of earlier rounds are carried over as
//! files of data, as the paper did after its third version lost abilities without them. What the reward models gain by
//! more samples is drawn: the mean over prompts of the highest and the median score among N.
//!
//! The folder of the run has `samples.jsonl` (all answers with their scores), `best.jsonl` (what is trained on), and what
//! `puna sft` leaves. Sampling goes on where it was stopped; a seed belongs to each answer.

use std::path::{Path, PathBuf};

use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_train::rl::{best_of, max_and_median};
use serde::{Deserialize, Serialize};

use crate::reward::{Author, Judges, Verdict};
use crate::run::RunFolder;
use crate::sft::{DataTable, Learn, Sft, SftConfig};
use crate::tune::{
    Base, Drawn, Growing, JsonDialogue, JsonMessage, Place, Prompt, Prompts, PromptsTable, Writer,
    answer_seed, left_out, read_lines, read_prompt_files, to_json, write_lines,
};
use crate::{Ending, Recipe, RecipeError, Report, Start};

/// Prompts that are answered, judged and written together.
const CHUNK: usize = 16;

const SAMPLES: &str = "samples.jsonl";
const BEST: &str = "best.jsonl";
const CURVE: &str = "curve.jsonl";

/// What to sample, by which rewards to choose, and how to fine-tune.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RejectConfig {
    /// The model that answers: the latest.
    model: String,
    /// The model that is fine-tuned. The paper trains each version from the base model anew; the default is `model`.
    from: Option<String>,
    out: Option<PathBuf>,
    /// The folders of the reward models; without the second the first alone decides.
    helpfulness: PathBuf,
    safety: Option<PathBuf>,
    #[serde(default = "threshold")]
    threshold: f64,
    prompts: Vec<PromptsTable>,
    /// Answers to each prompt. Not stated in the paper, whose curves go to 100.
    #[serde(default = "k")]
    k: usize,
    /// Their temperature. The paper found 1.2 to 1.3 best for its tuned models and says to search again for each.
    #[serde(default = "temperature")]
    temperature: f32,
    #[serde(default = "max_new_tokens")]
    max_new_tokens: usize,
    #[serde(default)]
    seed: u64,
    /// Files of dialogues to train on beside the best answers: the best of earlier rounds, and what was trained on before.
    #[serde(default)]
    data: Vec<DataTable>,
    /// Settings of `puna sft` but for model, data and out.
    #[serde(default)]
    sft: toml::Table,
}

fn threshold() -> f64 {
    puna_train::rl::SAFETY_THRESHOLD
}

fn k() -> usize {
    16
}

fn temperature() -> f32 {
    1.0
}

fn max_new_tokens() -> usize {
    256
}

/// A prompt with all its answers.
#[derive(Debug, Deserialize, Serialize)]
struct Sampled {
    prompt: Vec<JsonMessage>,
    is_safety: bool,
    answers: Vec<SampledAnswer>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SampledAnswer {
    text: String,
    complete: bool,
    score: f64,
    helpfulness: f64,
    safety: f64,
}

/// A point of the curve.
#[derive(Serialize)]
struct CurvePoint {
    n: usize,
    max: f64,
    median: f64,
}

/// A round of rejection sampling, before anything is sampled.
pub struct Reject<'a> {
    config: RejectConfig,
    cpu: &'a Cpu,
    file: String,
    text: String,
    folder: PathBuf,
    options: OpenOptions,
    base: Base,
    judges: Judges,
    prompts: Prompts,
}

impl<'a> Reject<'a> {
    /// Reads a configuration, the models and the prompts; `folder` is where the configuration's paths start.
    ///
    /// # Errors
    /// A setting out of range, with line and column; a model or a file that cannot be read; models of different
    /// vocabularies; a prompt that leaves no room for its answer.
    pub fn new(
        file: &str,
        text: &str,
        folder: &Path,
        options: &OpenOptions,
        cpu: &'a Cpu,
    ) -> Result<Self, RecipeError> {
        let place = Place { file, text, folder };
        let config: RejectConfig = place.parse()?;
        place.at_least_one("k", config.k)?;
        place.at_least_one("max_new_tokens", config.max_new_tokens)?;
        place.check(
            "temperature",
            config.temperature > 0.0,
            "a number above 0",
            config.temperature,
        )?;
        let precision = place.precision(None, cpu)?;
        let base = Base::open(&place.model(&config.model), options)?;
        let (helpfulness, safety) = (&config.helpfulness, config.safety.as_deref());
        let judges = Judges::open(
            folder,
            helpfulness,
            safety,
            config.threshold,
            &Author::from(&base),
            options,
            precision,
        )?;
        let prompts = read_prompt_files(
            &config.prompts,
            &place,
            &base,
            config.max_new_tokens,
            config.seed,
            0.0,
        )?;
        let (file, text, folder) = (file.to_owned(), text.to_owned(), folder.to_owned());
        // Its mistakes should show before hours of sampling.
        SftConfig::of_stage(
            &config.sft,
            &config.model,
            Vec::new(),
            &Place { file: &file, text: &text, folder: &folder },
        )?;
        Ok(Self {
            config,
            cpu,
            file,
            text,
            folder,
            options: options.clone(),
            base,
            judges,
            prompts,
        })
    }

    fn place(&self) -> Place<'_> {
        Place { file: &self.file, text: &self.text, folder: &self.folder }
    }

    /// Samples what is not sampled yet; `false` if it was asked to stop.
    fn sample(
        &self,
        file: &Path,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<bool, RecipeError> {
        let (c, ctx) = (&self.config, self.base.config.max_seq_len);
        let n = self.prompts.train.len();
        let mut samples = Growing::open_chunks(file, CHUNK, n)?;
        let mut writer =
            Writer::new(self.cpu, &self.base.layout(), &self.base.weights, ctx, self.base.eos_id)?;
        while samples.len() < n {
            if stop() {
                return Ok(false);
            }
            let first = samples.len();
            let chunk: Vec<&Prompt> =
                self.prompts.train[first..n.min(first + CHUNK)].iter().collect();
            let asked: Vec<&Prompt> =
                chunk.iter().flat_map(|p| std::iter::repeat_n(*p, c.k)).collect();
            let ids: Vec<&[u32]> = asked.iter().map(|prompt| &prompt.ids[..]).collect();
            let drawn = writer.write(&ids, c.max_new_tokens, |i| Sampling {
                temperature: c.temperature,
                seed: answer_seed(c.seed, (first + i / c.k) as u64, (i % c.k) as u64),
                ..Sampling::default()
            })?;
            let answers: Vec<(&Prompt, &Drawn)> = asked.iter().copied().zip(&drawn).collect();
            let verdicts = self.judges.verdicts(self.cpu, &answers, self.base.eos_id)?;
            let of = |(i, prompt): (usize, &&Prompt)| {
                let own = i * c.k..(i + 1) * c.k;
                let answer = |(drawn, verdict): (&Drawn, &Verdict)| SampledAnswer {
                    text: self.base.tokenizer.decode(&drawn.tokens).trim().to_owned(),
                    complete: drawn.is_complete,
                    score: verdict.score,
                    helpfulness: verdict.helpfulness,
                    safety: verdict.safety,
                };
                let answers = drawn[own.clone()].iter().zip(&verdicts[own]).map(answer).collect();
                Sampled { prompt: to_json(&prompt.messages), is_safety: prompt.is_safety, answers }
            };
            let records: Vec<Sampled> = chunk.iter().enumerate().map(of).collect();
            samples.add(&records)?;
            let done = samples.len();
            if done / (n / 10).max(1) != first / (n / 10).max(1) {
                on(Report::Note(format!("{done} of {n} prompts answered {} times", c.k)));
            }
        }
        Ok(true)
    }

    /// From all answers to the best ones, and to the curve.
    fn choose(&self, path: &Path, on: &mut dyn FnMut(Report<'_>)) -> Result<(), RecipeError> {
        let samples: Vec<Sampled> = read_lines(&path.join(SAMPLES))?;
        let (mut best, mut n_without) = (Vec::new(), 0);
        for Sampled { prompt, answers, .. } in &samples {
            let usable = |a: &&SampledAnswer| a.complete && !a.text.is_empty();
            let complete: Vec<&SampledAnswer> = answers.iter().filter(usable).collect();
            let scores: Vec<f64> = complete.iter().map(|answer| answer.score).collect();
            let Some(i) = best_of(&scores) else {
                n_without += 1;
                continue;
            };
            let content = complete[i].text.clone();
            let mut messages = prompt.clone();
            messages.push(JsonMessage { role: "assistant".to_owned(), content });
            best.push(JsonDialogue { messages });
        }
        if best.is_empty() {
            return Err(RecipeError::Check(format!(
                "expected answers that come to their end within max_new_tokens = {}, found none to any of {n_without} prompts",
                self.config.max_new_tokens
            )));
        }
        if n_without > 0 {
            on(Report::Note(format!(
                "{n_without} prompts have no complete answer and are left out"
            )));
        }
        let point = |n: usize| {
            let of = |s: &Sampled| {
                max_and_median(&s.answers.iter().map(|a| a.score).collect::<Vec<_>>(), n)
            };
            let (max, median) =
                samples.iter().map(of).fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
            CurvePoint { n, max: max / samples.len() as f64, median: median / samples.len() as f64 }
        };
        let curve: Vec<CurvePoint> = (1..=self.config.k).map(point).collect();
        for CurvePoint { n, max, median } in
            curve.iter().filter(|p| p.n.is_power_of_two() || p.n == self.config.k)
        {
            on(Report::Note(format!(
                "of {n} answers the best scores {max:.4}, the median {median:.4}"
            )));
        }
        write_lines(&path.join(CURVE), &curve)?;
        write_lines(&path.join(BEST), &best)
    }
}

impl Recipe for Reject<'_> {
    fn plan(&self) -> Vec<String> {
        let c = &self.config;
        let mut lines = vec![format!("model       {}", self.base.name)];
        lines.extend(self.prompts.lines.iter().cloned());
        lines.extend([
            format!(
                "sampling    {} answers to each of {} prompts, up to {} tokens, at temperature {}",
                c.k,
                self.prompts.train.len(),
                c.max_new_tokens,
                c.temperature
            ),
            format!(
                "training    on the best of them, from {}",
                c.from.as_ref().unwrap_or(&c.model)
            ),
        ]);
        lines.extend(self.base.notice.iter().map(|notice| format!("licence     {notice}")));
        lines
    }

    fn n_steps(&self) -> u64 {
        0
    }

    fn memory(&self) -> u64 {
        // Weights, their copy that answers, gradients, AdamW, and two networks that judge.
        7 * 4 * self.base.config.n_params()
    }

    fn out(&self) -> Option<&Path> {
        self.config.out.as_deref()
    }

    fn run(
        &self,
        path: &Path,
        start: Start<'_>,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Ending, RecipeError> {
        RunFolder::start(path, start, &self.text)?;
        if !path.join(BEST).exists() {
            if !self.sample(&path.join(SAMPLES), stop, on)? {
                return Ok(Ending::Stopped);
            }
            self.choose(path, on)?;
        }
        let best = std::path::absolute(path.join(BEST)).map_err(RecipeError::io(path))?;
        let n_best = read_lines::<JsonDialogue>(&best)?.len();
        let mut files = vec![DataTable { path: best, at_most: None, repeat: 1, learn: Learn::All }];
        files.extend(self.config.data.iter().cloned());
        let model = self.config.from.as_ref().unwrap_or(&self.config.model);
        let config = SftConfig::of_stage(&self.config.sft, model, files, &self.place())?;
        let mut sft = Sft::of_config(config, &self.place(), &self.options, self.cpu)?;
        sft.also_left_out = left_out(&self.prompts.lines).collect();
        if let n @ 1.. = self.prompts.train.len().saturating_sub(n_best) {
            sft.also_left_out.push(format!("left out {n}: prompts without a complete answer"));
        }
        sft.plan().into_iter().for_each(|line| on(Report::Note(line)));
        sft.run(path, Start::Resume, stop, on)
    }
}
