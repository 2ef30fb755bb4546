//! Both reward models together, by the paper's piecewise rule (arXiv 2307.09288, section 3.2.3).

use std::path::Path;

use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_ops::Precision;
use puna_train::rl::{combined, sigmoid};

use super::Scorer;
use crate::RecipeError;
use crate::tune::{Base, Drawn, Prompt};

/// The helpfulness model, and the safety model where there is one.
pub(crate) struct Judges {
    helpfulness: Scorer,
    safety: Option<Scorer>,
    threshold: f64,
}

/// The model whose answers are judged.
pub(crate) struct Author<'a> {
    pub name: &'a str,
    /// `tokenizer.model`
    pub tokenizer_file: &'a [u8],
    pub context: usize,
}

impl<'a> From<&'a Base> for Author<'a> {
    fn from(base: &'a Base) -> Self {
        let Base { name, tokenizer_file, config, .. } = base;
        Self { name, tokenizer_file, context: config.max_seq_len }
    }
}

/// What they say of an answer, each from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub helpfulness: f64,
    /// That of the safety model; 1 without one.
    pub safety: f64,
    /// The one that counts.
    pub score: f64,
}

impl Judges {
    /// Opens both, whose paths start from `folder`; each must read the tokens that the author writes.
    pub(crate) fn open(
        folder: &Path,
        helpfulness: &Path,
        safety: Option<&Path>,
        threshold: f64,
        author: &Author<'_>,
        options: &OpenOptions,
        precision: Precision,
    ) -> Result<Self, RecipeError> {
        let open = |path: &Path| {
            let scorer = Scorer::sharing(&folder.join(path), options, precision)?;
            scorer.check_vocabulary(author.tokenizer_file, author.name)?;
            if scorer.context() < author.context {
                return Err(RecipeError::Check(format!(
                    "{}: expected a reward model of a context of at least {}, found {}",
                    path.display(),
                    author.context,
                    scorer.context()
                )));
            }
            Ok(scorer)
        };
        Ok(Self {
            helpfulness: open(helpfulness)?,
            safety: safety.map(open).transpose()?,
            threshold,
        })
    }

    /// Most bytes of their weights at a time: adapters have them only while they score, one model after the other.
    pub(crate) fn n_bytes(&self) -> u64 {
        let (mut kept, mut passing) = (0, 0);
        for scorer in [Some(&self.helpfulness), self.safety.as_ref()].into_iter().flatten() {
            match scorer.n_bytes() {
                (n, false) => kept += n,
                (n, true) => passing = passing.max(n),
            }
        }
        kept + passing
    }

    /// A hash of both, for a run's settings.
    ///
    /// # Errors
    /// As of a [`Scorer`]'s.
    pub(crate) fn hash(&self) -> Result<String, RecipeError> {
        let safety = self.safety.as_ref().map(Scorer::hash).transpose()?;
        let safety = safety.map(|hash| hash.to_string());
        Ok(format!("{} {safety:?}", self.helpfulness.hash()?))
    }

    /// Verdicts on answers to prompts, each read at its last token: EOS where the answer is complete.
    pub(crate) fn verdicts(
        &self,
        cpu: &Cpu,
        answers: &[(&Prompt, &Drawn)],
        eos_id: u32,
    ) -> Result<Vec<Verdict>, RecipeError> {
        let texts: Vec<Vec<u32>> = answers.iter().map(|(p, a)| a.after(&p.ids, eos_id)).collect();
        let helpfulness = self.helpfulness.score(cpu, &texts)?;
        let safety = self.safety.as_ref().map(|safety| safety.score(cpu, &texts)).transpose()?;
        let verdict = |i: usize| {
            let h = sigmoid(helpfulness[i].0);
            let s = safety.as_ref().map_or(1.0, |safety| sigmoid(safety[i].0));
            let is_safety = answers[i].0.is_safety && safety.is_some();
            let score = combined(s, h, is_safety, self.threshold);
            if score.is_finite() {
                return Ok(Verdict { helpfulness: h, safety: s, score });
            }
            Err(RecipeError::Check(format!(
                "answer {}: expected a finite reward, found {score}",
                i + 1
            )))
        };
        (0..answers.len()).map(verdict).collect()
    }
}
