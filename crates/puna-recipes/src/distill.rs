//! Safety context distillation (arXiv 2307.09288, section 4.2.4): answers to adversarial prompts with a preprompt that asks
//! for safety before them, learned without it; only where the safety model scores them higher than the plain answer.
//!
//! The folder of the run has `distilled.jsonl` (both answers of every prompt with their scores), `kept.jsonl` (what is
//! trained on), and what `puna sft` leaves.

use std::path::{Path, PathBuf};

use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_tokenizer::chat::{ChatTemplate, Message, Role};
use serde::{Deserialize, Serialize};

use crate::reward::Scorer;
use crate::run::RunFolder;
use crate::sft::{DataTable, Learn, Sft, SftConfig};
use crate::tune::{
    Base, Growing, JsonDialogue, JsonMessage, Place, Prompts, PromptsTable, Writer, answer_seed,
    left_out, read_lines, read_prompt_files, to_json, write_lines,
};
use crate::{Ending, Recipe, RecipeError, Report, Start};

/// Prompts that are answered, judged and written together.
const CHUNK: usize = 64;

const ALL: &str = "distilled.jsonl";
const KEPT: &str = "kept.jsonl";

/// What to sample, and how to fine-tune.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistillConfig {
    /// The model that answers, and that is fine-tuned.
    model: String,
    out: Option<PathBuf>,
    /// The folder of the safety reward model.
    safety: PathBuf,
    /// Adversarial prompts: the paper found that others get worse answers.
    prompts: Vec<PromptsTable>,
    /// System messages of which each prompt gets one; the paper's are built from "responsible", "respectful", "wise".
    #[serde(default = "preprompts")]
    preprompts: Vec<String>,
    #[serde(default = "temperature")]
    temperature: f32,
    #[serde(default = "max_new_tokens")]
    max_new_tokens: usize,
    #[serde(default)]
    seed: u64,
    /// Files of dialogues to train on beside what is distilled.
    #[serde(default)]
    data: Vec<DataTable>,
    /// Settings of `puna sft` but for model, data and out.
    #[serde(default)]
    sft: toml::Table,
}

fn preprompts() -> Vec<String> {
    ["responsible", "respectful", "wise"]
        .map(|adjective| format!("You are a {adjective} assistant. Decline what could do harm."))
        .to_vec()
}

fn temperature() -> f32 {
    0.8
}

fn max_new_tokens() -> usize {
    256
}

/// A prompt with both answers.
#[derive(Debug, Deserialize, Serialize)]
struct Distilled {
    prompt: Vec<JsonMessage>,
    preprompt: String,
    plain: String,
    plain_score: f64,
    distilled: String,
    distilled_score: f64,
    /// Whether the answer came to its end; others are never kept.
    complete: bool,
}

/// A run of distillation, before anything is sampled.
pub struct Distill<'a> {
    config: DistillConfig,
    cpu: &'a Cpu,
    file: String,
    text: String,
    folder: PathBuf,
    options: OpenOptions,
    base: Base,
    safety: Scorer,
    prompts: Prompts,
    /// For each prompt its ids behind the preprompt that it gets.
    guarded: Vec<(String, Vec<u32>)>,
}

impl<'a> Distill<'a> {
    /// Reads a configuration, both models and the prompts; `folder` is where the configuration's paths start.
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
        let config: DistillConfig = place.parse()?;
        place.at_least_one("max_new_tokens", config.max_new_tokens)?;
        place.at_least_one("preprompts", config.preprompts.len())?;
        place.check(
            "temperature",
            config.temperature > 0.0,
            "a number above 0",
            config.temperature,
        )?;
        let precision = place.precision(None, cpu)?;
        let base = Base::open(&place.model(&config.model), options)?;
        let safety = Scorer::sharing(&place.path(&config.safety), options, precision)?;
        safety.check_vocabulary(&base.tokenizer_file, &base.name)?;
        let prompts = read_prompt_files(
            &config.prompts,
            &place,
            &base,
            config.max_new_tokens,
            config.seed,
            0.0,
        )?;
        SftConfig::of_stage(&config.sft, &config.model, Vec::new(), &place)?;
        let most = base.config.max_seq_len - config.max_new_tokens;
        let guard = |(i, prompt): (usize, &crate::tune::Prompt)| {
            let preprompt = &config.preprompts[i % config.preprompts.len()];
            let rest = prompt.messages.iter().filter(|message| message.role != Role::System);
            let messages: Vec<Message> =
                std::iter::once(Message::new(Role::System, preprompt.clone()))
                    .chain(rest.cloned())
                    .collect();
            let ids = ChatTemplate::Llama2.render(&base.tokenizer, &messages)?;
            if ids.len() > most {
                return Err(RecipeError::Check(format!(
                    "prompt {} behind its preprompt: expected at most {most} tokens, found {}",
                    i + 1,
                    ids.len()
                )));
            }
            Ok((preprompt.clone(), ids))
        };
        let guarded =
            prompts.train.iter().enumerate().map(guard).collect::<Result<_, RecipeError>>()?;
        let (file, text, folder) = (file.to_owned(), text.to_owned(), folder.to_owned());
        Ok(Self {
            config,
            cpu,
            file,
            text,
            folder,
            options: options.clone(),
            base,
            safety,
            prompts,
            guarded,
        })
    }

    /// Answers every prompt twice; `false` if it was asked to stop.
    fn sample(
        &self,
        file: &Path,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<bool, RecipeError> {
        let (c, base, ctx) = (&self.config, &self.base, self.base.config.max_seq_len);
        let n = self.prompts.train.len();
        let mut all = Growing::open_chunks(file, CHUNK, n)?;
        let mut writer = Writer::new(self.cpu, &base.layout(), &base.weights, ctx, base.eos_id)?;
        while all.len() < n {
            if stop() {
                return Ok(false);
            }
            let first = all.len();
            let range = first..n.min(first + CHUNK);
            let plain = self.prompts.train[range.clone()].iter().map(|prompt| &prompt.ids[..]);
            let guarded = self.guarded[range.clone()].iter().map(|(_, ids)| &ids[..]);
            let asked: Vec<&[u32]> = plain.chain(guarded).collect();
            let len = range.len();
            let drawn = writer.write(&asked, c.max_new_tokens, |i| Sampling {
                temperature: c.temperature,
                seed: answer_seed(c.seed, (first + i % len) as u64, (i / len) as u64),
                ..Sampling::default()
            })?;
            // Both are scored as answers to the prompt without the preprompt.
            let texts =
                drawn.iter().enumerate().map(|(i, drawn)| drawn.after(asked[i % len], base.eos_id));
            let scores = self.safety.score(self.cpu, &texts.collect::<Vec<_>>())?;
            let text = |i: usize| base.tokenizer.decode(&drawn[i].tokens).trim().to_owned();
            let record = |i: usize| Distilled {
                prompt: to_json(&self.prompts.train[first + i].messages),
                preprompt: self.guarded[first + i].0.clone(),
                plain: text(i),
                plain_score: scores[i].0,
                distilled: text(len + i),
                distilled_score: scores[len + i].0,
                complete: drawn[len + i].is_complete,
            };
            all.add(&(0..len).map(record).collect::<Vec<_>>())?;
            on(Report::Note(format!("{} of {n} prompts answered twice", all.len())));
        }
        Ok(true)
    }

    /// Keeps what the safety model scores higher.
    fn keep(&self, path: &Path, on: &mut dyn FnMut(Report<'_>)) -> Result<(), RecipeError> {
        let all: Vec<Distilled> = read_lines(&path.join(ALL))?;
        let better = |d: &&Distilled| {
            d.complete && !d.distilled.is_empty() && d.distilled_score > d.plain_score
        };
        let dialogue = |d: &Distilled| {
            let answer = JsonMessage { role: "assistant".to_owned(), content: d.distilled.clone() };
            JsonDialogue { messages: d.prompt.iter().cloned().chain([answer]).collect() }
        };
        let kept: Vec<JsonDialogue> = all.iter().filter(better).map(dialogue).collect();
        on(Report::Note(format!(
            "{} of {} distilled answers are scored higher and kept",
            kept.len(),
            all.len()
        )));
        if kept.is_empty() {
            return Err(RecipeError::Check(
                "no distilled answer is scored higher than the plain one: nothing to train on"
                    .to_owned(),
            ));
        }
        write_lines(&path.join(KEPT), &kept)
    }
}

impl Recipe for Distill<'_> {
    fn plan(&self) -> Vec<String> {
        let mut lines = vec![format!("model       {}", self.base.name)];
        lines.extend(self.prompts.lines.iter().cloned());
        lines.push(format!(
            "sampling    two answers to each of {} prompts, with one of {} preprompts and without",
            self.prompts.train.len(),
            self.config.preprompts.len()
        ));
        lines.extend(self.base.notice.iter().map(|notice| format!("licence     {notice}")));
        lines
    }

    fn n_steps(&self) -> u64 {
        0
    }

    fn memory(&self) -> u64 {
        // Weights, their copy that answers, gradients, AdamW, and a network that judges.
        6 * 4 * self.base.config.n_params()
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
        if !path.join(KEPT).exists() {
            if !self.sample(&path.join(ALL), stop, on)? {
                return Ok(Ending::Stopped);
            }
            self.keep(path, on)?;
        }
        let kept = std::path::absolute(path.join(KEPT)).map_err(RecipeError::io(path))?;
        let n_kept = read_lines::<JsonDialogue>(&kept)?.len();
        let mut files = vec![DataTable { path: kept, at_most: None, repeat: 1, learn: Learn::All }];
        files.extend(self.config.data.iter().cloned());
        let place = Place { file: &self.file, text: &self.text, folder: &self.folder };
        let config = SftConfig::of_stage(&self.config.sft, &self.config.model, files, &place)?;
        let mut sft = Sft::of_config(config, &place, &self.options, self.cpu)?;
        sft.also_left_out = left_out(&self.prompts.lines).collect();
        if let n @ 1.. = self.prompts.train.len().saturating_sub(n_kept) {
            sft.also_left_out.push(format!("left out {n}: distilled answers not scored higher"));
        }
        sft.plan().into_iter().for_each(|line| on(Report::Note(line)));
        sft.run(path, Start::Resume, stop, on)
    }
}
