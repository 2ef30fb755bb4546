//! SentencePiece's `tokenizer.model`: a protocol buffer, `ModelProto` in sentencepiece_model.proto.
//!
//! Read are the pieces and every setting that changes the ids; a setting that this crate does not do is an error.
//! `split_digits` and the like are settings of the trainer: their effect is in the pieces.

use crate::protobuf::{Field, Fields, Value, put_field};
use crate::tokenizer::Prefix;
use crate::train::{MAX_PIECE_CHARS, TrainConfig};
use crate::vocab::{Piece, PieceKind, Settings};
use crate::{Tokenizer, TokenizerError};

/// `TrainerSpec.ModelType.BPE`.
const MODEL_TYPE_BPE: u64 = 2;

// Field numbers.
const MODEL_PIECES: u64 = 1;
const MODEL_TRAINER: u64 = 2;
const MODEL_NORMALIZER: u64 = 3;
const MODEL_DENORMALIZER: u64 = 5;
const PIECE_TEXT: u64 = 1;
const PIECE_SCORE: u64 = 2;
const PIECE_TYPE: u64 = 3;
const TRAINER_MODEL_TYPE: u64 = 3;
const TRAINER_VOCAB_SIZE: u64 = 4;
const TRAINER_COVERAGE: u64 = 10;
const TRAINER_MAX_PIECE_CHARS: u64 = 20;
const TRAINER_SUFFIX_SPACE: u64 = 24;
const TRAINER_SPLIT_DIGITS: u64 = 25;
const TRAINER_SPACE_PIECES: u64 = 26;
const TRAINER_USER_DEFINED: u64 = 31;
const TRAINER_BYTE_FALLBACK: u64 = 35;
const TRAINER_UNK_ID: u64 = 40;
const TRAINER_BOS_ID: u64 = 41;
const TRAINER_EOS_ID: u64 = 42;
const TRAINER_PAD_ID: u64 = 43;
const TRAINER_UNK_SURFACE: u64 = 44;
const TRAINER_UNK_PIECE: u64 = 45;
const TRAINER_BOS_PIECE: u64 = 46;
const TRAINER_EOS_PIECE: u64 = 47;
const TRAINER_PAD_PIECE: u64 = 48;
const NORMALIZER_NAME: u64 = 1;
const NORMALIZER_CHARSMAP: u64 = 2;
const NORMALIZER_DUMMY_PREFIX: u64 = 3;
const NORMALIZER_REMOVE_EXTRA: u64 = 4;
const NORMALIZER_ESCAPE: u64 = 5;

/// The part of the file's settings that is not in [`Settings`] as it stands.
struct Trainer {
    model_type: u64,
    bos_piece: String,
    eos_piece: String,
    pad_piece: String,
}

/// Pieces and settings of a `tokenizer.model`.
pub(crate) fn read(bytes: &[u8]) -> Result<(Vec<Piece>, Settings), TokenizerError> {
    // The defaults are those of the .proto file, not Llama 2's.
    let mut settings =
        Settings { remove_extra_whitespaces: true, byte_fallback: false, ..Settings::default() };
    let mut trainer = Trainer {
        model_type: 1,
        bos_piece: "<s>".to_owned(),
        eos_piece: "</s>".to_owned(),
        pad_piece: "<pad>".to_owned(),
    };
    let (mut pieces, mut has_normalizer) = (Vec::new(), false);
    for field in Fields::of_file(bytes) {
        let field = field?;
        match field.number {
            MODEL_PIECES => pieces.push(read_piece(&field)?),
            MODEL_TRAINER => read_trainer(&field, &mut trainer, &mut settings)?,
            MODEL_NORMALIZER => {
                has_normalizer = true;
                read_normalizer(&field, &mut settings)?;
            }
            MODEL_DENORMALIZER => refuse_charsmap(&field, "denormaliser")?,
            _ => {}
        }
    }
    if trainer.model_type != MODEL_TYPE_BPE {
        let found = trainer.model_type.to_string();
        return Err(unsupported("model_type", "2 (BPE)", found));
    }
    if !has_normalizer {
        // Every file has these settings. Protobuf has no end mark, so this is how a cut-off file shows.
        let reason = "expected the settings of the normaliser, found the end".to_owned();
        return Err(TokenizerError::Malformed {
            format: "tokenizer.model",
            offset: bytes.len(),
            reason,
        });
    }
    let control = |text: &str| {
        let found = (0..).zip(&pieces).find(|(_, p): &(u32, &Piece)| p.text == text);
        found.filter(|(_, p)| p.kind == PieceKind::Control).map(|(id, _)| id)
    };
    settings.bos_id = control(&trainer.bos_piece);
    settings.eos_id = control(&trainer.eos_piece);
    settings.pad_id = control(&trainer.pad_piece);
    Ok((pieces, settings))
}

fn unsupported(what: &'static str, expected: &'static str, found: String) -> TokenizerError {
    TokenizerError::Unsupported { what, expected, found }
}

fn read_piece(field: &Field<'_>) -> Result<Piece, TokenizerError> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    for field in field.message()? {
        let field = field?;
        match field.number {
            PIECE_TEXT => piece.text = field.text()?.to_owned(),
            PIECE_SCORE => piece.score = field.float()?,
            PIECE_TYPE => {
                let number = field.varint()?;
                piece.kind = PieceKind::from_number(number)
                    .ok_or_else(|| unsupported("piece type", "1 to 6", number.to_string()))?;
            }
            _ => {}
        }
    }
    Ok(piece)
}

fn read_trainer(
    field: &Field<'_>,
    trainer: &mut Trainer,
    settings: &mut Settings,
) -> Result<(), TokenizerError> {
    for field in field.message()? {
        let field = field?;
        match field.number {
            TRAINER_MODEL_TYPE => trainer.model_type = field.varint()?,
            TRAINER_BYTE_FALLBACK => settings.byte_fallback = field.bool()?,
            TRAINER_UNK_SURFACE => settings.unk_surface = field.text()?.to_owned(),
            TRAINER_BOS_PIECE => trainer.bos_piece = field.text()?.to_owned(),
            TRAINER_EOS_PIECE => trainer.eos_piece = field.text()?.to_owned(),
            TRAINER_PAD_PIECE => trainer.pad_piece = field.text()?.to_owned(),
            TRAINER_SUFFIX_SPACE if field.bool()? => {
                return Err(unsupported("treat_whitespace_as_suffix", "false", "true".to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_normalizer(field: &Field<'_>, settings: &mut Settings) -> Result<(), TokenizerError> {
    refuse_charsmap(field, "normaliser")?;
    for field in field.message()? {
        let field = field?;
        match field.number {
            NORMALIZER_DUMMY_PREFIX => settings.add_dummy_prefix = field.bool()?,
            NORMALIZER_REMOVE_EXTRA => settings.remove_extra_whitespaces = field.bool()?,
            NORMALIZER_ESCAPE if !field.bool()? => {
                return Err(unsupported("escape_whitespaces", "true", "false".to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A character map means a normaliser other than the identity.
fn refuse_charsmap(field: &Field<'_>, what: &'static str) -> Result<(), TokenizerError> {
    let (mut name, mut mapped) = (String::new(), 0);
    for field in field.message()? {
        let field = field?;
        match field.number {
            NORMALIZER_NAME => name = field.text()?.to_owned(),
            NORMALIZER_CHARSMAP => mapped = field.bytes()?.len(),
            _ => {}
        }
    }
    if mapped > 0 {
        return Err(unsupported(
            what,
            "identity",
            format!("{name:?} with a character map of {mapped} bytes"),
        ));
    }
    Ok(())
}

/// The tokenizer as a `tokenizer.model`; with the settings of the training that made it.
pub(crate) fn write(
    tokenizer: &Tokenizer,
    training: Option<&TrainConfig>,
) -> Result<Vec<u8>, TokenizerError> {
    if tokenizer.prefix != Prefix::BySettings {
        let found = "Hugging Face's Metaspace".to_owned();
        return Err(unsupported(
            "space before the text, for tokenizer.model",
            "always or never",
            found,
        ));
    }
    tokenizer.check_ranked_by_score()?;
    let mut out = Vec::new();
    for piece in tokenizer.pieces() {
        let mut message = Vec::new();
        put_field(&mut message, PIECE_TEXT, Value::Bytes(piece.text.as_bytes()));
        put_field(&mut message, PIECE_SCORE, Value::Fixed32(piece.score.to_bits()));
        put_field(&mut message, PIECE_TYPE, Value::Varint(piece.kind as u64));
        put_field(&mut out, MODEL_PIECES, Value::Bytes(&message));
    }
    let mut trainer = trainer_message(tokenizer);
    if let Some(config) = training {
        put_training(&mut trainer, config);
    }
    put_field(&mut out, MODEL_TRAINER, Value::Bytes(&trainer));
    put_field(&mut out, MODEL_NORMALIZER, Value::Bytes(&normalizer_message(tokenizer.settings())));
    Ok(out)
}

fn trainer_message(tokenizer: &Tokenizer) -> Vec<u8> {
    let settings = tokenizer.settings();
    let mut out = Vec::new();
    put_field(&mut out, TRAINER_MODEL_TYPE, Value::Varint(MODEL_TYPE_BPE));
    put_field(&mut out, TRAINER_VOCAB_SIZE, Value::Varint(tokenizer.vocab_size() as u64));
    put_field(&mut out, TRAINER_BYTE_FALLBACK, Value::Varint(settings.byte_fallback.into()));
    put_field(&mut out, TRAINER_UNK_SURFACE, Value::Bytes(settings.unk_surface.as_bytes()));
    let named = [
        (TRAINER_UNK_ID, TRAINER_UNK_PIECE, tokenizer.vocab.unk_id),
        (TRAINER_BOS_ID, TRAINER_BOS_PIECE, settings.bos_id),
        (TRAINER_EOS_ID, TRAINER_EOS_PIECE, settings.eos_id),
        (TRAINER_PAD_ID, TRAINER_PAD_PIECE, settings.pad_id),
    ];
    for (id_field, piece_field, id) in named {
        // An int32 of -1, absent, is written sign-extended.
        put_field(&mut out, id_field, Value::Varint(id.map_or(u64::MAX, u64::from)));
        if let Some(piece) = id.and_then(|id| tokenizer.piece(id)) {
            put_field(&mut out, piece_field, Value::Bytes(piece.text.as_bytes()));
        }
    }
    out
}

/// The settings that a trainer goes by, so that another one can go by them too. Left out are those that have
/// SentencePiece's default.
fn put_training(out: &mut Vec<u8>, config: &TrainConfig) {
    put_field(out, TRAINER_COVERAGE, Value::Fixed32(config.character_coverage.to_bits()));
    put_field(out, TRAINER_MAX_PIECE_CHARS, Value::Varint(MAX_PIECE_CHARS.into()));
    put_field(out, TRAINER_SPLIT_DIGITS, Value::Varint(1));
    put_field(out, TRAINER_SPACE_PIECES, Value::Varint(1));
    for text in &config.user_defined {
        put_field(out, TRAINER_USER_DEFINED, Value::Bytes(text.as_bytes()));
    }
}

fn normalizer_message(settings: &Settings) -> Vec<u8> {
    let mut out = Vec::new();
    put_field(&mut out, NORMALIZER_NAME, Value::Bytes(b"identity"));
    put_field(&mut out, NORMALIZER_DUMMY_PREFIX, Value::Varint(settings.add_dummy_prefix.into()));
    put_field(
        &mut out,
        NORMALIZER_REMOVE_EXTRA,
        Value::Varint(settings.remove_extra_whitespaces.into()),
    );
    out
}
