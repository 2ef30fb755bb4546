//! The tokenizer: a checked vocabulary, its merge rules, and how text is prepared for them.

use crate::decode::StreamDecoder;
use crate::merge::{self, Merger, Rules};
use crate::trie::Trie;
use crate::vocab::{Piece, PieceKind, SPACE_MARK, Settings, Vocab};
use crate::words::{Cuts, Encoder};
use crate::{TokenizerError, hf_json, hf_write, llama2c, sentencepiece};
use std::borrow::Cow;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Most idle encoders kept; each may hold 4 MiB.
const MAX_IDLE: usize = 16;

/// SentencePiece BPE over one vocabulary. Immutable; share it between threads by reference.
pub struct Tokenizer {
    pub(crate) vocab: Vocab,
    pub(crate) settings: Settings,
    pub(crate) prefix: Prefix,
    /// Whether SentencePiece's rule, the best-scored piece first, gives `merger`'s results.
    pub(crate) ranked_by_score: bool,
    merger: Merger,
    cuts: Option<Cuts>,
    /// Control pieces, found only on request.
    controls: Trie,
    /// Texts always taken out before all else: Hugging Face's added tokens that are not special.
    added: Trie,
    /// Encoders not in use: their tables stay warm from call to call.
    idle: Mutex<Vec<Encoder>>,
}

/// When a space is put before a stretch of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// Before every stretch, or none, as [`Settings::add_dummy_prefix`] says.
    BySettings,
    /// Hugging Face's `Metaspace`: unless the stretch starts with a space; `first_only`: and only at the very start of
    /// the text, not after a control piece.
    Metaspace { first_only: bool },
}

/// A vocabulary as a reader hands it over.
pub(crate) struct Parts {
    pub(crate) vocab: Vocab,
    pub(crate) settings: Settings,
    pub(crate) prefix: Prefix,
    pub(crate) rules: Rules,
    pub(crate) ranked_by_score: bool,
    /// Match user-defined pieces before the dummy prefix is put, as Hugging Face does, not inside the text.
    pub(crate) user_defined_apart: bool,
}

impl Tokenizer {
    /// Makes a tokenizer from pieces, as a GGUF file lists them (`tokenizer.ggml.tokens`, `scores`, `token_type`).
    ///
    /// # Errors
    /// An empty, repeated or overlong piece, a score that is not a number, byte pieces that do not fit
    /// [`Settings::byte_fallback`], ids in `settings` beyond the vocabulary.
    pub fn from_pieces(pieces: Vec<Piece>, settings: Settings) -> Result<Self, TokenizerError> {
        let vocab = Vocab::new(pieces, &settings)?;
        let rules = merge::rules_by_score(&vocab);
        Ok(Self::from_parts(Parts {
            vocab,
            settings,
            rules,
            prefix: Prefix::BySettings,
            ranked_by_score: true,
            user_defined_apart: false,
        }))
    }

    /// Reads SentencePiece's `tokenizer.model`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_pieces`]; damaged protobuf; a model that is not BPE with the identity normaliser.
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let (pieces, settings) = sentencepiece::read(bytes)?;
        Self::from_pieces(pieces, settings)
    }

    /// Reads Hugging Face's `tokenizer.json`; `config_json` is the `tokenizer_config.json` beside it, which names the
    /// BOS and EOS tokens (without it: `<s>` and `</s>`).
    ///
    /// # Errors
    /// As [`Tokenizer::from_pieces`]; not JSON; a model other than BPE; a normaliser or pre-tokeniser other than the
    /// two ways in which such files say "spaces are `▁`".
    pub fn from_hf_json(
        tokenizer_json: &[u8],
        config_json: Option<&[u8]>,
    ) -> Result<Self, TokenizerError> {
        hf_json::read(tokenizer_json, config_json).map(Self::from_parts)
    }

    /// Reads llama2.c's `tokenizer.bin`. The file does not say how many pieces it has, the model does: `vocab_size`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_pieces`]; a file with fewer or more pieces than `vocab_size`.
    pub fn from_llama2c(bytes: &[u8], vocab_size: usize) -> Result<Self, TokenizerError> {
        Self::from_pieces(llama2c::read(bytes, vocab_size)?, Settings::default())
    }

    pub(crate) fn from_parts(parts: Parts) -> Self {
        let Parts { vocab, settings, prefix, rules, ranked_by_score, user_defined_apart } = parts;
        let merger = Merger::new(&vocab, rules, !user_defined_apart);
        // Without byte fallback a run of unknown characters is one piece, across any cut.
        let cuts = (settings.byte_fallback && merger.is_local()).then(|| Cuts::new(&vocab));
        let trie_of = |kind| {
            let mut trie = Trie::default();
            vocab.of_kind(kind).for_each(|(id, piece)| trie.insert(&piece.text, id));
            trie
        };
        let controls = trie_of(PieceKind::Control);
        let added =
            if user_defined_apart { trie_of(PieceKind::UserDefined) } else { Trie::default() };
        let idle = Mutex::default();
        Self { vocab, settings, prefix, ranked_by_score, merger, cuts, controls, added, idle }
    }

    /// Writes the vocabulary as SentencePiece's `tokenizer.model`.
    ///
    /// # Errors
    /// A `tokenizer.json` may hold merges or a space rule that a `tokenizer.model` cannot express.
    pub fn to_sentencepiece(&self) -> Result<Vec<u8>, TokenizerError> {
        sentencepiece::write(self, None)
    }

    /// Whether SentencePiece's rule, the best-scored piece first, gives this tokenizer's ids, as a `tokenizer.model` or
    /// a GGUF file needs it.
    ///
    /// # Errors
    /// A `tokenizer.json` may hold merges in another order, or not all of them.
    pub fn check_ranked_by_score(&self) -> Result<(), TokenizerError> {
        if self.ranked_by_score {
            return Ok(());
        }
        Err(TokenizerError::Unsupported {
            what: "merges, for a vocabulary with scores",
            expected: "every split of every piece, piece by piece",
            found: "merges in another order, or not all of them".to_owned(),
        })
    }

    /// Whether a space before the text is put by Hugging Face's `Metaspace`, which puts none before a text that
    /// begins with one.
    pub fn has_metaspace(&self) -> bool {
        self.prefix != Prefix::BySettings
    }

    /// Writes the vocabulary as Hugging Face's `tokenizer.json`, in which texts begin with BOS and end with EOS where
    /// asked for.
    ///
    /// # Errors
    /// Merges that are not in the order of scores, a piece with a character that is no piece,
    /// [`Settings::remove_extra_whitespaces`]: none of them can be said there.
    pub fn to_hf_json(&self, add_bos: bool, add_eos: bool) -> Result<Vec<u8>, TokenizerError> {
        hf_write::tokenizer_json(self, add_bos, add_eos)
    }

    /// The `tokenizer_config.json` that belongs beside [`Tokenizer::to_hf_json`].
    pub fn to_hf_config(
        &self,
        add_bos: bool,
        add_eos: bool,
        chat_template: Option<&str>,
    ) -> Vec<u8> {
        hf_write::config_json(self, add_bos, add_eos, chat_template)
    }

    /// The `special_tokens_map.json` that belongs beside [`Tokenizer::to_hf_json`].
    pub fn to_hf_special_tokens(&self) -> Vec<u8> {
        hf_write::special_tokens_json(self)
    }

    /// The ids of plain text: no BOS, no EOS, and no control piece, whatever the text says.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 8);
        self.encode_into(text, &mut ids);
        ids
    }

    /// Appends to `ids` what [`Tokenizer::encode`] returns.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) {
        self.with_encoder(|encoder| self.encode_plain(encoder, text, true, ids));
    }

    /// The ids of text in which the text of a control piece, such as `</s>`, stands for that piece: for prompts that a
    /// program has put together. The stretches between control pieces are encoded like texts of their own.
    /// Never give it text from a user.
    pub fn encode_with_specials(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 8);
        self.with_encoder(|encoder| {
            let (mut rest, mut first) = (text, true);
            while let Some((start, end, id)) = self.controls.find(rest) {
                self.encode_plain(encoder, &rest[..start], first, &mut ids);
                ids.push(id);
                (rest, first) = (&rest[end..], false);
            }
            self.encode_plain(encoder, rest, first, &mut ids);
        });
        ids
    }

    /// `first`: the text before which nothing stands.
    fn encode_plain(&self, encoder: &mut Encoder, text: &str, mut first: bool, ids: &mut Vec<u32>) {
        let mut rest = text;
        while let Some((start, end, id)) = self.added.find(rest) {
            self.encode_stretch(encoder, &rest[..start], first, ids);
            ids.push(id);
            (rest, first) = (&rest[end..], false);
        }
        self.encode_stretch(encoder, rest, first, ids);
    }

    fn encode_stretch(&self, encoder: &mut Encoder, text: &str, first: bool, ids: &mut Vec<u32>) {
        let text = self.prepare(text, first);
        encoder.encode((&self.vocab, &self.merger, self.cuts.as_ref()), &text, ids);
    }

    /// SentencePiece's identity normaliser, with plain spaces: the merger reads ' ' as `▁`.
    fn prepare<'t>(&self, text: &'t str, first: bool) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        if self.settings.remove_extra_whitespaces {
            text = Cow::Owned(shorten_spaces(&text));
        }
        if text.is_empty() {
            return text;
        }
        // A `▁` in the text is the same as a space from here on.
        if text.contains(SPACE_MARK) {
            text = Cow::Owned(text.replace(SPACE_MARK, " "));
        }
        let add = match self.prefix {
            Prefix::BySettings => self.settings.add_dummy_prefix,
            Prefix::Metaspace { first_only } => !text.starts_with(' ') && (first || !first_only),
        };
        if add { Cow::Owned([" ", &text].concat()) } else { text }
    }

    fn with_encoder(&self, work: impl FnOnce(&mut Encoder)) {
        let mut encoder =
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        work(&mut encoder);
        encoder.trim();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(encoder);
        }
    }

    /// The text of `ids`, as SentencePiece gives it: the dummy prefix removed, control pieces silent, bytes that are
    /// not UTF-8 as U+FFFD each. Ids beyond the vocabulary read like the unknown piece.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut decoder = self.decoder();
        let mut text = String::with_capacity(ids.len() * 4);
        for &id in ids {
            decoder.push_to(id, &mut text);
        }
        text + &decoder.finish()
    }

    /// As [`Tokenizer::decode`], with the bytes of byte pieces as they are, be they UTF-8 or not.
    pub fn decode_bytes(&self, ids: &[u32]) -> Vec<u8> {
        self.decoder().into_bytes(ids)
    }

    /// Decodes ids that come one at a time. The first of them begins a text, so it loses its dummy prefix; to decode the
    /// continuation of a prompt, push the prompt's last id first and drop what it gives.
    pub fn decoder(&self) -> StreamDecoder<&Self> {
        StreamDecoder::new(self)
    }

    /// Number of pieces; ids are smaller.
    pub fn vocab_size(&self) -> usize {
        self.vocab.pieces.len()
    }

    /// The piece with this id.
    pub fn piece(&self, id: u32) -> Option<&Piece> {
        self.vocab.pieces.get(id as usize)
    }

    /// All pieces, by id.
    pub fn pieces(&self) -> &[Piece] {
        &self.vocab.pieces
    }

    /// The id of the piece with exactly this text, of whatever kind.
    pub fn id_of(&self, piece: &str) -> Option<u32> {
        self.vocab.id_of(piece)
    }

    /// What the file says beside its pieces.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The piece that begins a text.
    pub fn bos_id(&self) -> Option<u32> {
        self.settings.bos_id
    }

    /// The piece that ends a text.
    pub fn eos_id(&self) -> Option<u32> {
        self.settings.eos_id
    }

    /// The first control piece whose text occurs in `text`.
    pub(crate) fn find_control(&self, text: &str) -> Option<&Piece> {
        self.controls.find(text).and_then(|(_, _, id)| self.piece(id))
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Tokenizer");
        out.field("vocab_size", &self.vocab_size())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Drops leading and trailing spaces and shortens runs of them to one. At the end a literal `▁` counts as a space, and
/// nowhere else: so does SentencePiece.
fn shorten_spaces(text: &str) -> String {
    let trimmed = text.trim_start_matches(' ').trim_end_matches([' ', SPACE_MARK]);
    let mut out = String::with_capacity(trimmed.len());
    for c in trimmed.chars() {
        if c != ' ' || !out.ends_with(' ') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shared_between_threads() {
        fn check<T: Send + Sync>() {}
        check::<Tokenizer>();
    }

    #[test]
    fn spaces_are_shortened_as_sentencepiece_does() {
        for (text, expected) in
            [("", ""), ("  ", ""), (" a  b ", "a b"), ("a ▁", "a"), ("▁ a", "▁ a"), ("\n ", "\n")]
        {
            assert_eq!(shorten_spaces(text), expected, "{text:?}");
        }
    }
}
