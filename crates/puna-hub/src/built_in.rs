//! Models known by name.

use puna_core::SharedBytes;

use crate::HubError;

// `const STORIES_260K, STORIES_260K_TOKENIZER, STORIES_260K_NOTICE: Option<&[u8]>`, written by the build script.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// A model whose files are part of the program.
pub(crate) struct BuiltIn {
    pub(crate) name: &'static str,
    /// Weights: file name in `models/`, and bytes if it was there.
    weights: (&'static str, Option<&'static [u8]>),
    /// SentencePiece model, likewise.
    tokenizer: (&'static str, Option<&'static [u8]>),
    /// Its origin and licence, which go where it goes.
    pub(crate) notice: Option<&'static [u8]>,
}

const BUILT_IN: [BuiltIn; 1] = [BuiltIn {
    name: "stories260K",
    weights: ("stories260K.bin", STORIES_260K),
    tokenizer: ("stories260K.tokenizer.model", STORIES_260K_TOKENIZER),
    notice: STORIES_260K_NOTICE,
}];

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

/// The model of this name.
pub(crate) fn find(name: &str) -> Option<&'static BuiltIn> {
    const { &BUILT_IN }.iter().find(|model| model.name == name)
}

impl BuiltIn {
    /// The bytes of its weights.
    pub(crate) fn weights(&self) -> Result<SharedBytes, HubError> {
        self.part(self.weights).map(SharedBytes::new)
    }

    /// The bytes of its SentencePiece model.
    pub(crate) fn tokenizer(&self) -> Result<&'static [u8], HubError> {
        self.part(self.tokenizer)
    }

    fn part(
        &self,
        (file, bytes): (&'static str, Option<&'static [u8]>),
    ) -> Result<&'static [u8], HubError> {
        bytes.ok_or(HubError::NotBuiltIn { name: self.name, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_without_its_files_says_so() {
        assert!(find("stories260K").is_some() && find("stories").is_none());
        let (weights, tokenizer) = (("x.bin", None), ("x.model", None));
        let absent = BuiltIn { name: "x", weights, tokenizer, notice: None };
        let message = absent.weights().unwrap_err().to_string();
        assert!(message.contains("models/x.bin was missing when it was built"), "{message}");
    }
}
