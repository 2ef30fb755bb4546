//! What the fuzz targets of `puna-tokenizer` do with an input. The crate's own tests include this file to
//! replay the seeds.
#![allow(dead_code, reason = "each user takes one function or all")]

use puna_tokenizer::chat::{ChatTemplate, Message, Role};
use puna_tokenizer::{Piece, PieceKind, Settings, Tokenizer};

/// SentencePiece's `tokenizer.model`.
pub(crate) fn model(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_sentencepiece(data) {
        keeps_its_promises(&tokenizer);
    }
}

/// Hugging Face's `tokenizer.json`, and the same bytes as its `tokenizer_config.json`.
pub(crate) fn json(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_hf_json(data, None) {
        keeps_its_promises(&tokenizer);
    }
    let _ = Tokenizer::from_hf_json(
        br#"{"model": {"vocab": {"<unk>": 0}, "unk_token": "<unk>"}}"#,
        Some(data),
    );
    let _ = puna_tokenizer::chat::template_in_config(data);
}

/// llama2.c's `tokenizer.bin`, after the number of pieces in two bytes.
pub(crate) fn llama2c(data: &[u8]) {
    let Some((n_pieces, file)) = data.split_first_chunk() else { return };
    if let Ok(tokenizer) = Tokenizer::from_llama2c(file, u16::from_le_bytes(*n_pieces).into()) {
        keeps_its_promises(&tokenizer);
    }
}

/// A Jinja template and, after a zero byte, what the user says.
pub(crate) fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (source, said) = text.split_once('\0').unwrap_or((text, "Hello"));
    let Ok(template) = ChatTemplate::from_jinja(source, "<s>", "</s>") else { return };
    let dialogue = [Role::System, Role::User, Role::Assistant, Role::User]
        .map(|role| Message::new(role, said));
    if let Ok(ids) = template.render(&two_letters(), &dialogue) {
        assert_eq!(ids.first(), Some(&1), "a prompt begins with BOS");
    }
}

/// A vocabulary of `<unk>`, `<s>`, `</s>`, `a` and `b`.
fn two_letters() -> Tokenizer {
    use PieceKind::{Control, Normal, Unknown};
    let pieces =
        [("<unk>", Unknown), ("<s>", Control), ("</s>", Control), ("a", Normal), ("b", Normal)];
    let pieces = pieces.map(|(text, kind)| Piece { text: text.to_owned(), score: 0.0, kind });
    let settings = Settings { byte_fallback: false, ..Settings::default() };
    Tokenizer::from_pieces(pieces.to_vec(), settings).expect("a sound vocabulary")
}

/// Whatever loads encodes any text into ids of its own that are no control pieces, and decodes them.
fn keeps_its_promises(tokenizer: &Tokenizer) {
    let own: String = tokenizer.pieces().iter().rev().take(40).map(|p| p.text.as_str()).collect();
    let texts = ["", " ", "<s>a b</s>", "Once upon  a time\n▁é🦙 1984", &"ab ".repeat(40), &own];
    for text in texts {
        let ids = tokenizer.encode(text);
        for &id in &ids {
            assert_ne!(tokenizer.piece(id).expect("an id of its own").kind, PieceKind::Control);
        }
        assert_eq!(tokenizer.encode(text), ids, "a second time");
        let mut decoder = tokenizer.decoder();
        let streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
        assert_eq!(streamed + &decoder.finish(), tokenizer.decode(&ids));
        let _ = tokenizer.encode_with_specials(text);
    }
    if let Ok(written) = tokenizer.to_sentencepiece() {
        let again = Tokenizer::from_sentencepiece(&written).expect("what is written can be read");
        assert_eq!(again.pieces(), tokenizer.pieces());
    }
}
