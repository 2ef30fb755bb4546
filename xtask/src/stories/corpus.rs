//! Texts of the pre-training corpus, on the side of training and on the other, as `recipes/data-stories.toml` says.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use puna_data::{Config, Corpus, Job, Side};
use puna_tokenizer::{Piece, PieceKind, Settings, Tokenizer};

/// The recipe, and the sources of it that are read: those whose texts are used, and those with books that it holds out
/// by name.
const RECIPE: &str = "recipes/data-stories.toml";
const SOURCES: [&str; 5] =
    ["storybooks", "tinystories", "fairytales", "readers", "fairytale_books"];

/// The base model: a request and its answer must fit its context.
const MODEL: &str = "models/stories7m/stories7M-Q8_0-00001-of-00003.gguf";

/// Words that two texts have in common only when one was copied from the other.
const RUN: usize = 13;

/// Short stories, and what must not be used.
#[derive(Default)]
pub(super) struct Stories {
    /// To learn from, with straight quotes.
    pub(super) train: Vec<String>,
    /// Held out.
    pub(super) held_out: Vec<String>,
    /// Plain sentences and nouns of all sources, those for training.
    pub(super) sentences: Vec<String>,
    pub(super) nouns: Vec<String>,
    /// Runs of words of all held-out texts.
    pub(super) known: HashSet<Vec<String>>,
}

impl Stories {
    /// Builds the corpus in a folder for the time, and reads the stories out of it.
    pub(super) fn read(texts: &Path, tokenizer: &Tokenizer) -> Result<Self> {
        let recipe = crate::root().join(RECIPE);
        let text =
            std::fs::read_to_string(&recipe).with_context(|| format!("cannot read {RECIPE}"))?;
        let mut config = Config::parse(&recipe.display().to_string(), &text)?;
        config.sources.retain(|source| SOURCES.contains(&source.name.get_ref().as_str()));
        let scratch = tempfile::tempdir()?;
        let (model, folder) =
            (scratch.path().join("tokenizer.model"), scratch.path().join("corpus"));
        std::fs::write(&model, tokenizer.to_sentencepiece()?)?;
        std::fs::create_dir(&folder)?;
        let n_threads = std::thread::available_parallelism().map_or(1, Into::into);
        let job = Job { config: &config, texts, tokenizer: &model, n_threads };
        puna_data::build(&job, &folder, &mut |_, _| true)?;
        let corpus = Corpus::open(&folder)?;
        let read = |i, side| corpus.texts(i, side).collect::<Result<Vec<_>, _>>();
        let (mut train, mut held_out, mut known) = (Vec::new(), Vec::new(), HashSet::new());
        let (mut sentences, mut nouns) = (BTreeSet::new(), Nouns::default());
        for (i, source) in corpus.manifest().sources.iter().enumerate() {
            let held = read(i, Side::HeldOut)?;
            known.extend(held.iter().flat_map(|text| runs(text)));
            for text in read(i, Side::Train)?.iter().filter_map(|text| tidy(text)) {
                nouns.count(&text);
                sentences.extend(plain_sentences(&text).map(str::to_owned));
            }
            if source.name == "tinystories" {
                train = read(i, Side::Train)?.iter().filter_map(|text| tidy(text)).collect();
                held_out = held.iter().filter_map(|text| tidy(text)).collect();
            }
        }
        if train.is_empty() || held_out.is_empty() {
            bail!(
                "{}: expected short stories for training and held out, found none",
                texts.display()
            );
        }
        let sentences = sentences.into_iter().collect();
        Ok(Self { train, held_out, sentences, nouns: nouns.found(), known })
    }

    /// Whether a text has a run of words of what is held out.
    pub(super) fn is_held_out(&self, text: &str) -> bool {
        runs(text).iter().any(|run| self.known.contains(run))
    }
}

fn runs(text: &str) -> Vec<Vec<String>> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_lowercase).collect();
    words.windows(RUN).map(<[String]>::to_vec).collect()
}

/// Words of a sentence that a story can begin with.
const SENTENCE_WORDS: std::ops::RangeInclusive<usize> = 5..=14;

/// Sentences without quotes, numbers and names of many parts.
fn plain_sentences(text: &str) -> impl Iterator<Item = &str> {
    let sentences =
        text.lines().flat_map(|line| line.split_inclusive(['.', '!', '?'])).map(str::trim);
    sentences.filter(|sentence| {
        let plain = |c: char| c.is_ascii_alphabetic() || matches!(c, ' ' | ',' | '.' | '\'');
        sentence.starts_with(|c: char| c.is_ascii_uppercase())
            && sentence.ends_with('.')
            && sentence.chars().all(plain)
            && !["Mr.", "Mrs.", "Dr.", "St."].iter().any(|title| sentence.ends_with(title))
            && SENTENCE_WORDS.contains(&sentence.split(' ').count())
    })
}

/// What stands between an article and what can follow a noun, counted beside all that stands anywhere.
#[derive(Default)]
struct Nouns(BTreeMap<String, (usize, usize)>);

/// How often a noun is seen in its place, and how often of all times.
const NOUN: (usize, f64) = (8, 0.3);

impl Nouns {
    fn count(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        for (i, raw) in words.iter().enumerate() {
            let word = raw.trim_end_matches(['.', ',', '!', '?', ';']);
            if !(3..=10).contains(&word.len()) || !word.bytes().all(|b| b.is_ascii_lowercase()) {
                continue;
            }
            let ends = word.len() < raw.len();
            let after = words.get(i + 1).is_some_and(|next| {
                matches!(
                    *next,
                    "was" | "had" | "said" | "is" | "and" | "came" | "went" | "in" | "on" | "who"
                )
            });
            let before = i > 0 && matches!(words[i - 1], "a" | "an" | "the" | "The" | "A" | "An");
            let counts = self.0.entry(word.to_owned()).or_default();
            counts.0 += usize::from(before && (ends || after));
            counts.1 += 1;
        }
    }

    /// Singulars that are seen often enough.
    fn found(self) -> Vec<String> {
        let is_noun = |&(ref word, (n, all)): &(String, (usize, usize))| {
            n >= NOUN.0 && n as f64 >= NOUN.1 * all as f64 && !word.ends_with('s')
        };
        self.0.into_iter().filter(is_noun).map(|(word, _)| word).collect()
    }
}

/// With plain quotes and dashes, lines without space around them; `None` for what is no plain English then.
fn tidy(text: &str) -> Option<String> {
    let text = super::judge_a::plain_quotes(text)
        .replace(['\u{2013}', '\u{2014}'], "-")
        .replace('\u{2026}', "...");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("\n");
    let plain = |c: char| c.is_ascii_graphic() || c == ' ' || c == '\n';
    (text.chars().all(plain) && !text.contains(['<', '|', '*', '#', '[', ']'])).then_some(text)
}

/// The base model's tokenizer.
pub(super) fn tokenizer() -> Result<Tokenizer> {
    let checkpoint = puna_formats::open(&crate::root().join(MODEL))?;
    let vocab =
        checkpoint.vocab.with_context(|| format!("{MODEL}: expected a vocabulary, found none"))?;
    let pieces = vocab.tokens.iter().zip(&vocab.scores).zip(&vocab.token_types);
    let pieces = pieces.map(|((text, &score), &number)| {
        let kind = PieceKind::from_number(number.try_into()?)
            .context("expected a type of piece from 1 to 6")?;
        Ok(Piece { text: text.clone(), score, kind })
    });
    let settings = Settings {
        add_dummy_prefix: vocab.add_space_prefix.unwrap_or(true),
        remove_extra_whitespaces: vocab.remove_extra_whitespaces.unwrap_or(false),
        byte_fallback: true,
        bos_id: vocab.bos_id,
        eos_id: vocab.eos_id,
        ..Settings::default()
    };
    Ok(Tokenizer::from_pieces(pieces.collect::<Result<_>>()?, settings)?)
}

/// The lines of a packed file.
pub(super) fn unpacked(path: &Path) -> Result<String> {
    let error = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(error)?;
    let mut text = String::new();
    zstd::Decoder::new(file).with_context(error)?.read_to_string(&mut text).with_context(error)?;
    Ok(text)
}
