//! Ghost Attention (arXiv 2307.09288, section 3.3): an instruction that is given once is followed to the end of a dialogue.
//!
//! A constraint ("always act as …") is joined to every message of the user, and the model answers, turn by turn. For
//! training it stays in the first message alone, and of the answers only the last is learned: what stands before it was
//! said with the instruction in sight. Constraints are combined at random, and half of the time said shortly
//! ("Figure: Napoleon.").
//!
//! It is measured as the paper does: the part of dialogues that still know an attribute when they are asked for it at
//! turns 2, 4, 6 and 20, with the instruction in the first message alone, before and after. The folder of the run has
//! `dialogues.jsonl`, `recall.json`, and what `puna sft` leaves.

use std::path::{Path, PathBuf};

use puna_core::Rng;
use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_tokenizer::chat::{ChatTemplate, Message, Role};
use puna_train::Layout;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::run::RunFolder;
use crate::sft::{DataTable, Learn, Sft, SftConfig};
use crate::tune::{Base, Growing, JsonMessage, Place, Writer, answer_seed, read_lines, to_json};
use crate::{Ending, Recipe, RecipeError, Report, Start};

/// Dialogues that are sampled and written together.
const CHUNK: usize = 64;

/// Turns at which recall is measured (table 30).
const TURNS: [usize; 4] = [2, 4, 6, 20];

const DIALOGUES: &str = "dialogues.jsonl";
const RECALL: &str = "recall.json";

/// What to sample, and how to fine-tune.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GattConfig {
    /// The model that answers, and that is fine-tuned.
    model: String,
    out: Option<PathBuf>,
    /// What the model is to keep in mind.
    constraints: Vec<Constraint>,
    /// What users say at other turns than those that ask for an attribute.
    turns: Vec<String>,
    /// Dialogues to train on. Not stated in the paper.
    #[serde(default = "n_dialogues")]
    n_dialogues: usize,
    /// Turns of the longest of them; each has 2 or more.
    #[serde(default = "max_turns")]
    max_turns: usize,
    #[serde(default = "temperature")]
    temperature: f32,
    /// Most tokens of an answer.
    #[serde(default = "max_new_tokens")]
    max_new_tokens: usize,
    /// Dialogues for each turn at which recall is measured.
    #[serde(default = "n_recall")]
    n_recall: usize,
    #[serde(default)]
    seed: u64,
    /// Files of dialogues to train on beside, so that nothing else is lost.
    #[serde(default)]
    data: Vec<DataTable>,
    /// Settings of `puna sft` but for model, data and out.
    #[serde(default)]
    sft: toml::Table,
}

/// A kind of attribute: the paper's are hobbies, language and public figures.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Constraint {
    /// The instruction, with `{}` where the value stands.
    long: String,
    /// The same in a few words.
    short: String,
    values: Vec<String>,
    /// What asks for it; an answer that has the value recalls it.
    question: String,
}

fn n_dialogues() -> usize {
    500
}

fn max_turns() -> usize {
    6
}

fn temperature() -> f32 {
    0.8
}

fn max_new_tokens() -> usize {
    64
}

fn n_recall() -> usize {
    100
}

/// A dialogue to be held: its instruction, and what the user says.
#[derive(Clone, Debug, PartialEq)]
struct Script {
    instruction: String,
    turns: Vec<String>,
    /// What the answer to the last turn must have.
    value: String,
}

/// A dialogue for training, and the round of sampling that it is of.
#[derive(Deserialize, Serialize)]
struct Held {
    messages: Vec<JsonMessage>,
    round: u64,
}

/// A run of Ghost Attention, before anything is sampled.
pub struct Gatt<'a> {
    config: GattConfig,
    cpu: &'a Cpu,
    file: String,
    text: String,
    folder: PathBuf,
    options: OpenOptions,
    base: Base,
}

impl<'a> Gatt<'a> {
    /// Reads a configuration and the model; `folder` is where the configuration's paths start.
    ///
    /// # Errors
    /// A setting out of range, with line and column; a model that cannot be read.
    pub fn new(
        file: &str,
        text: &str,
        folder: &Path,
        options: &OpenOptions,
        cpu: &'a Cpu,
    ) -> Result<Self, RecipeError> {
        let place = Place { file, text, folder };
        let config: GattConfig = place.parse()?;
        for (key, n) in [
            ("constraints", config.constraints.len()),
            ("turns", config.turns.len()),
            ("n_dialogues", config.n_dialogues),
            ("max_new_tokens", config.max_new_tokens),
        ] {
            place.at_least_one(key, n)?;
        }
        place.check("max_turns", config.max_turns >= 2, "2 or more", config.max_turns)?;
        place.check(
            "temperature",
            config.temperature > 0.0,
            "a number above 0",
            config.temperature,
        )?;
        for Constraint { long, short, values, .. } in &config.constraints {
            for text in [long, short] {
                place.check(
                    "constraints",
                    text.contains("{}"),
                    "{} where the value stands",
                    format!("{text:?}"),
                )?;
            }
            place.at_least_one("values", values.len())?;
        }
        let base = Base::open(&place.model(&config.model), options)?;
        let context = base.config.max_seq_len;
        let expected = format!("less than {context}, the model's context");
        place.check(
            "max_new_tokens",
            config.max_new_tokens < context,
            &expected,
            config.max_new_tokens,
        )?;
        SftConfig::of_stage(&config.sft, &config.model, Vec::new(), &place)?;
        let (file, text, folder) = (file.to_owned(), text.to_owned(), folder.to_owned());
        Ok(Self { config, cpu, file, text, folder, options: options.clone(), base })
    }

    /// A dialogue of `n_turns` turns: one or all constraints, said shortly half of the time; the last turn asks for one.
    fn script(&self, n_turns: usize, rng: &mut Rng) -> Script {
        let c = &self.config;
        let mut draw = |n: usize| (rng.next_f64() * n as f64) as usize;
        let asked = draw(c.constraints.len());
        let all = draw(2) == 0;
        let (mut parts, mut value) = (Vec::new(), String::new());
        for (i, constraint) in c.constraints.iter().enumerate() {
            let drawn = &constraint.values[draw(constraint.values.len())];
            let short = draw(2) == 0;
            if i == asked {
                value.clone_from(drawn);
            }
            if all || i == asked {
                let form = if short { &constraint.short } else { &constraint.long };
                parts.push(form.replace("{}", drawn));
            }
        }
        let mut turns: Vec<String> =
            (1..n_turns).map(|_| c.turns[draw(c.turns.len())].clone()).collect();
        turns.push(c.constraints[asked].question.clone());
        Script { instruction: parts.join(" "), turns, value }
    }

    /// Holds dialogues turn by turn, all at once. With `everywhere` the instruction is in every message of the user, else in
    /// the first. A dialogue that outgrows the context ends before that turn, and is shorter than its script.
    fn hold(
        &self,
        writer: &mut Writer,
        scripts: &[Script],
        everywhere: bool,
        round: u64,
    ) -> Result<Vec<Vec<Message>>, RecipeError> {
        let c = &self.config;
        let most = self.base.config.max_seq_len - c.max_new_tokens;
        let mut dialogues: Vec<Vec<Message>> = vec![Vec::new(); scripts.len()];
        let n_turns = scripts.iter().map(|script| script.turns.len()).max().unwrap_or(0);
        for turn in 0..n_turns {
            let (mut open, mut prompts) = (Vec::new(), Vec::new());
            for (i, script) in scripts.iter().enumerate() {
                // Whoever has missed a turn has outgrown the context.
                let Some(said) = script.turns.get(turn).filter(|_| dialogues[i].len() == 2 * turn)
                else {
                    continue;
                };
                let instructed = everywhere || turn == 0;
                let content = if instructed {
                    format!("{} {said}", script.instruction)
                } else {
                    said.clone()
                };
                let mut messages = dialogues[i].clone();
                messages.push(Message::new(Role::User, content));
                let ids = ChatTemplate::Llama2.render(&self.base.tokenizer, &messages)?;
                if ids.len() <= most {
                    dialogues[i] = messages;
                    open.push(i);
                    prompts.push(ids);
                }
            }
            let asked: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let drawn = writer.write(&asked, c.max_new_tokens, |i| Sampling {
                temperature: c.temperature,
                seed: answer_seed(c.seed ^ round << 32, turn as u64, open[i] as u64),
                ..Sampling::default()
            })?;
            for (&i, drawn) in open.iter().zip(&drawn) {
                let text = self.base.tokenizer.decode(&drawn.tokens);
                dialogues[i].push(Message::new(Role::Assistant, text.trim()));
            }
        }
        Ok(dialogues)
    }

    fn writer(&self, layout: &Layout, weights: &[f32]) -> Result<Writer, RecipeError> {
        Writer::new(self.cpu, layout, weights, self.base.config.max_seq_len, self.base.eos_id)
    }

    /// Samples the dialogues that are not sampled yet; `false` if it was asked to stop.
    fn sample(
        &self,
        file: &Path,
        stop: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Report<'_>),
    ) -> Result<bool, RecipeError> {
        let c = &self.config;
        let mut writer = self.writer(&self.base.layout(), &self.base.weights)?;
        let mut records = Growing::open(file)?;
        // A dialogue whose last answer lacks the value would teach to forget: others are drawn for it. The last round may
        // have been cut off, so it is drawn again.
        let mut known: Vec<Held> = read_lines(file)?;
        let mut round = known.last().map_or(0, |held| held.round);
        if records.len() < c.n_dialogues {
            known.retain(|held| held.round < round);
            records = Growing::open_first(file, |_| known.len())?;
        }
        let mut n_tried = 0;
        while records.len() < c.n_dialogues {
            if stop() {
                return Ok(false);
            }
            let mut rng = Rng::new(c.seed, (1 << 40) + round);
            let scripts: Vec<Script> = (0..CHUNK)
                .map(|_| {
                    let n_turns = 2 + (rng.next_f64() * (c.max_turns - 1) as f64) as usize;
                    self.script(n_turns, &mut rng)
                })
                .collect();
            let held = self.hold(&mut writer, &scripts, true, 1 + round)?;
            let mut kept = Vec::new();
            for (script, mut messages) in scripts.iter().zip(held) {
                let is_whole = messages.len() == 2 * script.turns.len();
                let recalls =
                    messages.last().is_some_and(|answer| has(&answer.content, &script.value));
                if !(is_whole
                    && recalls
                    && messages.iter().all(|message| !message.content.is_empty()))
                {
                    continue;
                }
                // The instruction stays in the first turn alone.
                for (turn, said) in script.turns.iter().enumerate().skip(1) {
                    messages[2 * turn].content.clone_from(said);
                }
                kept.push(Held { messages: to_json(&messages), round });
            }
            n_tried += CHUNK;
            round += 1;
            kept.truncate(c.n_dialogues - records.len());
            records.add(&kept)?;
            if records.len() * 50 < n_tried && n_tried >= 1000 {
                return Err(RecipeError::Check(format!(
                    "of {n_tried} dialogues with the instruction in every turn {} recall the attribute at the end: the model does not follow these instructions yet",
                    records.len()
                )));
            }
            on(Report::Note(format!("{} of {} dialogues", records.len(), c.n_dialogues)));
        }
        Ok(true)
    }

    /// The part of dialogues that know an attribute at each of [`TURNS`], by some weights; nothing where no dialogue fits
    /// the context.
    fn recall(
        &self,
        layout: &Layout,
        weights: &[f32],
    ) -> Result<Vec<(usize, Option<f64>)>, RecipeError> {
        let mut writer = self.writer(layout, weights)?;
        let mut found = Vec::new();
        for n_turns in TURNS {
            let mut rng = Rng::new(self.config.seed, (1 << 41) + n_turns as u64);
            let scripts: Vec<Script> =
                (0..self.config.n_recall).map(|_| self.script(n_turns, &mut rng)).collect();
            let held = self.hold(&mut writer, &scripts, false, 0)?;
            let whole = scripts
                .iter()
                .zip(&held)
                .filter(|(script, held)| held.len() == 2 * script.turns.len());
            let (mut n, mut n_known) = (0, 0);
            for (script, held) in whole {
                n += 1;
                n_known += usize::from(
                    held.last().is_some_and(|answer| has(&answer.content, &script.value)),
                );
            }
            found.push((n_turns, (n > 0).then(|| n_known as f64 / n as f64)));
        }
        Ok(found)
    }
}

/// Whether a text has a value, whatever its case.
fn has(text: &str, value: &str) -> bool {
    text.to_lowercase().contains(&value.to_lowercase())
}

fn in_words(recall: &[(usize, Option<f64>)]) -> String {
    let of = |(turn, share): &(usize, Option<f64>)| match share {
        Some(share) => format!("turn {turn}: {:.0} %", 100.0 * share),
        None => format!("turn {turn}: beyond the context"),
    };
    recall.iter().map(of).collect::<Vec<_>>().join(", ")
}

impl Recipe for Gatt<'_> {
    fn plan(&self) -> Vec<String> {
        let c = &self.config;
        let mut lines = vec![
            format!("model       {}", self.base.name),
            format!(
                "sampling    {} dialogues of 2 to {} turns, {} constraints; answers up to {} tokens at temperature {}",
                c.n_dialogues,
                c.max_turns,
                c.constraints.len(),
                c.max_new_tokens,
                c.temperature
            ),
        ];
        lines.extend(self.base.notice.iter().map(|notice| format!("licence     {notice}")));
        lines
    }

    fn n_steps(&self) -> u64 {
        0
    }

    fn memory(&self) -> u64 {
        // Weights, their copy that answers, gradients, AdamW.
        5 * 4 * self.base.config.n_params()
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
        let file = std::path::absolute(path.join(DIALOGUES)).map_err(RecipeError::io(path))?;
        if !self.sample(&file, stop, on)? {
            return Ok(Ending::Stopped);
        }
        let before = self.recall(&self.base.layout(), &self.base.weights)?;
        on(Report::Note(format!("recall before: {}", in_words(&before))));
        let held: Vec<Held> = read_lines(&file)?;
        let n_held = held.last().map_or(0, |last| CHUNK * (last.round as usize + 1));
        let n_kept = held.len();
        let mut files =
            vec![DataTable { path: file, at_most: None, repeat: 1, learn: Learn::Last }];
        files.extend(self.config.data.iter().cloned());
        let place = Place { file: &self.file, text: &self.text, folder: &self.folder };
        let config = SftConfig::of_stage(&self.config.sft, &self.config.model, files, &place)?;
        let mut sft = Sft::of_config(config, &place, &self.options, self.cpu)?;
        sft.also_left_out.push(format!(
            "of {n_held} dialogues held, the first {n_kept} that recall the attribute at the end are kept"
        ));
        sft.plan().into_iter().for_each(|line| on(Report::Note(line)));
        let (ending, weights) = sft.train(path, Start::Resume, stop, on)?;
        if ending == Ending::Complete {
            let after = self.recall(&self.base.layout(), &weights)?;
            on(Report::Note(format!("recall after: {}", in_words(&after))));
            let json = |recall: &[(usize, Option<f64>)]| -> serde_json::Value {
                recall
                    .iter()
                    .map(|(turn, share)| (turn.to_string(), json!(share)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            };
            let text = format!("{:#}\n", json!({"before": json(&before), "after": json(&after)}));
            std::fs::write(path.join(RECALL), text).map_err(RecipeError::io(path))?;
        }
        Ok(ending)
    }
}
