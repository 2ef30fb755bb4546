//! A trained reward model at work.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use puna_core::{ModelConfig, TensorSource};
use puna_data::Sha256;
use puna_formats::hf;
use puna_hub::{OpenOptions, OpenedScorer, is_adapters, open_scorer};
use puna_kernels::Cpu;
use puna_ops::Precision;
use puna_tokenizer::Tokenizer;
use puna_tokenizer::chat::{Message, render_training};
use puna_train::rl::sigmoid;
use puna_train::{Layout, Pass};

use crate::RecipeError;
use crate::run::read_scoring_network;
use crate::tune::{Item, RowBatch, dense_weights, pack};

/// Tokens that are scored at once.
const BATCH_TOKENS: usize = 2048;

/// A reward model in memory.
pub struct Scorer {
    name: String,
    layout: Layout,
    weights: Weights,
    tokenizer: Tokenizer,
    /// `tokenizer.model`
    tokenizer_file: Vec<u8>,
    precision: Precision,
}

/// Where the weights of a reward model are.
enum Weights {
    /// In memory, in the order of its layout.
    Whole(Vec<f32>),
    /// In the file of the model that they adapt, which others may use too: they are put together for as long as texts are
    /// scored.
    Adapters { source: Arc<dyn TensorSource>, score: Vec<f32> },
}

impl Weights {
    /// Those of `layout`, all of them finite.
    fn whole(&self, name: &str, layout: &Layout) -> Result<Cow<'_, [f32]>, RecipeError> {
        match self {
            Self::Whole(weights) => Ok(weights.into()),
            Self::Adapters { source, score } => {
                let (_, mut weights) = dense_weights(name, &**source, |_| layout.clone())?;
                weights[layout.score().expect("a layout with a scoring row")]
                    .copy_from_slice(score);
                Ok(weights.into())
            }
        }
    }
}

/// What a reward model says of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score(
    /// As the regression head gives it.
    pub f64,
);

impl Score {
    /// The paper's score, from 0 to 1.
    #[must_use]
    pub fn probability(self) -> f64 {
        sigmoid(self.0)
    }
}

impl Scorer {
    /// Opens a checkpoint of `puna reward train`; or what `transformers` saves of a `LlamaForSequenceClassification` with one
    /// label in f32, with a `tokenizer.model` beside it; or adapters for one as PEFT saves them, which are added to the
    /// model that they name, opened by `options`.
    ///
    /// # Errors
    /// It is no such folder, or there is no such model.
    pub fn open(folder: &Path, options: &OpenOptions, cpu: &Cpu) -> Result<Self, RecipeError> {
        let mut scorer = Self::read(folder, options, Precision::best(cpu.isa()))?;
        let whole = scorer.weights.whole(&scorer.name, &scorer.layout)?.into_owned();
        scorer.weights = Weights::Whole(whole);
        Ok(scorer)
    }

    /// The same, with factors of products rounded to `precision`. Adapters have weights only while they score, so that
    /// several of one model take the memory of one.
    pub(crate) fn sharing(
        folder: &Path,
        options: &OpenOptions,
        precision: Precision,
    ) -> Result<Self, RecipeError> {
        let scorer = Self::read(folder, options, precision)?;
        // What is wrong with them shows now.
        scorer.weights.whole(&scorer.name, &scorer.layout)?;
        Ok(scorer)
    }

    fn read(
        folder: &Path,
        options: &OpenOptions,
        precision: Precision,
    ) -> Result<Self, RecipeError> {
        let folder = &*puna_hub::result_of(folder);
        let name = folder.display().to_string();
        if is_adapters(folder) {
            return Self::of_adapters(name, open_scorer(folder, options)?, precision);
        }
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(RecipeError::io(&path))
        };
        let file = folder.join("config.json").display().to_string();
        let mut config = hf::parse_classifier_config(&file, &read("config.json")?)?;
        config.rope.layout = puna_core::RopeLayout::Interleaved;
        let layout = Layout::with_score(&config);
        let weights = read_scoring_network(&folder.join("model.safetensors"), &layout)?;
        let weights = Weights::Whole(weights);
        let tokenizer_file = read("tokenizer.model")?;
        let tokenizer = Tokenizer::from_sentencepiece(&tokenizer_file)
            .map_err(|e| RecipeError::Check(format!("{name}: tokenizer.model: {e}")))?;
        Ok(Self { name, layout, weights, tokenizer, tokenizer_file, precision })
    }

    fn of_adapters(
        name: String,
        opened: OpenedScorer,
        precision: Precision,
    ) -> Result<Self, RecipeError> {
        let OpenedScorer { source, score, tokenizer } = opened;
        // A network that scores has no output matrix; its pairs of RoPE lie as in training.
        let mut config = ModelConfig { tied_output: true, ..source.config().clone() };
        config.rope.layout = puna_core::RopeLayout::Interleaved;
        let layout = Layout::with_score(&config);
        if let Some(x) = score.iter().find(|x| !x.is_finite()) {
            return Err(RecipeError::Check(format!(
                "{name}: score.weight: expected finite numbers, found {x}"
            )));
        }
        let tokenizer_file = tokenizer
            .to_sentencepiece()
            .map_err(|e| RecipeError::Check(format!("{name}: tokenizer: {e}")))?;
        let weights = Weights::Adapters { source, score };
        Ok(Self { name, layout, weights, tokenizer, tokenizer_file, precision })
    }

    /// Bytes of its weights, and whether they take them only while it scores.
    pub(crate) fn n_bytes(&self) -> (u64, bool) {
        (4 * self.layout.len() as u64, matches!(self.weights, Weights::Adapters { .. }))
    }

    /// SHA-256 of its weights.
    ///
    /// # Errors
    /// A file cannot be read any more, or has a number that is not finite.
    pub(crate) fn hash(&self) -> Result<Sha256, RecipeError> {
        let weights = self.weights.whole(&self.name, &self.layout)?;
        Ok(Sha256::of(bytemuck::cast_slice(&weights)))
    }

    /// Fails where it reads other tokens than a policy writes.
    ///
    /// # Errors
    /// The vocabularies differ.
    pub(crate) fn check_vocabulary(
        &self,
        tokenizer_file: &[u8],
        model: &str,
    ) -> Result<(), RecipeError> {
        if self.tokenizer_file == tokenizer_file {
            return Ok(());
        }
        Err(RecipeError::Check(format!(
            "{}: expected a reward model of the vocabulary of {model}, found another",
            self.name
        )))
    }

    /// Tokens that a conversation may have.
    #[must_use]
    pub fn context(&self) -> usize {
        self.layout.config().max_seq_len
    }

    /// The tokens of a conversation that ends with an answer.
    ///
    /// # Errors
    /// It cannot be put into the chat form, or is longer than the context.
    pub fn tokens(&self, messages: &[Message]) -> Result<Vec<u32>, RecipeError> {
        let ids = render_training(&self.tokenizer, messages)?.ids;
        if ids.len() > self.context() {
            let (most, n) = (self.context(), ids.len());
            return Err(RecipeError::Check(format!("expected at most {most} tokens, found {n}")));
        }
        Ok(ids)
    }

    /// Scores texts of no more than the context, each read at its last token. The same text has the same score whatever
    /// stands beside it, but for rounding.
    ///
    /// # Errors
    /// A file of its weights cannot be read any more, or has a number that is not finite.
    pub fn score(&self, cpu: &Cpu, texts: &[Vec<u32>]) -> Result<Vec<Score>, RecipeError> {
        let weights = self.weights.whole(&self.name, &self.layout)?;
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        let seq_len = longest.next_multiple_of(32).min(self.context().max(longest)).max(1);
        let n_rows = (BATCH_TOKENS / seq_len).max(1);
        let items: Vec<Item> =
            texts.iter().map(|ids| Item::one(ids.clone(), vec![false; ids.len()])).collect();
        let lens: Vec<usize> = texts.iter().map(Vec::len).collect();
        let packed = pack(&lens, seq_len, 0, 0);
        let mut pass = Pass::new(&self.layout, n_rows, seq_len, true, self.precision);
        let mut scores = vec![Score(0.0); texts.len()];
        for first in (0..packed.rows.len()).step_by(n_rows) {
            let part = first..(first + n_rows).min(packed.rows.len());
            let batch = RowBatch::new(&packed, part, n_rows, |i| &items[i]);
            let found = pass.scores(cpu, &weights, Some(batch.view()));
            for &(i, place) in &batch.items {
                scores[i] = Score(f64::from(found[place + lens[i] - 1]));
            }
        }
        Ok(scores)
    }
}
