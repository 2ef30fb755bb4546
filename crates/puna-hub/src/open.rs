//! From the word on the command line to an open model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use puna_core::TensorSource;
use puna_formats::Checkpoint;
use puna_tokenizer::Tokenizer;
use puna_tokenizer::chat::ChatTemplate;

use crate::lora::{Adapted, Task, base_of};
use crate::place::{Place, locate, locate_below, with_adapters};
use crate::store::Store;
use crate::{HubError, tokenizer};

/// How to open a model.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Where to read the tokenizer, instead of looking for it.
    pub tokenizer: Option<PathBuf>,
    /// Whether the embedding may have more rows than the tokenizer has pieces, as some networks are padded.
    pub padded: bool,
    /// A folder of adapters in PEFT's form, which are added to the model.
    pub lora: Option<PathBuf>,
    /// Where pulled models lie; without it, they are not known by name.
    pub store: Option<Store>,
}

/// A model that is ready to run. No tensor has been read yet.
pub struct Opened {
    /// The name or path it was asked for by.
    pub name: String,
    /// The model that adapters in a folder called `name` are added to; without such, `name`.
    pub base: String,
    /// Configuration and tensors.
    pub checkpoint: Checkpoint,
    /// Its tokenizer, of as many pieces as the configuration's vocabulary; fewer only where the options allow it.
    pub tokenizer: Tokenizer,
    /// Whether the tokenizer came with the model, not from a file named in the options.
    pub own_tokenizer: bool,
    /// How conversations become tokens.
    pub template: ChatTemplate,
    /// Whether it was made for conversations: its files have a template, or its name says so, since Meta's own files and
    /// many GGUF files of chat models have none.
    pub is_chat: bool,
    /// Words to begin with that suit it, where it is known.
    pub starters: &'static [&'static str],
    /// The token to put before a prompt, where the model wants one.
    pub bos_id: Option<u32>,
    /// Tokens that end an answer.
    pub stop_ids: Vec<u32>,
}

/// Opens a model: `model` is a file, a folder, a built-in name or that of a pulled model. A folder of adapters is the model
/// that they name, with them added.
///
/// # Errors
/// No such model, files that cannot be used, no tokenizer, or one that does not fit the vocabulary.
pub fn open(model: &str, options: &OpenOptions) -> Result<Opened, HubError> {
    let place = locate(model, options)?;
    let checkpoint = adapted(place.checkpoint()?, options)?;
    let found = tokenizer::find(&place, Some(&checkpoint), options)?;
    let vocab_size = checkpoint.source.config().vocab_size;
    let n_pieces = found.tokenizer.vocab_size();
    if n_pieces > vocab_size || (n_pieces < vocab_size && !options.padded) {
        let (tokenizer, model) = (found.origin, model.to_owned());
        return Err(HubError::VocabMismatch { tokenizer, n_pieces, model, vocab_size });
    }
    let template = template(model, &checkpoint, &found.tokenizer)?;
    let base = match &place {
        Place::Adapters { .. } => place.base().to_string(),
        _ => model.to_owned(),
    };
    let is_chat = checkpoint.chat_template.is_some() || says_chat(model) || says_chat(&base);
    let starters = match &place {
        Place::BuiltIn(model) => model.starters,
        Place::Path(_) | Place::Pulled { .. } | Place::Adapters { .. } => &[],
    };
    let wants_bos = checkpoint.add_bos.unwrap_or(true);
    let bos_id = found.tokenizer.bos_id().filter(|_| wants_bos);
    let mut stop_ids = checkpoint.eos_ids.clone();
    stop_ids.extend(found.tokenizer.eos_id().filter(|id| !checkpoint.eos_ids.contains(id)));
    let (name, tokenizer) = (model.to_owned(), found.tokenizer);
    let own_tokenizer = options.tokenizer.is_none();
    Ok(Opened {
        name,
        base,
        checkpoint,
        tokenizer,
        own_tokenizer,
        template,
        is_chat,
        starters,
        bos_id,
        stop_ids,
    })
}

/// Whether the last part of a model's path or name has the word.
fn says_chat(model: &str) -> bool {
    let last = model.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or("");
    let mut words = last.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| word.eq_ignore_ascii_case("chat") || word.eq_ignore_ascii_case("instruct"))
}

impl Opened {
    /// Whether the model's files ask for an EOS after every text.
    pub(crate) fn add_eos(&self) -> bool {
        self.checkpoint.add_eos.unwrap_or(false)
    }
}

/// The template in the model's files, else Llama 2's own form.
fn template(
    model: &str,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
) -> Result<ChatTemplate, HubError> {
    let Some(source) = &checkpoint.chat_template else { return Ok(ChatTemplate::Llama2) };
    let text = |id: Option<u32>| {
        id.and_then(|id| tokenizer.piece(id)).map_or("", |piece| piece.text.as_str())
    };
    ChatTemplate::from_jinja(source, text(tokenizer.bos_id()), text(tokenizer.eos_id()))
        .map_err(|source| HubError::Template { file: model.to_owned(), source })
}

/// Opens a model's configuration and tensors alone.
///
/// # Errors
/// No such model, or files that cannot be used.
pub fn open_checkpoint(model: &str, options: &OpenOptions) -> Result<Checkpoint, HubError> {
    adapted(locate(model, options)?.checkpoint()?, options)
}

/// With the adapters that the options name.
fn adapted(checkpoint: Checkpoint, options: &OpenOptions) -> Result<Checkpoint, HubError> {
    match &options.lora {
        Some(folder) => with_adapters(checkpoint, folder),
        None => Ok(checkpoint),
    }
}

/// A network that scores texts, in a folder of adapters.
pub struct OpenedScorer {
    /// The model that they belong to, with them added.
    pub source: Arc<dyn TensorSource>,
    /// The row that gives the score, of as many elements as an embedding.
    pub score: Vec<f32>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// Opens a folder of adapters that make a model score texts, as PEFT writes them for `SEQ_CLS` with one label.
///
/// # Errors
/// It is none, or the model that they belong to cannot be opened.
pub fn open_scorer(folder: &Path, options: &OpenOptions) -> Result<OpenedScorer, HubError> {
    let base = base_of(folder, |base| locate_below(base, options, 1))?;
    let checkpoint = base.checkpoint()?;
    let place = Place::Adapters { folder: folder.to_owned(), base: Box::new(base) };
    let tokenizer = tokenizer::find(&place, Some(&checkpoint), options)?.tokenizer;
    let mut adapted = Adapted::open(checkpoint.source, folder, Task::Score)?;
    let score = adapted.take_score().expect("adapters that score have a row");
    Ok(OpenedScorer { source: Arc::new(adapted), score, tokenizer })
}

/// Opens a model's tokenizer alone, and says where it was found. Besides a model, `model` may be a tokenizer's own file,
/// or a folder that holds one and no model.
///
/// # Errors
/// No such model, or no tokenizer that can be used.
pub fn open_tokenizer(model: &str, options: &OpenOptions) -> Result<(Tokenizer, String), HubError> {
    let place = locate(model, options)?;
    let found = match place.checkpoint() {
        Ok(checkpoint) => tokenizer::find(&place, Some(&checkpoint), options)?,
        // Not a model: if there is a tokenizer all the same, it is what was meant; if not, say why not a model.
        Err(not_a_model) => tokenizer::find(&place, None, options).map_err(|e| match e {
            HubError::NoTokenizer { .. } => not_a_model,
            e => e,
        })?,
    };
    Ok((found.tokenizer, found.origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_met_with_near_ones() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("llama-7b.gguf"), "").unwrap();
        let typo = folder.path().join("lama-7b.gguf");
        let check = |model: &str, expected: &str| {
            let message = open(model, &OpenOptions::default()).err().unwrap().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(typo.to_str().unwrap(), "did you mean");
        check(typo.to_str().unwrap(), "llama-7b.gguf?");
        check("stories-260k", "did you mean stories260K?");
        check("no/such/thing", "built in: stories7m, stories7m-chat, stories260K");
        check("", "no file, folder or model is called \"\"");
    }

    #[test]
    fn names_say_chat() {
        for (model, expected) in [
            ("Llama-2-7b-chat/", true),
            ("models/llama-2-7b-chat.Q4_0.gguf", true),
            ("codellama/CodeLlama-7b-Instruct-hf", true),
            ("chat/llama-2-7b.gguf", false),
            ("chateau.gguf", false),
            ("", false),
        ] {
            assert_eq!(says_chat(model), expected, "{model}");
        }
    }

    /// Copies a tiny model of 272 pieces into `folder`.
    fn copy_model(form: &str, folder: &Path) {
        std::fs::create_dir(folder).unwrap();
        for entry in std::fs::read_dir(puna_testkit::testdata(form)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }

    /// A SentencePiece model of `n` pieces.
    fn sentencepiece(n: usize) -> Vec<u8> {
        let pieces = crate::synth::invent(n);
        let tokenizer = Tokenizer::from_pieces(pieces, puna_tokenizer::Settings::default());
        tokenizer.unwrap().to_sentencepiece().unwrap()
    }

    #[test]
    fn finds_the_tokenizer_above_the_model_and_checks_its_size() {
        let root = tempfile::tempdir().unwrap();
        let (folder, above) = (root.path().join("7b"), root.path().join("tokenizer.model"));
        copy_model("models/mha/meta", &folder);
        let model = folder.to_str().unwrap();
        let message = |options: &OpenOptions| open(model, options).err().unwrap().to_string();

        let missing = message(&OpenOptions::default());
        assert!(missing.contains("looked for tokenizer.model, tokenizer.json"), "{missing}");

        std::fs::write(&above, sentencepiece(271)).unwrap();
        let mismatch = message(&OpenOptions::default());
        assert!(mismatch.contains("271 pieces") && mismatch.contains("272"), "{mismatch}");

        std::fs::write(&above, sentencepiece(272)).unwrap();
        let opened = open(model, &OpenOptions::default()).unwrap();
        assert_eq!((opened.bos_id, &*opened.stop_ids), (Some(1), &[2][..]));
        assert!(matches!(opened.template, ChatTemplate::Llama2));

        // A file named by hand is taken instead, and a broken one is named.
        let named = root.path().join("other.model");
        std::fs::write(&named, "no protobuf").unwrap();
        let broken = message(&OpenOptions { tokenizer: Some(named), ..OpenOptions::default() });
        assert!(broken.contains("other.model"), "{broken}");
    }

    #[test]
    fn honours_the_template_of_the_files() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("hf");
        copy_model("models/mha/hf", &folder);
        std::fs::write(folder.join("tokenizer.model"), sentencepiece(272)).unwrap();
        let open = |template: &str| {
            std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
            open(folder.to_str().unwrap(), &OpenOptions::default())
        };
        let opened = open("{{ bos_token }}{{ messages[0]['content'] }}").unwrap();
        let question = puna_tokenizer::chat::Message::new(puna_tokenizer::chat::Role::User, "hi");
        let ids = opened.template.render(&opened.tokenizer, &[question]).unwrap();
        assert_eq!(ids, [&[1][..], &opened.tokenizer.encode("hi")].concat());
        let message = open("{% if %}").err().unwrap().to_string();
        assert!(message.contains("template does not compile"), "{message}");
    }

    #[test]
    fn adapters_without_a_model_below_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().display().to_string();
        let config = |base: &str| {
            let text = format!(
                "{{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, \"base_model_name_or_path\": {base:?}}}"
            );
            std::fs::write(root.path().join("adapter_config.json"), text).unwrap();
            open(&folder, &OpenOptions::default()).err().unwrap().to_string()
        };
        let error = config(&folder);
        assert!(error.contains("whose own base is more than 16 folders away"), "{error}");
        let error = config("nowhere");
        assert!(error.contains("found \"nowhere\", and no file, folder or model"), "{error}");
        // A base, and no adapters.
        let error = config("stories260K");
        assert!(error.contains("adapter_model.safetensors"), "{error}");
    }
}
