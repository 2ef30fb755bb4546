//! Random-weight models of published shapes, written as GGUF: for benchmarks and tests, where only the shape
//! of the work matters.
//!
//! Weights have mean 0 and deviation 0.02 in whatever type they are stored, norms are 1, so that activations and
//! logits stay finite and of the size they have in a trained network. The same seed gives the same file.

mod blocks;
mod shape;
mod vocab;

use std::collections::BTreeMap;
use std::path::Path;

use puna_core::{DType, ModelConfig, Rng, TensorInfo, WeightId};
use puna_formats::gguf::{self, Value, Writer};
use puna_tokenizer::{Piece, Settings, Tokenizer};

use crate::HubError;
use crate::convert::vocabulary;
use crate::quantize::{Mix, fitting_type};
pub use shape::Shape;
pub(crate) use vocab::invent;

/// Pieces of an invented vocabulary, as many as Llama 2's.
const VOCAB_SIZE: usize = 32_000;

/// How the matrices of a model are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// All in one type.
    One(DType),
    /// Each as the mix says.
    Mixed(Mix),
}

impl Storage {
    /// Every type, then the mixes that have names of their own: a type's name means the type.
    pub fn all() -> impl Iterator<Item = Self> {
        let is_type = |mix: &Mix| DType::ALL.iter().any(|dtype| dtype.name() == mix.name());
        let mixes = Mix::ALL.into_iter().filter(move |mix| !is_type(mix));
        DType::ALL.into_iter().map(Self::One).chain(mixes.map(Self::Mixed))
    }

    /// The name in lower case, as commands take it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One(dtype) => dtype.name(),
            Self::Mixed(mix) => mix.name(),
        }
    }

    /// The type of a matrix, whether or not its blocks divide the rows.
    fn wanted(self, id: WeightId, config: &ModelConfig) -> DType {
        match self {
            Self::One(dtype) => dtype,
            Self::Mixed(mix) => mix.wanted(id, config, false),
        }
    }
}

/// A model to be written.
pub struct Synth {
    shape: Shape,
    storage: Storage,
    seed: u64,
    config: ModelConfig,
    pieces: Vec<Piece>,
    settings: Settings,
}

impl Synth {
    /// A model of this shape whose matrices are stored as `storage` says, with the vocabulary of `tokenizer` or, without
    /// one, an invented vocabulary of 32,000 pieces.
    pub fn new(shape: Shape, storage: Storage, tokenizer: Option<&Tokenizer>, seed: u64) -> Self {
        let (pieces, settings) = match tokenizer {
            Some(tokenizer) => (tokenizer.pieces().to_vec(), tokenizer.settings().clone()),
            None => (invent(VOCAB_SIZE), Settings::default()),
        };
        let config = shape.config(pieces.len());
        Self { shape, storage, seed, config, pieces, settings }
    }

    /// The network's dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Type and shape of every tensor, in the order of the file.
    fn tensors(&self) -> Vec<(WeightId, TensorInfo)> {
        WeightId::all(&self.config)
            .map(|id| {
                let shape = id.shape(&self.config);
                let dtype = match shape[..] {
                    [_, cols] => fitting_type(self.storage.wanted(id, &self.config), cols),
                    _ => DType::F32,
                };
                (id, TensorInfo { dtype, shape })
            })
            .collect()
    }

    /// Bytes of all tensors.
    pub fn n_bytes(&self) -> u64 {
        self.tensors().iter().map(|(_, info)| n_bytes(info) as u64).sum()
    }

    /// Matrices that are stored in another type than asked for, because its blocks do not divide their rows:
    /// how many, by type.
    pub fn fallbacks(&self) -> BTreeMap<DType, usize> {
        let mut counts = BTreeMap::new();
        for (id, info) in self.tensors() {
            if info.shape.len() == 2 && info.dtype != self.storage.wanted(id, &self.config) {
                *counts.entry(info.dtype).or_default() += 1;
            }
        }
        counts
    }

    /// Writes the file, tensor by tensor; memory stays at one tensor. `progress` gets the bytes written so far and
    /// says whether to go on. A file that is not completed leaves nothing behind.
    ///
    /// # Errors
    /// The file cannot be written, or [`HubError::Stopped`].
    pub fn write(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), HubError> {
        let tensors = self.tensors();
        let named: Vec<(String, TensorInfo)> =
            tensors.iter().map(|(id, info)| (gguf::name(*id), info.clone())).collect();
        let mut writer = Writer::create(path, &self.metadata(), &named)?;
        let mut data = Vec::new();
        let mut written = 0;
        for (stream, (name, info)) in named.iter().enumerate() {
            data.clear();
            data.resize(n_bytes(info), 0);
            if info.shape.len() == 1 {
                data.as_chunks_mut().0.fill(1f32.to_le_bytes());
            } else {
                blocks::fill(info.dtype, &mut Rng::new(self.seed, stream as u64), &mut data);
            }
            writer.write(name, &data)?;
            written += data.len() as u64;
            if !progress(written) {
                return Err(HubError::Stopped);
            }
        }
        Ok(writer.finish()?)
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let c = &self.config;
        let number = |n: usize| Value::U32(u32::try_from(n).expect("dimensions are small"));
        let metadata = [
            ("general.architecture", Value::String("llama".into())),
            ("general.name", Value::String(format!("random weights, shape {}", self.shape))),
            ("general.quantization_version", Value::U32(2)),
            ("llama.context_length", number(c.max_seq_len)),
            ("llama.embedding_length", number(c.dim)),
            ("llama.block_count", number(c.n_layers)),
            ("llama.feed_forward_length", number(c.hidden_dim)),
            ("llama.rope.dimension_count", number(c.head_dim)),
            ("llama.rope.freq_base", Value::F32(c.rope.theta)),
            ("llama.attention.head_count", number(c.n_heads)),
            ("llama.attention.head_count_kv", number(c.n_kv_heads)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(c.norm_eps)),
            ("llama.vocab_size", number(c.vocab_size)),
        ];
        let Self { pieces, settings, .. } = self;
        let own = metadata.into_iter().map(|(key, value)| (key.to_owned(), value));
        own.chain(vocabulary::entries(pieces, settings, settings.bos_id.is_some(), false)).collect()
    }
}

/// Stored bytes of a tensor of ours.
fn n_bytes(info: &TensorInfo) -> usize {
    info.n_bytes().expect("fitting_type chose a type whose blocks divide the rows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OpenOptions, check_weights, open};

    /// Writes and opens the smallest shape in every type: the file is sound and no weight is off.
    #[test]
    fn what_is_written_can_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        for dtype in [DType::Q4_0, DType::Q6_K, DType::BF16] {
            let path = folder.path().join(format!("{dtype}.gguf"));
            let synth = Synth::new(Shape::Stories15M, Storage::One(dtype), None, 3);
            let mut last = 0;
            synth.write(&path, &mut |n| std::mem::replace(&mut last, n) < n).unwrap();
            assert_eq!(last, synth.n_bytes());
            let opened = open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
            let source = &*opened.checkpoint.source;
            assert_eq!(source.config(), synth.config());
            assert_eq!(opened.tokenizer.vocab_size(), VOCAB_SIZE);
            assert_eq!(opened.bos_id, Some(1));
            assert_eq!(check_weights(source, &mut |_| true).unwrap(), []);
            let embeddings = source.info(WeightId::TokEmbeddings).unwrap();
            assert_eq!(embeddings.dtype, fitting_type(dtype, 288));
        }
    }

    #[test]
    fn stopping_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let synth = Synth::new(Shape::Stories15M, Storage::One(DType::Q4_0), None, 3);
        let outcome = synth.write(&folder.path().join("x.gguf"), &mut |_| false);
        assert!(matches!(outcome, Err(HubError::Stopped)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_seed_decides() {
        let fill = |seed| {
            let mut data = vec![0; 18 * 8];
            blocks::fill(DType::Q4_0, &mut Rng::new(seed, 0), &mut data);
            data
        };
        assert_eq!(fill(1), fill(1));
        assert_ne!(fill(1), fill(2));
    }

    #[test]
    fn fallbacks_are_told() {
        let of = |shape, storage| Synth::new(shape, storage, None, 0).fallbacks();
        let q4_k = Storage::One(DType::Q4_K);
        assert!(of(Shape::Llama7B, q4_k).is_empty());
        assert!(of(Shape::TinyLlama, Storage::Mixed(Mix::Q5_K_M)).is_empty());
        // Rows of 288: everything but the six down projections, whose rows are 768.
        assert_eq!(of(Shape::Stories15M, q4_k), BTreeMap::from([(DType::Q5_0, 37)]));
    }

    /// What `quantize` would make of the shape: `wv` and `w_down` of half of the layers, and the output, are Q6_K.
    #[test]
    fn mixes_are_those_of_quantize() {
        let synth = Synth::new(Shape::Llama7B, Storage::Mixed(Mix::Q4_K_M), None, 0);
        let mut counts = BTreeMap::new();
        for (_, info) in synth.tensors() {
            *counts.entry(info.dtype).or_insert(0) += 1;
        }
        // llama.cpp tells the same of its 7B in this mix.
        let expected = [(DType::F32, 65), (DType::Q4_K, 193), (DType::Q6_K, 33)];
        assert_eq!(counts, BTreeMap::from(expected));
    }

    #[test]
    fn names_are_unique() {
        let names: Vec<&str> = Storage::all().map(Storage::name).collect();
        assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), names.len());
        assert!(names.contains(&"q4_k_m") && names.contains(&"q4_k") && names.contains(&"bf16"));
    }
}
