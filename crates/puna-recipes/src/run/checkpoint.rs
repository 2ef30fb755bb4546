//! Checkpoints: a Hugging Face folder that any program loads, the optimizer beside it, and the state of the run with the
//! hashes of all of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use bytemuck::cast_slice;
use puna_core::{DType, SamplingHints};
use puna_data::Sha256;
use puna_formats::hf::{self, ConfigExtras};
use puna_formats::{AtomicFolder, Existing};
use puna_kernels::Isa;
use puna_train::{Layout, Lora, Optimizer};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::adapters;
use super::learner::Form;
use super::tensors::{self, floats, parse};
use crate::RecipeError;

/// Name of the state in a checkpoint.
pub(super) const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const WEIGHTS: &str = "model.safetensors";
const TEMPLATE: &str = "chat_template.jinja";

/// The Llama 2 chat form in Jinja, for programs that know only that.
const LLAMA2_TEMPLATE: &str = include_str!("llama2_template.jinja");

/// Version of [`State`]'s form.
const VERSION: u32 = 1;

/// Where a run is, and everything that it goes on from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Version of this form.
    pub version: u32,
    /// Steps made, those left out included.
    pub step: u64,
    /// The next training sequence.
    pub next_sequence: u64,
    /// Updates of the optimizer.
    pub n_updates: u32,
    /// Bits of the running mean of the loss, an f64; of a NaN before the first step.
    pub loss_mean_bits: u64,
    /// Batches that were left out, by the index of their first sequence.
    pub left_out: Vec<u64>,
    /// The step with the fewest held-out bits per byte so far, and the bits of that f64.
    pub best: Option<(u64, u64)>,
    /// The instruction set that computed it: another one rounds otherwise.
    pub isa: String,
    /// Every setting that the result depends on, in words.
    pub settings: BTreeMap<String, String>,
    /// What the run is made of.
    pub chain: Chain,
    /// SHA-256 of each file beside this one.
    pub files: BTreeMap<String, Sha256>,
}

impl State {
    /// Where a run is before its first step.
    pub(crate) fn new(isa: Isa, settings: BTreeMap<String, String>, chain: Chain) -> Self {
        Self {
            version: VERSION,
            step: 0,
            next_sequence: 0,
            n_updates: 0,
            loss_mean_bits: f64::NAN.to_bits(),
            left_out: Vec::new(),
            best: None,
            isa: isa.to_string(),
            settings,
            chain,
            files: BTreeMap::new(),
        }
    }

    /// Fails where this state, found in `folder`, is of another run than `ours`.
    pub(crate) fn check_same_run(&self, ours: &Self, folder: &Path) -> Result<(), RecipeError> {
        for (key, ours) in &ours.settings {
            let found = self.settings.get(key).map_or("nothing", String::as_str);
            if found != ours {
                let what = format!("setting {key} of the run");
                return Err(RecipeError::run(folder, what, ours, found));
            }
        }
        for (what, ours, found) in [
            ("data of the run", ours.chain.data, self.chain.data),
            ("tokenizer of the run", ours.chain.tokenizer, self.chain.tokenizer),
        ] {
            if ours != found {
                return Err(RecipeError::run(folder, what, ours, found));
            }
        }
        Ok(())
    }

    /// What to say where this state was computed with another instruction set.
    pub(crate) fn other_machine(&self, ours: &Self) -> Option<String> {
        let (then, now) = (&self.isa, &ours.isa);
        (then != now).then(|| {
            format!(
                "the run was computed with {then}, this machine has {now}: it goes on, but not to the same bits"
            )
        })
    }

    /// This state, read from a checkpoint whose hash is `hash`, as that of a run that goes on.
    pub(crate) fn going_on(self, isa: &str, hash: Sha256) -> Self {
        let chain = Chain { parent: Some(hash), ..self.chain };
        Self { isa: isa.to_owned(), files: BTreeMap::new(), chain, ..self }
    }
}

/// Hashes of what a checkpoint came from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chain {
    /// Of the settings.
    pub settings: Sha256,
    /// Of the corpus' manifest.
    pub data: Sha256,
    /// Of the tokenizer.
    pub tokenizer: Sha256,
    /// Of the state of the checkpoint before; nothing for the first.
    pub parent: Option<Sha256>,
}

impl Chain {
    /// Of a run that begins.
    pub(crate) fn new(settings: &BTreeMap<String, String>, data: Sha256, tokenizer: &[u8]) -> Self {
        let (settings, tokenizer) =
            (Sha256::of(format!("{settings:?}").as_bytes()), Sha256::of(tokenizer));
        Self { settings, data, tokenizer, parent: None }
    }
}

/// A checkpoint's contents.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// Where the run was.
    pub state: State,
    /// In the layout of training; of adapters alone, where these were trained.
    pub weights: Vec<f32>,
    /// What AdamW remembers.
    pub optimizer: Optimizer,
    /// SHA-256 of the state, for the next checkpoint's chain.
    pub hash: Sha256,
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents<'a> {
    /// The network.
    pub layout: &'a Layout,
    /// In its layout.
    pub weights: &'a [f32],
    /// Adapters, which are written instead of the weights: these are of the base model and of them.
    pub adapters: Option<AdapterContents<'a>>,
    /// What AdamW remembers.
    pub optimizer: &'a Optimizer,
    /// `tokenizer.model`.
    pub tokenizer: &'a [u8],
    /// Tokens that begin and end a text.
    pub bos_eos: (u32, u32),
    /// What the weights are.
    pub form: Form,
}

/// Adapters that are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdapterContents<'a> {
    /// What there are.
    pub lora: &'a Lora,
    /// In its order.
    pub values: &'a [f32],
    /// The model that they are added to, as a name or where it lies.
    pub base: &'a str,
}

impl Contents<'_> {
    /// Writes a checkpoint into the folder `path`, which appears when it is complete, in place of an older one. Returns
    /// the hash of its state.
    ///
    /// # Errors
    /// The disk is full, or the system refuses; `path` is then as it was.
    pub(crate) fn write(&self, path: &Path, mut state: State) -> Result<Sha256, RecipeError> {
        let folder = AtomicFolder::create(path, Existing::Replace, belongs)?;
        let (bos_id, eos_id) = self.bos_eos;
        let extras = ConfigExtras {
            bos_id: Some(bos_id),
            eos_ids: vec![eos_id],
            pad_id: None,
            sampling: match self.form {
                Form::Chat => SamplingHints::LLAMA2_CHAT,
                Form::Language | Form::Score => SamplingHints::default(),
            },
            dtype: DType::F32,
        };
        let config = self.layout.config();
        folder.write("tokenizer.model", self.tokenizer)?;
        if let Some(AdapterContents { lora, values, base }) = self.adapters {
            let config = adapters::config_json(lora, self.form, base);
            folder.write(adapters::CONFIG, config.as_bytes())?;
            adapters::write(folder.path(), self.layout, lora, values, self.form)?;
        } else {
            let json = match self.form {
                Form::Language | Form::Chat => hf::config_json(config, &extras),
                Form::Score => hf::classifier_config_json(config, &extras),
            };
            folder.write("config.json", json.as_bytes())?;
            folder
                .write("generation_config.json", hf::generation_config_json(&extras).as_bytes())?;
            tensors::write(folder.path(), self.layout, self.weights, self.form)?;
        }
        if self.form == Form::Chat {
            folder.write(TEMPLATE, LLAMA2_TEMPLATE.as_bytes())?;
        }
        self.write_optimizer(&folder.path().join(OPTIMIZER))?;
        state.version = VERSION;
        state.n_updates = self.optimizer.n_updates;
        for entry in fs::read_dir(folder.path()).map_err(RecipeError::io(folder.path()))? {
            let file = entry.map_err(RecipeError::io(folder.path()))?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            state.files.insert(name, hash_of(&file)?);
        }
        let text = serde_json::to_string_pretty(&state).expect("numbers and strings are JSON");
        folder.write(STATE, text.as_bytes())?;
        folder.commit()?;
        Ok(Sha256::of(text.as_bytes()))
    }

    /// Straight from memory: there is no second copy.
    fn write_optimizer(&self, file: &Path) -> Result<(), RecipeError> {
        let Optimizer { means, squares, .. } = self.optimizer;
        let views = [("means", means), ("squares", squares)].map(|(name, data)| {
            let view = TensorView::new(Dtype::F32, vec![data.len()], cast_slice(data));
            (name, view.expect("as many bytes as the shape asks for"))
        });
        let io = |e| RecipeError::io(file)(e);
        safetensors::serialize_to_file(views, None, file)
            .map_err(|e| io(std::io::Error::other(e)))?;
        File::open(file).and_then(|file| file.sync_all()).map_err(io)
    }
}

/// Whether a checkpoint has a file of this name.
fn belongs(name: &str) -> bool {
    let small = ["config.json", "generation_config.json", "tokenizer.model", TEMPLATE, STATE];
    let large = [OPTIMIZER, WEIGHTS, tensors::VALUE_HEAD, adapters::CONFIG, adapters::WEIGHTS];
    small.contains(&name) || large.contains(&name)
}

impl Checkpoint {
    /// Reads the state of a checkpoint alone, and its hash.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub(crate) fn read_state(path: &Path) -> Result<(State, Sha256), RecipeError> {
        let file = path.join(STATE);
        let text = fs::read(&file).map_err(RecipeError::io(&file))?;
        let state: State = serde_json::from_slice(&text)
            .map_err(|e| RecipeError::run(&file, "state", "what a checkpoint writes", e))?;
        if state.version != VERSION {
            return Err(RecipeError::run(&file, "version", VERSION, state.version));
        }
        Ok((state, Sha256::of(&text)))
    }

    /// Reads a checkpoint of a network of this layout, or of adapters for it, and checks every file's hash.
    ///
    /// # Errors
    /// A file is missing, cut off or changed, or it is of another network.
    pub(crate) fn read(
        path: &Path,
        layout: &Layout,
        lora: Option<&Lora>,
    ) -> Result<Self, RecipeError> {
        let (state, hash_of_state) = Self::read_state(path)?;
        let file = path.join(STATE);
        for (name, expected) in &state.files {
            if !belongs(name) {
                return Err(RecipeError::run(&file, "files", "names of a checkpoint's", name));
            }
            let file = path.join(name);
            let found = hash_of(&file)?;
            if found != *expected {
                return Err(RecipeError::run(&file, "SHA-256", expected, found));
            }
        }
        // One file at a time, so that no more than one is in memory twice.
        let content = |name: &str| {
            let file = path.join(name);
            if !state.files.contains_key(name) {
                return Err(RecipeError::run(&file, "file", "one with a hash", "none"));
            }
            fs::read(&file).map_err(RecipeError::io(&file))
        };
        let (mut weights, score) = match lora {
            Some(lora) => {
                let file = path.join(adapters::WEIGHTS);
                let bytes = content(adapters::WEIGHTS)?;
                (adapters::read(&file, &bytes, layout, lora)?, lora.score())
            }
            None => {
                let weights = tensors::read(&path.join(WEIGHTS), &content(WEIGHTS)?, layout)?;
                (weights, layout.score())
            }
        };
        if let (Some(row), true) = (score, state.files.contains_key(tensors::VALUE_HEAD)) {
            let file = path.join(tensors::VALUE_HEAD);
            let found = tensors::read_score(&file, &content(tensors::VALUE_HEAD)?, layout)?;
            weights[row].copy_from_slice(&found);
        }
        let (file, bytes) = (path.join(OPTIMIZER), content(OPTIMIZER)?);
        let arrays = parse(&file, &bytes)?;
        let optimizer = Optimizer {
            means: floats(&file, &arrays, "means", &[weights.len()])?,
            squares: floats(&file, &arrays, "squares", &[weights.len()])?,
            n_updates: state.n_updates,
        };
        Ok(Self { hash: hash_of_state, weights, optimizer, state })
    }
}

/// The hash of a file, which is never in memory as a whole.
fn hash_of(path: &Path) -> Result<Sha256, RecipeError> {
    let io = |e| RecipeError::io(path)(e);
    let mut file = File::open(path).map_err(io)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(Sha256(hasher.finalize().into()))
}

#[cfg(test)]
mod tests {
    use puna_core::{LayerWeight, ModelConfig, Rope, RopeLayout, RopeScaling, WeightId};

    use super::*;

    fn layout() -> Layout {
        Layout::new(&ModelConfig {
            dim: 12,
            hidden_dim: 10,
            n_layers: 2,
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: 6,
            vocab_size: 9,
            max_seq_len: 16,
            norm_eps: 1e-5,
            rope: Rope { theta: 1e4, scaling: RopeScaling::None, layout: RopeLayout::Interleaved },
            tied_output: false,
        })
    }

    fn state() -> State {
        State {
            version: VERSION,
            step: 7,
            next_sequence: 56,
            n_updates: 0,
            loss_mean_bits: 2.5f64.to_bits(),
            left_out: vec![8],
            best: Some((4, 1.5f64.to_bits())),
            isa: "avx2".to_owned(),
            settings: BTreeMap::new(),
            chain: Chain {
                settings: Sha256::of(b"settings"),
                data: Sha256::of(b"data"),
                tokenizer: Sha256::of(b"pieces"),
                parent: None,
            },
            files: BTreeMap::new(),
        }
    }

    /// A checkpoint in `path`, with its weights and its optimizer.
    fn write(path: &Path) -> (Vec<f32>, Optimizer) {
        let layout = layout();
        let weights = layout.init(3);
        let mut optimizer = Optimizer::new(layout.len());
        optimizer.means = layout.init(4);
        optimizer.n_updates = 6;
        let contents = Contents {
            layout: &layout,
            weights: &weights,
            adapters: None,
            optimizer: &optimizer,
            tokenizer: b"pieces",
            bos_eos: (1, 2),
            form: Form::Language,
        };
        contents.write(path, state()).unwrap();
        (weights, optimizer)
    }

    #[test]
    fn everything_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step");
        let (weights, optimizer) = write(&path);
        let found = Checkpoint::read(&path, &layout(), None).unwrap();
        assert_eq!((found.weights, found.optimizer), (weights.clone(), optimizer));
        assert_eq!(found.state.files.len(), 5);
        let files = found.state.files.clone();
        assert_eq!(found.state, State { n_updates: 6, files, ..state() });
        // The form is Hugging Face's, with its order of rows.
        let opened = puna_formats::open(&path).unwrap();
        assert_eq!(opened.source.config().rope.layout, RopeLayout::Halves);
        let wq = opened.source.load(WeightId::Layer(1, LayerWeight::Wq)).unwrap();
        let second_row = f32::from_le_bytes(wq.data[12 * 4..][..4].try_into().unwrap());
        let span = layout().span(WeightId::Layer(1, LayerWeight::Wq));
        assert_eq!(second_row, weights[span][2 * 12]);
        // Once more in the same place.
        write(&path);
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step");
        write(&path);
        for name in [WEIGHTS, OPTIMIZER, STATE, "config.json"] {
            let file = path.join(name);
            let bytes = fs::read(&file).unwrap();
            fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
            let message = Checkpoint::read(&path, &layout(), None).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            fs::remove_file(&file).unwrap();
            let message = Checkpoint::read(&path, &layout(), None).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            fs::write(&file, &bytes).unwrap();
        }
        let other = Layout::new(&ModelConfig { n_layers: 1, dim: 6, ..layout().config().clone() });
        let message = Checkpoint::read(&path, &other, None).unwrap_err().to_string();
        assert!(
            message.contains("model.embed_tokens.weight: expected F32 [9, 6], found F32 [9, 12]"),
            "{message}"
        );
    }
}
