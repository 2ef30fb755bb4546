//! Models known by name.

use puna_core::SharedBytes;
use puna_formats::Checkpoint;

use crate::HubError;

/// A file of `models/`: its path there, and its bytes.
type Embedded = (&'static str, &'static [u8]);

// `const STORIES_7M, STORIES_7M_CHAT, STORIES_260K, STORIES_260K_TOKENIZER, STORIES_260K_NOTICE: &[Embedded]`, written by the build script;
// empty where the files were missing.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// A model whose files are part of the program.
pub(crate) struct BuiltIn {
    pub(crate) name: &'static str,
    /// Its files in `models/`, for messages.
    files: &'static str,
    /// Weights: a file, or the parts of a split one.
    weights: &'static [Embedded],
    /// SentencePiece model, where the weights bring no vocabulary.
    tokenizer: &'static [Embedded],
    /// Its origin and licence, which go where it goes, where the weights do not hold them.
    notice: &'static [Embedded],
    /// Its licence and where that is told, where the weights do not state it.
    pub(crate) licence: Option<(&'static str, &'static str)>,
    /// Words to begin with that suit it.
    pub(crate) starters: &'static [&'static str],
}

/// The one for conversations.
const CHAT: &str = "stories7m-chat";

/// The first one that is there is the default.
const BUILT_IN: [BuiltIn; 3] = [
    BuiltIn {
        name: "stories7m",
        files: "stories7m/*.gguf",
        weights: STORIES_7M,
        tokenizer: &[],
        notice: &[],
        licence: None,
        starters: &[
            "Once upon a time there was a poor woodcutter who",
            "The little rabbit was very hungry, so",
            "\"Where are you going?\" said the fox.",
            "It was a dark night, and the old king",
        ],
    },
    BuiltIn {
        name: CHAT,
        files: "stories7m-chat/*.gguf",
        weights: STORIES_7M_CHAT,
        tokenizer: &[],
        notice: &[],
        licence: None,
        starters: &[
            "Tell me a story about a rabbit.",
            "Tell me a story about a girl named Lily.",
            "Write a story with the words boat and happy.",
            "I want a story. It starts with: One day, a boy found a key.",
        ],
    },
    BuiltIn {
        name: "stories260K",
        files: "stories260K.*",
        weights: STORIES_260K,
        tokenizer: STORIES_260K_TOKENIZER,
        notice: STORIES_260K_NOTICE,
        licence: Some(("MIT", "models/NOTICE")),
        starters: &[
            "Once upon a time, there was a little dog",
            "Lily and Tom went to the park. They saw",
            "One day, a small bird found a big red ball.",
        ],
    },
];

/// The names of the models that are part of the program.
pub fn built_in_names() -> &'static [&'static str] {
    const NAMES: [&str; BUILT_IN.len()] = {
        let mut names = [""; BUILT_IN.len()];
        let mut idx = 0;
        while idx < names.len() {
            names[idx] = BUILT_IN[idx].name;
            idx += 1;
        }
        names
    };
    &NAMES
}

/// The built-in model that serves where none is named: the first whose files were there when the program was built.
pub fn default_model() -> &'static str {
    let models = const { &BUILT_IN };
    models.iter().find(|model| !model.weights.is_empty()).unwrap_or(&models[0]).name
}

/// The built-in model that answers in conversations where none is named, if its files were there when the program was
/// built.
pub fn default_chat_model() -> Option<&'static str> {
    find(CHAT).filter(|model| !model.weights.is_empty()).map(|model| model.name)
}

/// The model of this name.
pub(crate) fn find(name: &str) -> Option<&'static BuiltIn> {
    const { &BUILT_IN }.iter().find(|model| model.name == name)
}

impl BuiltIn {
    /// Opens its weights where they lie in the program: no byte is copied.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint, HubError> {
        if self.weights.is_empty() {
            return Err(self.missing());
        }
        let parts = self.weights.iter().map(|&(file, bytes)| (file, SharedBytes::new(bytes)));
        Ok(puna_formats::open_parts(&parts.collect::<Vec<_>>())?)
    }

    /// The bytes of its SentencePiece model.
    pub(crate) fn tokenizer(&self) -> Result<&'static [u8], HubError> {
        self.tokenizer.first().map(|(_, bytes)| *bytes).ok_or_else(|| self.missing())
    }

    /// The bytes of its notice.
    pub(crate) fn notice(&self) -> Option<&'static [u8]> {
        self.notice.first().map(|(_, bytes)| *bytes)
    }

    fn missing(&self) -> HubError {
        HubError::NotBuiltIn { name: self.name, files: self.files }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_without_its_files_says_so() {
        assert!(find("stories260K").is_some() && find("stories").is_none());
        let (name, files) = ("x", "x.*");
        let absent = BuiltIn {
            name,
            files,
            weights: &[],
            tokenizer: &[],
            notice: &[],
            licence: None,
            starters: &[],
        };
        for error in [absent.checkpoint().err().unwrap(), absent.tokenizer().unwrap_err()] {
            let message = error.to_string();
            assert!(message.contains("models/x.* were missing when it was built"), "{message}");
        }
    }

    #[test]
    fn the_trained_model_is_there_whole_and_the_default() {
        assert_eq!(default_model(), "stories7m");
        let opened = crate::open("stories7m", &crate::OpenOptions::default()).unwrap();
        let config = opened.checkpoint.source.config();
        assert_eq!((config.dim, config.n_layers, config.vocab_size), (288, 6, 4096));
        for id in puna_core::WeightId::all(config) {
            assert!(!opened.checkpoint.source.copies(id), "{id} is read in place");
        }
    }

    #[test]
    fn the_chat_model_is_there_and_says_what_it_is() {
        let opened =
            crate::open(default_chat_model().unwrap(), &crate::OpenOptions::default()).unwrap();
        assert!(opened.is_chat && opened.checkpoint.chat_template.is_some());
        let messages =
            [puna_tokenizer::chat::Message::new(puna_tokenizer::chat::Role::User, "Hello!")];
        let llama2 = puna_tokenizer::chat::ChatTemplate::Llama2;
        assert_eq!(
            opened.template.render(&opened.tokenizer, &messages).unwrap(),
            llama2.render(&opened.tokenizer, &messages).unwrap()
        );
    }

    #[test]
    fn every_model_that_is_there_opens_with_its_licence() {
        let options = crate::OpenOptions::default();
        for model in const { &BUILT_IN }.iter().filter(|model| !model.weights.is_empty()) {
            let opened = crate::open(model.name, &options).unwrap();
            let licence = crate::licence_of(model.name, &opened.checkpoint, &options).unwrap();
            assert!(licence.and_then(|licence| licence.id).is_some(), "{}", model.name);
        }
    }
}
