//! Checkpoints: a Hugging Face folder that any program loads, the optimizer beside it, and the state of the run with the
//! hashes of all of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use bytemuck::cast_slice;
use puna_core::{DType, LayerWeight, ModelConfig, TensorInfo, WeightId};
use puna_data::Sha256;
use puna_formats::hf::{self, ConfigExtras};
use puna_formats::{AtomicFolder, Existing, safetensors as tensors};
use puna_train::{Layout, Optimizer};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::RecipeError;

/// Name of the state in a checkpoint.
pub(super) const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const WEIGHTS: &str = "model.safetensors";

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

/// A checkpoint's contents.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// Where the run was.
    pub state: State,
    /// In the layout of training.
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
    /// What AdamW remembers.
    pub optimizer: &'a Optimizer,
    /// `tokenizer.model`.
    pub tokenizer: &'a [u8],
    /// Tokens that begin and end a text.
    pub bos_eos: (u32, u32),
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
            dtype: DType::F32,
        };
        let config = self.layout.config();
        folder.write("config.json", hf::config_json(config, &extras).as_bytes())?;
        folder.write("generation_config.json", hf::generation_config_json(&extras).as_bytes())?;
        folder.write("tokenizer.model", self.tokenizer)?;
        self.write_weights(folder.path())?;
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

    fn write_weights(&self, folder: &Path) -> Result<(), RecipeError> {
        let config = self.layout.config();
        let infos: Vec<(String, TensorInfo)> = WeightId::all(config)
            .map(|id| (hf::name(id), TensorInfo { dtype: DType::F32, shape: id.shape(config) }))
            .collect();
        let mut writer = tensors::Writer::create(folder, &infos, u64::MAX)?;
        for (id, span) in self.layout.spans() {
            let name = hf::name(*id);
            let weights = &self.weights[span.clone()];
            match rotated_rows(config, *id) {
                None => writer.write_part(&name, cast_slice(weights))?,
                Some(order) => {
                    for row in order {
                        let row = &weights[row * config.dim..(row + 1) * config.dim];
                        writer.write_part(&name, cast_slice(row))?;
                    }
                }
            }
        }
        writer.finish()?;
        Ok(())
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
    let small = ["config.json", "generation_config.json", "tokenizer.model", STATE];
    small.contains(&name) || name == OPTIMIZER || name == WEIGHTS
}

/// The order in which Hugging Face's form has the rows of `wq` and `wk`: it pairs element `i` of a head with `i + H/2`,
/// training `2i` with `2i + 1`. `None` for other tensors.
fn rotated_rows(config: &ModelConfig, id: WeightId) -> Option<impl Iterator<Item = usize> + use<>> {
    let WeightId::Layer(_, LayerWeight::Wq | LayerWeight::Wk) = id else { return None };
    let (head_dim, n_rows) = (config.head_dim, id.shape(config)[0]);
    Some((0..n_rows).map(move |row| {
        let (head, i) = (row / head_dim, row % head_dim);
        let half = head_dim / 2;
        head * head_dim + if i < half { 2 * i } else { 2 * (i - half) + 1 }
    }))
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

    /// Reads a checkpoint of a network of this layout and checks every file's hash.
    ///
    /// # Errors
    /// A file is missing, cut off or changed, or it is of another network.
    pub(crate) fn read(path: &Path, layout: &Layout) -> Result<Self, RecipeError> {
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
        let weights = read_weights(&path.join(WEIGHTS), &content(WEIGHTS)?, layout)?;
        let (file, bytes) = (path.join(OPTIMIZER), content(OPTIMIZER)?);
        let arrays = parse(&file, &bytes)?;
        let optimizer = Optimizer {
            means: floats(&file, &arrays, "means", &[layout.len()])?,
            squares: floats(&file, &arrays, "squares", &[layout.len()])?,
            n_updates: state.n_updates,
        };
        Ok(Self { hash: hash_of_state, weights, optimizer, state })
    }
}

fn read_weights(file: &Path, bytes: &[u8], layout: &Layout) -> Result<Vec<f32>, RecipeError> {
    let config = layout.config();
    let arrays = parse(file, bytes)?;
    let mut weights = vec![0.0; layout.len()];
    for (id, span) in layout.spans() {
        let found = floats(file, &arrays, &hf::name(*id), &id.shape(config))?;
        let weights = &mut weights[span.clone()];
        match rotated_rows(config, *id) {
            None => weights.copy_from_slice(&found),
            Some(order) => {
                for (row, found) in order.zip(found.chunks_exact(config.dim)) {
                    weights[row * config.dim..(row + 1) * config.dim].copy_from_slice(found);
                }
            }
        }
    }
    Ok(weights)
}

fn parse<'a>(file: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, RecipeError> {
    let wrong = |e| RecipeError::run(file, "content", "safetensors", e);
    SafeTensors::deserialize(bytes).map_err(wrong)
}

fn floats(
    file: &Path,
    arrays: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, RecipeError> {
    let wrong = |found: String| RecipeError::run(file, name, format!("F32 {shape:?}"), found);
    let array = arrays.tensor(name).map_err(|_| wrong("none".to_owned()))?;
    if array.dtype() != Dtype::F32 || array.shape() != shape {
        return Err(wrong(format!("{:?} {:?}", array.dtype(), array.shape())));
    }
    let numbers = array.data().as_chunks::<4>().0.iter();
    Ok(numbers.map(|&bytes| f32::from_le_bytes(bytes)).collect())
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
    use puna_core::{Rope, RopeLayout, RopeScaling};

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
        let mut optimizer = Optimizer::new(&layout);
        optimizer.means = layout.init(4);
        optimizer.n_updates = 6;
        let contents = Contents {
            layout: &layout,
            weights: &weights,
            optimizer: &optimizer,
            tokenizer: b"pieces",
            bos_eos: (1, 2),
        };
        contents.write(path, state()).unwrap();
        (weights, optimizer)
    }

    #[test]
    fn everything_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step");
        let (weights, optimizer) = write(&path);
        let found = Checkpoint::read(&path, &layout()).unwrap();
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
            let message = Checkpoint::read(&path, &layout()).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            fs::remove_file(&file).unwrap();
            let message = Checkpoint::read(&path, &layout()).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            fs::write(&file, &bytes).unwrap();
        }
        let other = Layout::new(&ModelConfig { n_layers: 1, dim: 6, ..layout().config().clone() });
        let message = Checkpoint::read(&path, &other).unwrap_err().to_string();
        assert!(
            message.contains("model.embed_tokens.weight: expected F32 [9, 6], found F32 [9, 12]"),
            "{message}"
        );
    }
}
