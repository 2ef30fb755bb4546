//! The rounds of alignment (arXiv 2307.09288, section 3.2) as one plan that can be stopped and gone on with: stages in
//! order, each a configuration of its own recipe, each naming what earlier ones made as `"@stage"`.
//!
//! The paper's is: SFT, both reward models, rejection sampling for V1 to V4 with new preferences between them, Ghost
//! Attention after V3, PPO on top for V5. At the end a table compares models on the same prompts by the same reward
//! models, with 95 % intervals (bootstrap over prompts).

use std::fs;
use std::path::{Path, PathBuf};

use puna_core::Rng;
use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use serde::{Deserialize, Serialize};

use crate::reward::{Author, Judges};
use crate::run::RunFolder;
use crate::tune::{
    Base, Place, Prompt, PromptsTable, Writer, answer_seed, read_prompt_files, write_lines,
};
use crate::{
    Distill, Dpo, Ending, Gatt, Ppo, Recipe, RecipeError, Reject, Report, Reward, Sft, Start,
};

/// In a stage's folder: it is complete.
const DONE: &str = "done";

/// The table of models.
const TABLE: &str = "table.jsonl";

/// Samples of the bootstrap.
const N_BOOTSTRAP: usize = 1000;

/// Stages, and what is compared at the end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlignConfig {
    out: Option<PathBuf>,
    #[serde(rename = "stage")]
    stages: Vec<Stage>,
    compare: Option<Compare>,
}

/// One stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    /// What later stages call it, and its folder in the run's.
    name: String,
    recipe: Kind,
    /// Its configuration, whose paths start from that file's folder.
    config: PathBuf,
}

/// A recipe.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Sft,
    Gatt,
    Reward,
    Reject,
    Ppo,
    Distill,
    Dpo,
}

/// Models answer the same prompts, and the same reward models judge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compare {
    models: Vec<String>,
    helpfulness: String,
    safety: Option<String>,
    prompts: Vec<PromptsTable>,
    #[serde(default = "max_new_tokens")]
    max_new_tokens: usize,
    #[serde(default = "temperature")]
    temperature: f32,
    #[serde(default)]
    seed: u64,
}

fn max_new_tokens() -> usize {
    256
}

fn temperature() -> f32 {
    0.8
}

/// A row of the table: means over prompts, and the 95 % interval of the score.
#[derive(Serialize)]
struct Row {
    model: String,
    score: f64,
    score_low: f64,
    score_high: f64,
    helpfulness: f64,
    safety: f64,
    answer_tokens: f64,
    complete: f64,
}

/// A plan of stages.
pub struct Align<'a> {
    config: AlignConfig,
    cpu: &'a Cpu,
    file: String,
    text: String,
    folder: PathBuf,
    options: OpenOptions,
}

impl<'a> Align<'a> {
    /// Reads a plan, and the configurations of its stages; `folder` is where the plan's paths start.
    ///
    /// # Errors
    /// A setting out of range, two stages of one name, a reference to no earlier stage, a file that cannot be read.
    pub fn new(
        file: &str,
        text: &str,
        folder: &Path,
        options: &OpenOptions,
        cpu: &'a Cpu,
    ) -> Result<Self, RecipeError> {
        let place = Place { file, text, folder };
        let config: AlignConfig = place.parse()?;
        let mut known: Vec<&str> = Vec::new();
        for Stage { name, config: path, .. } in &config.stages {
            let is_name =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            let is_new = is_name && !known.contains(&name.as_str());
            place.check(
                "name",
                is_new,
                "letters, digits and hyphens, once",
                format!("{name:?}"),
            )?;
            let path = place.path(path);
            let text = fs::read_to_string(&path).map_err(RecipeError::io(&path))?;
            resolve(&path.display().to_string(), &text, &known, |name| Ok(PathBuf::from(name)))?;
            known.push(name);
        }
        let (file, text, folder) = (file.to_owned(), text.to_owned(), folder.to_owned());
        Ok(Self { config, cpu, file, text, folder, options: options.clone() })
    }

    fn place(&self) -> Place<'_> {
        Place { file: &self.file, text: &self.text, folder: &self.folder }
    }

    /// A MODEL or folder, which may be what a stage made.
    fn model(&self, path: &Path, name: &str) -> Result<String, RecipeError> {
        match name.strip_prefix('@') {
            Some(stage) => Ok(result_of(&path.join(stage))?.display().to_string()),
            None => Ok(self.place().model(name)),
        }
    }

    /// Runs one stage into its folder, or goes on with it.
    fn stage(
        &self,
        path: &Path,
        stage: &Stage,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<Ending, RecipeError> {
        let file = self.place().path(&stage.config);
        let name = file.display().to_string();
        let text = fs::read_to_string(&file).map_err(RecipeError::io(&file))?;
        let known: Vec<&str> = self.config.stages.iter().map(|stage| &stage.name[..]).collect();
        let text = resolve(&name, &text, &known, |stage| result_of(&path.join(stage)))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let (options, cpu) = (&self.options, self.cpu);
        let recipe: Box<dyn Recipe + '_> = match stage.recipe {
            Kind::Sft => Box::new(Sft::new(&name, &text, folder, options, cpu)?),
            Kind::Gatt => Box::new(Gatt::new(&name, &text, folder, options, cpu)?),
            Kind::Reward => Box::new(Reward::new(&name, &text, folder, options, cpu)?),
            Kind::Reject => Box::new(Reject::new(&name, &text, folder, options, cpu)?),
            Kind::Ppo => Box::new(Ppo::new(&name, &text, folder, options, cpu)?),
            Kind::Distill => Box::new(Distill::new(&name, &text, folder, options, cpu)?),
            Kind::Dpo => Box::new(Dpo::new(&name, &text, folder, options, cpu)?),
        };
        for line in recipe.plan() {
            on(Report::Note(line));
        }
        let own = path.join(&stage.name);
        let begun = RunFolder::open(&own).is_ok();
        let start = if begun { Start::Resume } else { Start::New { config: &text } };
        let ending = recipe.run(&own, start, stop, on)?;
        if ending == Ending::Complete {
            let done = own.join(DONE);
            fs::write(&done, "").map_err(RecipeError::io(&done))?;
        }
        Ok(ending)
    }

    /// The table of models.
    fn compare(
        &self,
        path: &Path,
        compare: &Compare,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<(), RecipeError> {
        let place = self.place();
        let precision = place.precision(None, self.cpu)?;
        let helpfulness = PathBuf::from(self.model(path, &compare.helpfulness)?);
        let safety = compare
            .safety
            .as_ref()
            .map(|name| self.model(path, name))
            .transpose()?
            .map(PathBuf::from);
        let mut rows = Vec::new();
        for name in &compare.models {
            let base = Base::open(&self.model(path, name)?, &self.options)?;
            let threshold = puna_train::rl::SAFETY_THRESHOLD;
            let judges = Judges::open(
                place.folder,
                &helpfulness,
                safety.as_deref(),
                threshold,
                &Author::from(&base),
                &self.options,
                precision,
            )?;
            let prompts = read_prompt_files(
                &compare.prompts,
                &place,
                &base,
                compare.max_new_tokens,
                compare.seed,
                0.0,
            )?
            .train;
            let ids: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt.ids[..]).collect();
            let mut writer = Writer::new(
                self.cpu,
                &base.layout(),
                &base.weights,
                base.config.max_seq_len,
                base.eos_id,
            )?;
            let drawn = writer.write(&ids, compare.max_new_tokens, |i| Sampling {
                temperature: compare.temperature,
                seed: answer_seed(compare.seed, 0, i as u64),
                ..Sampling::default()
            })?;
            let answers: Vec<(&Prompt, &_)> = prompts.iter().zip(&drawn).collect();
            let verdicts = judges.verdicts(self.cpu, &answers, base.eos_id)?;
            let n = verdicts.len() as f64;
            let scores: Vec<f64> = verdicts.iter().map(|verdict| verdict.score).collect();
            let (score_low, score_high) = interval(&scores, compare.seed);
            let row = Row {
                model: name.clone(),
                score: scores.iter().sum::<f64>() / n,
                score_low,
                score_high,
                helpfulness: verdicts.iter().map(|v| v.helpfulness).sum::<f64>() / n,
                safety: verdicts.iter().map(|v| v.safety).sum::<f64>() / n,
                answer_tokens: drawn.iter().map(|d| d.tokens.len() as f64).sum::<f64>() / n,
                complete: drawn.iter().filter(|d| d.is_complete).count() as f64 / n,
            };
            on(Report::Note(format!(
                "{:<16} score {:.3} ({:.3} to {:.3}), helpfulness {:.3}, safety {:.3}, {:.0} tokens, {:.0} % complete",
                row.model,
                row.score,
                row.score_low,
                row.score_high,
                row.helpfulness,
                row.safety,
                row.answer_tokens,
                100.0 * row.complete
            )));
            rows.push(row);
        }
        write_lines(&path.join(TABLE), &rows)
    }
}

/// The middle 95 % of means of resampled values.
fn interval(values: &[f64], seed: u64) -> (f64, f64) {
    let mut rng = Rng::new(seed, 1 << 42);
    let n = values.len();
    let mut means: Vec<f64> = (0..N_BOOTSTRAP)
        .map(|_| {
            (0..n).map(|_| values[(rng.next_f64() * n as f64) as usize]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (means[N_BOOTSTRAP / 40], means[N_BOOTSTRAP - 1 - N_BOOTSTRAP / 40])
}

/// A configuration whose strings `"@stage"` are paths of what these stages made; `known` are those that may be named.
fn resolve(
    file: &str,
    text: &str,
    known: &[&str],
    path_of: impl Fn(&str) -> Result<PathBuf, RecipeError>,
) -> Result<String, RecipeError> {
    let mut parts = text.split("\"@");
    let mut resolved = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('"').unwrap_or((part, ""));
        // What follows the name is a path inside the stage's folder: "@stage/best.jsonl".
        let (stage, inside) =
            name.split_once('/').map_or((name, None), |(stage, inside)| (stage, Some(inside)));
        if !known.contains(&stage) {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(RecipeError::Check(format!(
                "{file}: \"@{name}\": expected an earlier stage ({known}), found none of that name"
            )));
        }
        let path = match inside {
            None => path_of(stage)?,
            // A stage's folder is two above its checkpoints.
            Some(inside) => {
                path_of(stage)?.ancestors().nth(2).unwrap_or(Path::new("")).join(inside)
            }
        };
        let path = path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
        resolved += &format!("\"{path}\"{rest}");
    }
    Ok(resolved)
}

/// What a run is for: its best checkpoint where one was measured, else its last.
fn result_of(folder: &Path) -> Result<PathBuf, RecipeError> {
    let run = RunFolder::open(folder)?;
    let path = run.result()?;
    std::path::absolute(&path).map_err(RecipeError::io(&path))
}

impl Recipe for Align<'_> {
    fn plan(&self) -> Vec<String> {
        let line = |(i, stage): (usize, &Stage)| {
            let recipe = format!("{:?}", stage.recipe).to_lowercase();
            format!(
                "stage {:<6}{}: puna {recipe} {}",
                i + 1,
                stage.name,
                self.place().path(&stage.config).display()
            )
        };
        let mut lines: Vec<String> = self.config.stages.iter().enumerate().map(line).collect();
        if let Some(compare) = &self.config.compare {
            lines.push(format!("compare     {}", compare.models.join(", ")));
        }
        lines
    }

    fn n_steps(&self) -> u64 {
        0
    }

    fn memory(&self) -> u64 {
        0
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
        for stage in &self.config.stages {
            if path.join(&stage.name).join(DONE).exists() {
                continue;
            }
            on(Report::Note(format!("stage {}", stage.name)));
            match self.stage(path, stage, stop, on)? {
                Ending::Complete => {}
                other => return Ok(other),
            }
        }
        if let Some(compare) = &self.config.compare {
            self.compare(path, compare, on)?;
        }
        Ok(Ending::Complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_paths() {
        let path_of = |name: &str| Ok(PathBuf::from(format!("/run/{name}/checkpoints/step-1")));
        let text = "model = \"@sft\"\ndata = [{ path = \"@rs/best.jsonl\" }]\nx = \"a@b\"\n";
        let found = resolve("c.toml", text, &["sft", "rs"], path_of).unwrap();
        let expected = "model = \"/run/sft/checkpoints/step-1\"\ndata = [{ path = \"/run/rs/best.jsonl\" }]\nx = \"a@b\"\n";
        assert_eq!(found, expected);
        let error =
            resolve("c.toml", "model = \"@ppo\"", &["sft"], path_of).unwrap_err().to_string();
        assert!(error.contains("expected an earlier stage (sft)"), "{error}");
    }

    #[test]
    fn intervals_hold_the_mean() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 2)).collect();
        let (low, high) = interval(&values, 1);
        assert!((0.40..0.47).contains(&low) && (0.53..0.60).contains(&high), "{low} {high}");
    }
}
