//! Runs of seconds: they learn, they resume to the same bits, and they say what is wrong.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use puna_core::Rng;
use puna_data::{Config, Corpus, Job};
use puna_kernels::Cpu;
use puna_recipes::{
    Ending, Log, Pretrain, PretrainConfig, RecipeError, Report, RunFolder, StepRecord,
};
use puna_train::Layout;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A folder with a corpus and runs.
struct Desk(tempfile::TempDir);

/// A network that a step takes milliseconds of.
const TINY: &str = "data = \"corpus\"\ntokens = 20_480\nbatch_tokens = 512\nseq_len = 64\nseed = 3\n\
                    [model]\ndim = 32\nhidden_dim = 64\nn_layers = 2\nn_heads = 4\nn_kv_heads = 2\n\
                    [optimizer]\nlr = 0.01\n";

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let words =
            ["the", "little", "bear", "went", "home", "and", "saw", "a", "big", "red", "fox"];
        let mut rng = Rng::new(1, 0);
        let mut text = String::new();
        for i in 0..400 {
            for _ in 0..30 {
                text.push_str(words[rng.next_u32() as usize % words.len()]);
                text.push(' ');
            }
            text.push_str(&format!("{i}.\n<|end|>\n"));
        }
        fs::write(desk.path("tales.txt"), text).unwrap();
        let config = "[held_out]\nfraction = 0.1\nnear_duplicates = 1.0\n[[source]]\nname = \"tales\"\n\
                      paths = [\"tales.txt\"]\nformat = \"text\"\nmarker = \"<|end|>\"\nweight = 1\n\
                      origin = \"made up\"\nlicence = \"none\"\n";
        let config = Config::parse("config.toml", config).unwrap();
        let tokenizer = puna_testkit::workspace_root().join("models/stories260K.tokenizer.model");
        let job =
            Job { config: &config, texts: desk.0.path(), tokenizer: &tokenizer, n_threads: 2 };
        fs::create_dir(desk.path("corpus")).unwrap();
        puna_data::build(&job, &desk.path("corpus"), &mut |_, _| true).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Trains into the folder `run`, new or not, until `most` steps were reported.
    fn train(
        &self,
        run: &str,
        config: &str,
        n_threads: usize,
        most: u64,
    ) -> Result<Ending, RecipeError> {
        self.train_noting(run, config, n_threads, most).0
    }

    /// The same, with what was noted.
    fn train_noting(
        &self,
        run: &str,
        text: &str,
        n_threads: usize,
        most: u64,
    ) -> (Result<Ending, RecipeError>, Vec<String>) {
        let corpus = Corpus::open(&self.path("corpus")).unwrap();
        let cpu = Cpu::new(n_threads).unwrap();
        let config = PretrainConfig::parse("run.toml", text).unwrap();
        let pretrain = Pretrain::new("run.toml", text, &config, &corpus, &cpu).unwrap();
        let (n_steps, mut notes) = (Cell::new(0), Vec::new());
        let stop = || n_steps.get() >= most;
        let mut on = |report: Report<'_>| match report {
            Report::Step { .. } => n_steps.set(n_steps.get() + 1),
            Report::Note(note) => notes.push(note),
            Report::Checkpoint { .. } => {}
        };
        let path = self.path(run);
        let ending = match path.exists() {
            true => pretrain.resume(&path, &stop, &mut on),
            false => pretrain.begin(&path, text, &stop, &mut on),
        };
        (ending, notes)
    }

    /// The files of the last checkpoint that a result is made of.
    fn result(&self, run: &str) -> (u64, Vec<u8>, Vec<u8>) {
        let folder = RunFolder::open(&self.path(run)).unwrap();
        let step = *folder.checkpoints().unwrap().last().unwrap();
        let file = |name: &str| fs::read(folder.checkpoint(step).join(name)).unwrap();
        (step, file("model.safetensors"), file("optimizer.safetensors"))
    }

    fn losses(&self, run: &str) -> Vec<(u64, Option<f64>)> {
        let steps = Log::read(&self.path(run)).unwrap();
        steps.iter().map(|StepRecord { step, loss, .. }| (*step, *loss)).collect()
    }
}

#[test]
fn a_run_learns_and_leaves_a_model() {
    let desk = Desk::new();
    let config = format!("{TINY}[eval]\nevery = 20\nwindows = 4\nsample_tokens = 8\n");
    assert_eq!(desk.train("run", &config, 2, u64::MAX).unwrap(), Ending::Complete);
    let log = Log::read(&desk.path("run")).unwrap();
    assert_eq!(log.len(), 40);
    let (first, last) = (log[0].loss.unwrap(), log[39].loss.unwrap());
    assert!((first - 512f64.ln()).abs() < 0.1, "{first}");
    assert!(last < 0.6 * first, "{first} to {last}");
    assert!(log[39].lr < log[10].lr);
    // Measured at steps 20 and 40, with a continuation.
    let measured: Vec<u64> =
        log.iter().filter(|r| !r.bits_per_byte.is_empty()).map(|r| r.step).collect();
    assert_eq!(measured, [20, 40]);
    assert!(log[39].bits_per_byte[0].1 < log[19].bits_per_byte[0].1);
    assert!(log[39].samples[0].starts_with("Once upon a time"), "{:?}", log[39].samples);
    let folder = RunFolder::open(&desk.path("run")).unwrap().checkpoint(40);
    let opened = puna_formats::open(&folder).unwrap();
    assert_eq!(opened.source.config().n_kv_heads, 2);
}

#[test]
fn results_do_not_depend_on_threads_micro_batches_or_recomputation() {
    let desk = Desk::new();
    desk.train("a", TINY, 1, u64::MAX).unwrap();
    for (run, extra, n_threads) in [
        ("b", "", 3),
        ("c", "micro_batch = 2\n", 2),
        ("d", "micro_batch = 1\nrecompute = true\n", 2),
    ] {
        desk.train(run, &format!("{extra}{TINY}"), n_threads, u64::MAX).unwrap();
        assert!(desk.result("a") == desk.result(run), "{run}");
        assert_eq!(desk.losses("a"), desk.losses(run));
    }
}

#[test]
fn a_run_that_is_stopped_goes_on_to_the_same_bits() {
    let desk = Desk::new();
    let config = format!("{TINY}[checkpoint]\nevery = 7\nkeep = 1\n[eval]\nevery = 0\n");
    desk.train("whole", &config, 2, u64::MAX).unwrap();
    let mut n_starts = 0;
    while desk.train("parts", &config, 2, 3).unwrap() == Ending::Stopped {
        n_starts += 1;
    }
    assert!(n_starts >= 12, "{n_starts}");
    assert!(desk.result("whole") == desk.result("parts"));
    assert_eq!(desk.losses("whole"), desk.losses("parts"));
    let folder = RunFolder::open(&desk.path("whole")).unwrap();
    assert_eq!(folder.checkpoints().unwrap(), [40], "the last one is kept");
}

#[test]
fn damaged_checkpoints_are_passed_over() {
    let desk = Desk::new();
    let config = format!("{TINY}[checkpoint]\nevery = 4\nkeep = 3\n[eval]\nevery = 0\n");
    desk.train("whole", &config, 2, u64::MAX).unwrap();
    desk.train("hurt", &config, 2, 14).unwrap();
    let folder = RunFolder::open(&desk.path("hurt")).unwrap();
    assert_eq!(folder.checkpoints().unwrap(), [8, 12, 14]);
    let cut = |step: u64, name: &str| {
        let file = folder.checkpoint(step).join(name);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    };
    cut(14, "optimizer.safetensors");
    fs::remove_file(folder.checkpoint(12).join("state.json")).unwrap();
    let (ending, notes) = desk.train_noting("hurt", &config, 2, u64::MAX);
    assert_eq!(ending.unwrap(), Ending::Complete);
    assert!(notes[0].contains("optimizer.safetensors: SHA-256: expected"), "{notes:?}");
    assert!(notes[1].contains("state.json"), "{notes:?}");
    assert!(notes[2].ends_with("going on after step 8"), "{notes:?}");
    assert!(desk.result("whole") == desk.result("hurt"));
    assert_eq!(desk.losses("whole"), desk.losses("hurt"));

    // Weights that are no numbers, though every hash is right; then no checkpoint at all that is whole.
    let at = |step: u64, name: &str| folder.checkpoint(step).join(name);
    let [weights, state] = ["model.safetensors", "state.json"].map(|name| at(40, name));
    let mut bytes = fs::read(&weights).unwrap();
    let before = puna_data::Sha256::of(&bytes).to_string();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, &bytes).unwrap();
    let text = fs::read_to_string(&state).unwrap();
    assert!(text.contains(&before));
    let after = puna_data::Sha256::of(&bytes).to_string();
    fs::write(&state, text.replace(&before, &after)).unwrap();
    let (ending, notes) = desk.train_noting("hurt", &config, 2, u64::MAX);
    assert_eq!(ending.unwrap(), Ending::Complete);
    assert!(notes[0].contains("expected finite numbers, found NaN"), "{notes:?}");
    assert!(notes[1].ends_with("going on after step 36"), "{notes:?}");
    assert!(desk.result("whole") == desk.result("hurt"));
    let steps = folder.checkpoints().unwrap();
    for &step in &steps {
        fs::write(at(step, "optimizer.safetensors"), "").unwrap();
    }
    let (ending, notes) = desk.train_noting("hurt", &config, 2, u64::MAX);
    let message = ending.unwrap_err().to_string();
    assert!(message.ends_with("checkpoints: expected one that is whole, found none"), "{message}");
    assert_eq!(notes.len(), steps.len());
    assert_eq!(folder.checkpoints().unwrap(), steps, "nothing is removed");
}

#[test]
fn spikes_follow_the_policy() {
    let desk = Desk::new();
    // Such a rate makes the loss leap.
    let wild = TINY.replace("lr = 0.01", "lr = 1.0\nclip = 1000.0\nwarmup_steps = 0");
    let guard = |policy: &str| {
        format!(
            "{wild}[guard]\non_fault = \"{policy}\"\nspike = 0.5\nmost_faults = 2\n[eval]\nevery = 0\n"
        )
    };
    let Ending::Fault(fault) = desk.train("stop", &guard("stop"), 2, u64::MAX).unwrap() else {
        panic!("a spike");
    };
    assert!(fault.contains("is a spike above") && fault.contains(", sequences "), "{fault}");
    for policy in ["skip", "roll-back"] {
        let (ending, notes) = desk.train_noting(policy, &guard(policy), 2, u64::MAX);
        assert!(notes.len() > 1, "{policy}: {ending:?} {notes:?}");
        assert!(matches!(ending.unwrap(), Ending::Fault(_)), "{policy}: {notes:?}");
    }
    let skipped = desk.losses("skip");
    assert!(skipped.iter().any(|(_, loss)| loss.is_none()), "{skipped:?}");
}

#[test]
fn another_run_is_refused_and_nothing_is_lost() {
    let desk = Desk::new();
    let config = format!("{TINY}[eval]\nevery = 0\n");
    desk.train("run", &config, 2, 5).unwrap();
    let before = desk.result("run");
    for (from, to, expected) in [
        ("seed = 3", "seed = 4", "setting seed of the run: expected 4, found 3"),
        ("n_layers = 2", "n_layers = 1", "setting model of the run: expected ModelConfig"),
        ("lr = 0.01", "lr = 0.02", "setting lr of the run: expected 0.02, found 0.01"),
    ] {
        let (ending, notes) = desk.train_noting("run", &config.replace(from, to), 2, 9);
        let message = format!("{:?} {notes:?}", ending.map_err(|e| e.to_string()));
        assert!(message.contains(expected), "{message}");
    }
    assert!(before == desk.result("run"));
    // A new run does not begin where another lies.
    let corpus = Corpus::open(&desk.path("corpus")).unwrap();
    let cpu = Cpu::new(1).unwrap();
    let parsed = PretrainConfig::parse("run.toml", &config).unwrap();
    let pretrain = Pretrain::new("run.toml", &config, &parsed, &corpus, &cpu).unwrap();
    let refused = pretrain.begin(&desk.path("run"), &config, &|| false, &mut |_| {});
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("expected a new or empty folder"), "{message}");
    assert!(before == desk.result("run"));
}

#[test]
fn the_plan_tells_what_will_be() {
    let desk = Desk::new();
    let corpus = Corpus::open(Path::new(&desk.path("corpus"))).unwrap();
    let cpu = Cpu::new(2).unwrap();
    let config = PretrainConfig::parse("run.toml", TINY).unwrap();
    let pretrain = Pretrain::new("run.toml", TINY, &config, &corpus, &cpu).unwrap();
    let lines = pretrain.plan().lines().join("\n");
    for part in ["51.", "dim 32, 2 layers, 4 heads (2 for keys)", "40 steps", "8 sequences of 64"] {
        assert!(lines.contains(part), "{lines}");
    }
    assert_eq!(pretrain.shortage(u64::MAX), None);
    assert!(
        pretrain.shortage(1000).unwrap().contains("0 MB are free")
            || pretrain.shortage(1000).unwrap().contains("1 MB are free")
    );
    let speed = pretrain.measure().unwrap();
    assert!(speed.tokens_per_sec > 0.0 && pretrain.plan().costs(&speed).len() == 3);
}

/// A run of milliseconds, whose numbers PyTorch computed too (`run_golden.py`).
const DEBUG: &str = "data = \"corpus\"\ntokens = 2048\nbatch_tokens = 128\nseq_len = 32\nseed = 3\nprecision = \"f32\"\n\
                     [model]\ndim = 24\nhidden_dim = 64\nn_layers = 2\nn_heads = 4\nn_kv_heads = 2\n\
                     [optimizer]\nlr = 0.01\nwarmup_steps = 4\n[eval]\nevery = 0\n";

/// A tensor's name, type, shape and bytes.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

fn golden_path() -> PathBuf {
    puna_testkit::workspace_root().join("testdata/train/run.safetensors")
}

/// The debug run's sequences and new weights.
fn debug_inputs(desk: &Desk) -> Vec<Tensor> {
    let corpus = Corpus::open(&desk.path("corpus")).unwrap();
    let config = PretrainConfig::parse("run.toml", DEBUG).unwrap();
    let layout = Layout::new(&config.settle("run.toml", DEBUG, 512).unwrap().model);
    let weights = layout.init(3);
    let training = corpus.training(32, 3);
    let ids = (0..64)
        .flat_map(|i| training.sequence(i).unwrap().tokens)
        .flat_map(|id| u16::try_from(id).unwrap().to_le_bytes())
        .collect();
    let mut tensors = vec![("sequences".to_owned(), Dtype::U16, vec![64, 33], ids)];
    for (id, span) in layout.spans() {
        let bytes = weights[span.clone()].iter().flat_map(|w| w.to_le_bytes()).collect();
        tensors.push((id.to_string(), Dtype::F32, vec![span.len()], bytes));
    }
    tensors
}

#[test]
#[ignore = "writes the golden file that run_golden.py completes"]
fn write_debug_inputs() {
    let tensors = debug_inputs(&Desk::new());
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(golden_path(), safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_debug_run_has_the_losses_of_pytorch() {
    let desk = Desk::new();
    let bytes = fs::read(golden_path()).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    for (name, _, _, bytes) in debug_inputs(&desk) {
        assert!(golden.tensor(&name).unwrap().data() == bytes, "{name} is as it was");
    }
    desk.train("run", DEBUG, 2, u64::MAX).unwrap();
    let log = Log::read(&desk.path("run")).unwrap();
    let floats = |name: &str| {
        let data = golden.tensor(name).unwrap().data();
        data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<f32>>()
    };
    let found = |of: fn(&StepRecord) -> f64| log.iter().map(|r| of(r) as f32).collect::<Vec<_>>();
    let losses = found(|r| r.loss.unwrap());
    puna_testkit::assert_within_peak("losses", &losses, &floats("losses"), 1e-4);
    let norms = found(|r| r.grad_norm.unwrap());
    puna_testkit::assert_within_peak("norms", &norms, &floats("norms"), 1e-3);
}
