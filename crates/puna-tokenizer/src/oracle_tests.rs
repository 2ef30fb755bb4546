//! The encoder against the obvious one: strings, quadratic time, no cuts, no memory; over random vocabularies.

use crate::{Piece, PieceKind, Settings, Tokenizer};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Unknown, BOS, EOS and the bytes, then `texts` with scores and kinds.
fn tokenizer(texts: &BTreeMap<String, (u8, bool)>, settings: Settings) -> Tokenizer {
    let piece = |text: String, score, kind| Piece { text, score, kind };
    let mut pieces = vec![
        piece("<unk>".to_owned(), 0.0, PieceKind::Unknown),
        piece("<s>".to_owned(), 0.0, PieceKind::Control),
        piece("</s>".to_owned(), 0.0, PieceKind::Control),
    ];
    if settings.byte_fallback {
        pieces.extend((0..=255).map(|b| piece(format!("<0x{b:02X}>"), 0.0, PieceKind::Byte)));
    }
    for (text, &(score, user_defined)) in texts {
        let kind = if user_defined { PieceKind::UserDefined } else { PieceKind::Normal };
        pieces.push(piece(text.clone(), f32::from(score), kind));
    }
    Tokenizer::from_pieces(pieces, settings).unwrap()
}

fn is_text(tokenizer: &Tokenizer, text: &str) -> Option<u32> {
    let id = tokenizer.id_of(text)?;
    matches!(tokenizer.piece(id)?.kind, PieceKind::Normal | PieceKind::UserDefined).then_some(id)
}

/// The definition of SentencePiece BPE, read aloud.
fn obvious(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = format!(" {text}").replace(' ', "▁");
    let user_defined: Vec<&str> = tokenizer
        .pieces()
        .iter()
        .filter(|p| p.kind == PieceKind::UserDefined)
        .map(|p| p.text.as_str())
        .collect();
    let mut symbols: Vec<(String, bool)> = Vec::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let whole = user_defined.iter().filter(|u| rest.starts_with(**u)).max_by_key(|u| u.len());
        let len = whole.map_or(c.len_utf8(), |u| u.len());
        symbols.push((rest[..len].to_owned(), whole.is_some()));
        rest = &rest[len..];
    }
    loop {
        let score = |i: usize| {
            let [(a, false), (b, false)] = &symbols[i..i + 2] else { return None };
            let id = is_text(tokenizer, &format!("{a}{b}"))?;
            Some((tokenizer.piece(id)?.score, i))
        };
        let pairs = (0..symbols.len() - 1).filter_map(score);
        let Some((_, i)) = pairs.reduce(|best, next| if next.0 > best.0 { next } else { best })
        else {
            break;
        };
        let (right, _) = symbols.remove(i + 1);
        symbols[i].0 += &right;
    }
    let mut ids: Vec<u32> = Vec::new();
    for (symbol, _) in symbols {
        match is_text(tokenizer, &symbol) {
            Some(id) => ids.push(id),
            None if tokenizer.settings().byte_fallback => {
                ids.extend(
                    symbol.bytes().map(|b| tokenizer.id_of(&format!("<0x{b:02X}>")).unwrap()),
                );
            }
            None if ids.last() != Some(&0) => ids.push(0),
            None => {}
        }
    }
    ids
}

proptest! {
    #[test]
    fn encodes_like_the_obvious_encoder(
        texts in proptest::collection::btree_map("[ab1é▁<]{1,4}", (0u8..12, prop::bool::weighted(0.05)), 0..60),
        parts in proptest::collection::vec("[ab1é ▁<s>/\n]{0,20}|(aab ){1,9}|[ ]{1,9}|日本", 0..12),
        byte_fallback: bool,
    ) {
        let tokenizer = tokenizer(&texts, Settings { byte_fallback, ..Settings::default() });
        let text = parts.concat();
        let expected = obvious(&tokenizer, &text);
        prop_assert_eq!(&tokenizer.encode(&text), &expected);
        // Again, now that the parts are remembered.
        prop_assert_eq!(&tokenizer.encode(&text), &expected);
    }
}
