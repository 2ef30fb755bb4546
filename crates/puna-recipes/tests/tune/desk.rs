//! A folder with data for every stage, and the smallest model that comes along.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use puna_core::Rng;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_recipes::{
    Align, Distill, Dpo, Ending, Gatt, Log, Ppo, Recipe, RecipeError, Reject, Report, Reward,
    RunFolder, Sft, Start, StepRecord,
};
use serde_json::json;

/// A folder with data, configurations and runs.
pub(crate) struct Desk(tempfile::TempDir);

pub(crate) const NOUNS: [&str; 6] = ["cat", "dog", "fox", "bear", "boat", "tree"];

pub(crate) const SFT: &str = "model = \"stories260K\"\nseq_len = 128\nbatch = 4\nepochs = 1\nprecision = \"f32\"\n\
                   [[data]]\npath = \"chat.jsonl\"\n[optimizer]\nlr = 3e-3\n\
                   [eval]\nevery = 10\nfraction = 0.1\nprompts = [\"Tell me about a fox.\"]\nsample_tokens = 24\n\
                   [checkpoint]\nevery = 4\nkeep = 1\n";

pub(crate) const REWARD: &str = "model = \"stories260K\"\nseq_len = 128\nbatch = 16\nepochs = 2\nprecision = \"f32\"\nmargin = \"small\"\n\
                      safety_weight = 0.5\n[[data]]\npath = \"pairs.jsonl\"\n[optimizer]\nlr = 2e-3\n\
                      [eval]\nfraction = 0.1\n[checkpoint]\nevery = 3\nkeep = 1\n";

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let mut rng = Rng::new(1, 0);
        let mut pick = |n: usize| (rng.next_f64() * n as f64) as usize;
        let (mut chat, mut pairs, mut prompts) = (String::new(), String::new(), String::new());
        for i in 0..120 {
            let noun = NOUNS[pick(6)];
            let other = NOUNS[(NOUNS.iter().position(|n| *n == noun).unwrap() + 1 + pick(5)) % 6];
            let asked = format!("Tell me about a {noun}, please, number {i}.");
            let (good, bad) =
                (format!("Once there was a {noun}."), format!("No, see the {other}."));
            let messages =
                json!([{"role": "user", "content": asked}, {"role": "assistant", "content": good}]);
            chat += &format!("{}\n", json!({"messages": messages}));
            let prompt = json!([{"role": "user", "content": asked}]);
            let pair = json!({
                "prompt": prompt, "chosen": good, "rejected": bad, "strength": i % 4, "safety": "chosen_safe",
            });
            pairs += &format!("{pair}\n");
            prompts += &format!("{}\n", json!({"prompt": asked, "is_safety": i % 5 == 0}));
        }
        for (name, text) in
            [("chat.jsonl", chat), ("pairs.jsonl", pairs), ("prompts.jsonl", prompts)]
        {
            fs::write(desk.path(name), text).unwrap();
        }
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Opens a stage, and runs it into the folder `run`, new or not, until `most` steps were reported.
    pub(crate) fn run(
        &self,
        stage: &str,
        text: &str,
        run: &str,
        n_threads: usize,
        most: u64,
    ) -> Result<Ending, RecipeError> {
        self.run_noting(stage, text, run, n_threads, most).0
    }

    fn open<'a>(
        &self,
        stage: &str,
        text: &str,
        cpu: &'a Cpu,
    ) -> Result<Box<dyn Recipe + 'a>, RecipeError> {
        let (file, folder, options) =
            (format!("{stage}.toml"), self.0.path(), OpenOptions::default());
        match stage {
            "sft" => Sft::new(&file, text, folder, &options, cpu).map(|s| Box::new(s) as _),
            "reward" => Reward::new(&file, text, folder, &options, cpu).map(|s| Box::new(s) as _),
            "dpo" => Dpo::new(&file, text, folder, &options, cpu).map(|s| Box::new(s) as _),
            "ppo" => Ppo::new(&file, text, folder, &options, cpu).map(|s| Box::new(s) as _),
            "reject" => Reject::new(&file, text, folder, &options, cpu).map(|s| Box::new(s) as _),
            "distill" => Distill::new(&file, text, folder, &options, cpu).map(|s| Box::new(s) as _),
            "gatt" => Gatt::new(&file, text, folder, &options, cpu).map(|s| Box::new(s) as _),
            "align" => Align::new(&file, text, folder, &options, cpu).map(|s| Box::new(s) as _),
            other => panic!("no stage {other}"),
        }
    }

    /// What a stage says that it will do.
    pub(crate) fn plan(&self, stage: &str, text: &str) -> Result<Vec<String>, RecipeError> {
        Ok(self.open(stage, text, &Cpu::new(1).unwrap())?.plan())
    }

    pub(crate) fn run_noting(
        &self,
        stage: &str,
        text: &str,
        run: &str,
        n_threads: usize,
        most: u64,
    ) -> (Result<Ending, RecipeError>, Vec<String>) {
        self.run_on(&Cpu::new(n_threads).unwrap(), stage, text, run, most)
    }

    /// The same with this instruction set.
    pub(crate) fn run_on(
        &self,
        cpu: &Cpu,
        stage: &str,
        text: &str,
        run: &str,
        most: u64,
    ) -> (Result<Ending, RecipeError>, Vec<String>) {
        let recipe = match self.open(stage, text, cpu) {
            Ok(recipe) => recipe,
            Err(e) => return (Err(e), Vec::new()),
        };
        assert!(!recipe.plan().is_empty());
        let (n_steps, mut notes) = (Cell::new(0), Vec::new());
        let stop = || n_steps.get() >= most;
        let mut on = |report: Report<'_>| match report {
            Report::Step { .. } => n_steps.set(n_steps.get() + 1),
            Report::Note(note) => notes.push(note),
            Report::Checkpoint { .. } => {}
        };
        let path = self.path(run);
        let start = if path.exists() { Start::Resume } else { Start::New { config: text } };
        let ending = recipe.run(&path, start, &stop, &mut on);
        (ending, notes)
    }

    /// The last checkpoint's step, and its files that a result is made of.
    pub(crate) fn result(&self, run: &str) -> (u64, Vec<Vec<u8>>) {
        let folder = RunFolder::open(&self.path(run)).unwrap();
        let step = *folder.checkpoints().unwrap().last().unwrap();
        let names = [
            "model.safetensors",
            "value_head.safetensors",
            "adapter_model.safetensors",
            "optimizer.safetensors",
        ];
        let files = names.map(|name| folder.checkpoint(step).join(name));
        (
            step,
            files.iter().filter(|file| file.exists()).map(|file| fs::read(file).unwrap()).collect(),
        )
    }

    /// A path of the last checkpoint for a configuration.
    pub(crate) fn checkpoint(&self, run: &str) -> String {
        let folder = RunFolder::open(&self.path(run)).unwrap();
        let step = *folder.checkpoints().unwrap().last().unwrap();
        folder.checkpoint(step).display().to_string()
    }

    /// Runs a stage whole, and again in pieces with other threads and micro-batches: to the same bits.
    pub(crate) fn check_exact(&self, stage: &str, text: &str, piece: u64) {
        assert_eq!(self.run(stage, text, "whole", 1, u64::MAX).unwrap(), Ending::Complete);
        let (whole, other) = (self.result("whole"), format!("micro_batch = 1\n{text}"));
        for n_threads in (1..4).cycle() {
            match self.run(stage, &other, "pieces", n_threads, piece).unwrap() {
                Ending::Stopped => {}
                ending => {
                    assert_eq!(ending, Ending::Complete);
                    break;
                }
            }
        }
        assert!(whole == self.result("pieces"), "{stage}");
        assert_eq!(self.losses("whole"), self.losses("pieces"));
    }

    pub(crate) fn log(&self, run: &str) -> Vec<StepRecord> {
        Log::read(&self.path(run)).unwrap()
    }

    pub(crate) fn losses(&self, run: &str) -> Vec<(u64, Option<f64>, u64)> {
        self.log(run).iter().map(|r| (r.step, r.loss, r.tokens)).collect()
    }
}
