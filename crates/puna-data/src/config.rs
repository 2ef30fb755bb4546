//! The configuration of a corpus: what TOML says, checked. Every error has the line and column of its value.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use toml::Spanned;
use unicode_script::Script;

use crate::DataError;
use crate::near::NearDuplicates;

/// Most shares that all sources have together: the period of the mixture, whose plan is kept in memory.
pub(crate) const MAX_SHARES: u64 = 1_000_000;

/// Most sources.
pub(crate) const MAX_SOURCES: usize = 1 << 16;

/// Fewest and most tokens of a shard. A shard is put together in memory.
const SHARD_TOKENS: Range<u64> = 64..(1 << 26) + 1;

/// A corpus to be built.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder to write.
    pub out: Option<PathBuf>,
    /// `tokenizer.model` or `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// Decides, with its hash, whether a document or group is held out.
    #[serde(default)]
    pub seed: u64,
    /// Tokens of a shard; the last one of a source has fewer.
    #[serde(default = "default_shard_tokens", deserialize_with = "shard_tokens")]
    pub shard_tokens: u64,
    /// What to do with bytes that are no UTF-8.
    #[serde(default)]
    pub invalid_utf8: InvalidUtf8,
    /// A document for training is dropped when more than this share of its runs of words occurs in earlier documents for
    /// training, as far as a sample tells. Without it, only what is equal byte for byte is a copy.
    #[serde(default, deserialize_with = "maybe_share")]
    pub near_copies: Option<f64>,
    /// What is kept from training.
    #[serde(default)]
    pub held_out: HeldOut,
    /// Filters of every source that has none of its own.
    #[serde(default)]
    pub filter: Filter,
    /// The parts of the mixture.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
    /// Its file's name, for messages, and the text.
    #[serde(skip)]
    origin: (String, String),
}

/// What to do with bytes that are no UTF-8.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum InvalidUtf8 {
    /// End with an error that names the place.
    #[default]
    Fail,
    /// Put U+FFFD in their place, and count.
    Replace,
}

/// What is kept from training.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeldOut {
    /// Share of documents, or of groups where a source has groups, chosen by hash.
    #[serde(deserialize_with = "held_out_fraction")]
    pub fraction: f64,
    /// Groups that are held out whatever their hash.
    pub groups: Vec<Spanned<String>>,
    /// Which passages for training are dropped because they are nearly held-out text.
    pub near_duplicates: NearDuplicates,
}

impl Default for HeldOut {
    fn default() -> Self {
        Self { fraction: 0.01, groups: Vec::new(), near_duplicates: NearDuplicates::default() }
    }
}

/// What a document must be like.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Drop documents written in another script.
    pub script: Option<ScriptFilter>,
    /// Drop documents of fewer characters.
    #[serde(default)]
    pub min_chars: usize,
    /// Look for words.
    pub words: Option<WordFilter>,
}

/// A script that documents are to be written in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptFilter {
    /// Unicode's name of the script.
    #[serde(deserialize_with = "script_name")]
    pub name: Script,
    /// Share of a document's letters that must be of it.
    #[serde(default = "default_min_share", deserialize_with = "share")]
    pub min_share: f64,
}

/// Words to look for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordFilter {
    /// A word a line; lines that begin with `#` are comments. Its path begins in the folder of the configuration.
    pub list: PathBuf,
    /// What to do where one is found.
    #[serde(default)]
    pub action: WordAction,
    /// What is dropped or counted.
    #[serde(default)]
    pub unit: WordUnit,
}

/// What to do where a word is found.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WordAction {
    /// Leave the unit out, and count it.
    #[default]
    Drop,
    /// Count the unit.
    Count,
}

/// How much goes with a word.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum WordUnit {
    /// The whole document.
    #[default]
    Document,
    /// The paragraph: what stands between blank lines.
    Paragraph,
}

/// A part of the mixture.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Names its files: letters, digits, `-` and `_`.
    pub name: Spanned<String>,
    /// Its files, in order.
    pub paths: Spanned<Vec<PathBuf>>,
    /// The form of its files.
    pub format: Format,
    /// Text: the line that stands between documents.
    pub marker: Option<Spanned<String>>,
    /// JSONL and Parquet: the field or column of the text.
    pub text_field: Option<Spanned<String>>,
    /// JSONL and Parquet: the field or column that names the group.
    pub group_field: Option<Spanned<String>>,
    /// Text: which documents, in their order, are of which group.
    pub groups: Option<Spanned<GroupList>>,
    /// Its shares of the training tokens: this many of every so many as all sources have together.
    #[serde(deserialize_with = "weight")]
    pub weight: u64,
    /// Where it is from.
    pub origin: String,
    /// On what terms it may be used.
    pub licence: String,
    /// Filters in place of the general ones.
    pub filter: Option<Filter>,
}

/// The forms of texts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Documents with a marker line between them.
    Text,
    /// A JSON object a line.
    Jsonl,
    /// Parquet.
    Parquet,
}

/// A table, with tabs and a heading, whose rows are groups of consecutive documents.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupList {
    /// The file.
    pub list: PathBuf,
    /// The column that names the group.
    pub name: String,
    /// The column that says of how many documents it is.
    pub documents: String,
    /// Only rows that have these values in these columns.
    #[serde(default)]
    pub only: BTreeMap<String, String>,
}

fn default_shard_tokens() -> u64 {
    1 << 23
}

fn default_min_share() -> f64 {
    0.9
}

fn shard_tokens<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    whole(input, SHARD_TOKENS)
}

fn weight<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    whole(input, 1..MAX_SHARES + 1)
}

pub(crate) fn whole<'de, D: Deserializer<'de>>(
    input: D,
    range: Range<u64>,
) -> Result<u64, D::Error> {
    let found = i64::deserialize(input)?;
    let value = u64::try_from(found).ok().filter(|value| range.contains(value));
    let (low, high) = (range.start, range.end - 1);
    value.ok_or_else(|| {
        D::Error::custom(format!("expected a whole number, {low} to {high}, found {found}"))
    })
}

fn held_out_fraction<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    number(input, 0.0, 0.5)
}

pub(crate) fn share<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    number(input, 0.0, 1.0)
}

fn maybe_share<'de, D: Deserializer<'de>>(input: D) -> Result<Option<f64>, D::Error> {
    share(input).map(Some)
}

fn number<'de, D: Deserializer<'de>>(input: D, low: f64, high: f64) -> Result<f64, D::Error> {
    let found = f64::deserialize(input)?;
    if (low..=high).contains(&found) {
        return Ok(found);
    }
    Err(D::Error::custom(format!("expected a number, {low} to {high}, found {found}")))
}

fn script_name<'de, D: Deserializer<'de>>(input: D) -> Result<Script, D::Error> {
    let name = String::deserialize(input)?;
    Script::from_full_name(&name).ok_or_else(|| {
        let expected = "expected Unicode's name of a script, such as \"Latin\"";
        D::Error::custom(format!("{expected}, found {name:?}"))
    })
}

impl Config {
    /// Reads and checks a configuration; `file` is its name for messages.
    ///
    /// # Errors
    /// No TOML, an unknown key, a missing one, a value out of range: with line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, DataError> {
        let fail = |span, message: &str| DataError::in_config(file, text, span, message);
        let mut config: Self =
            toml::from_str(text).map_err(|e| fail(e.span().unwrap_or_default(), e.message()))?;
        config.origin = (file.to_owned(), text.to_owned());
        match config.mistake() {
            Some((span, message)) => Err(fail(span, &message)),
            None => Ok(config),
        }
    }

    /// The configuration, word for word.
    pub(crate) fn text(&self) -> &str {
        &self.origin.1
    }

    /// The folder of its file.
    pub(crate) fn folder(&self) -> &Path {
        Path::new(&self.origin.0).parent().unwrap_or(Path::new(""))
    }

    /// An error about what stands at `span`.
    pub(crate) fn fail(&self, span: Range<usize>, message: &str) -> DataError {
        DataError::in_config(&self.origin.0, &self.origin.1, span, message)
    }

    /// The first thing that fits no other.
    fn mistake(&self) -> Option<(Range<usize>, String)> {
        if self.sources.is_empty() {
            return Some((0..0, "expected at least one [[source]], found none".to_owned()));
        }
        if self.sources.len() > MAX_SOURCES {
            let message = format!("expected at most {MAX_SOURCES} sources");
            return Some((self.sources[MAX_SOURCES].name.span(), message));
        }
        let mut names = HashSet::new();
        let mut shares = 0u64;
        for source in &self.sources {
            let name = source.name.get_ref();
            if let Some(mistake) = source.mistake() {
                return Some(mistake);
            }
            // Where case does not tell files apart, neither may it here.
            if !names.insert(name.to_lowercase()) {
                let message = format!("expected a name of its own, found {name:?} again");
                return Some((source.name.span(), message));
            }
            shares += source.weight;
            if shares > MAX_SHARES {
                let message =
                    format!("expected weights of at most {MAX_SHARES} together, found {shares}");
                return Some((source.name.span(), message));
            }
        }
        let mut seen = HashSet::new();
        for group in &self.held_out.groups {
            if !seen.insert(group.get_ref()) {
                return Some((group.span(), format!("{:?} stands here twice", group.get_ref())));
            }
        }
        None
    }
}

impl Source {
    fn mistake(&self) -> Option<(Range<usize>, String)> {
        let name = self.name.get_ref();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
            let expected = "expected a name of 1 to 64 letters, digits, `-` and `_`";
            return Some((self.name.span(), format!("{expected}, found {name:?}")));
        }
        if self.paths.get_ref().is_empty() {
            return Some((self.paths.span(), "expected at least one path, found none".to_owned()));
        }
        let of_text = [
            ("marker", self.marker.as_ref().map(Spanned::span)),
            ("groups", self.groups.as_ref().map(Spanned::span)),
        ];
        let of_tables = [
            ("text_field", self.text_field.as_ref().map(Spanned::span)),
            ("group_field", self.group_field.as_ref().map(Spanned::span)),
        ];
        let (unfit, format) = match self.format {
            Format::Text => (of_tables, "text"),
            Format::Jsonl => (of_text, "jsonl"),
            Format::Parquet => (of_text, "parquet"),
        };
        for (key, span) in unfit {
            if let Some(span) = span {
                return Some((span, format!("`{key}` does not go with format = {format:?}")));
            }
        }
        match &self.marker {
            None if self.format == Format::Text => {
                let message = "missing key `marker`: the line that stands between documents";
                Some((self.name.span(), message.to_owned()))
            }
            Some(marker) if !is_line(marker.get_ref()) => {
                let expected = "expected one line without space around it";
                Some((marker.span(), format!("{expected}, found {:?}", marker.get_ref())))
            }
            _ => None,
        }
    }
}

fn is_line(marker: &str) -> bool {
    !marker.is_empty() && marker.trim() == marker && !marker.contains(['\n', '\r'])
}

/// A path as a configuration means it.
pub(crate) fn resolve(root: &Path, path: &Path) -> PathBuf {
    // An absolute path takes the place of the root.
    root.join(path)
}
