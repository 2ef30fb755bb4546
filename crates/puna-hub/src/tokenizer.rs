//! Finds a model's tokenizer.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use puna_formats::{Checkpoint, Form, GgufVocab};
use puna_tokenizer::{Piece, PieceKind, Settings, Tokenizer, TokenizerError};

use crate::place::Place;
use crate::{HubError, OpenOptions};

/// Largest tokenizer file that is read; the real ones are below 20 MB.
const MAX_FILE_BYTES: u64 = 1 << 28;

/// The names of tokenizer files, in the order to look for them.
const NAMES: [&str; 3] = ["tokenizer.model", "tokenizer.json", "tokenizer.bin"];

/// A tokenizer and where it came from.
pub(crate) struct Found {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) origin: String,
}

/// The tokenizer named in `options`; else the one in the model file; else the first file that is there: beside the model,
/// then in the folder above.
pub(crate) fn find(
    place: &Place,
    checkpoint: Option<&Checkpoint>,
    options: &OpenOptions,
) -> Result<Found, HubError> {
    let vocab_size = checkpoint.map(|c| c.source.config().vocab_size);
    if let Some(path) = &options.tokenizer {
        return read(path, vocab_size);
    }
    if let Some(vocab) = checkpoint.and_then(|c| c.vocab.as_ref()) {
        return from_gguf(vocab, place.to_string());
    }
    match place {
        Place::BuiltIn(model) => {
            let tokenizer = Tokenizer::from_sentencepiece(model.tokenizer()?);
            found(tokenizer, model.name.to_owned())
        }
        Place::Adapters { folder, base } => match own(folder) {
            Some(file) => read(&file, vocab_size),
            None => find(base, checkpoint, options),
        },
        Place::Path(path) | Place::Pulled { path, .. }
            if checkpoint.is_none() && path.is_file() =>
        {
            read(path, None)
        }
        Place::Path(path) | Place::Pulled { path, .. } => {
            let json_first = checkpoint.is_some_and(|c| c.form == Form::HuggingFace);
            let looked = candidates(path, json_first);
            match looked.iter().find(|file| file.is_file()) {
                Some(file) => read(file, vocab_size),
                None => Err(missing(place.to_string(), &looked)),
            }
        }
    }
}

/// The tokenizer in a folder itself.
fn own(folder: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file())
}

/// The error when none of `looked` is there.
fn missing(model: String, looked: &[PathBuf]) -> HubError {
    let (mut names, mut folders) = (Vec::new(), Vec::new());
    for file in looked {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        let folder = file.parent().map(|folder| folder.display().to_string());
        names.extend(name.filter(|name| !names.contains(name)));
        folders.extend(folder.filter(|folder| !folders.contains(folder)));
    }
    HubError::NoTokenizer { model, names, folders }
}

/// Where the tokenizer of the model at `path` may lie, in the order to look. A file's own name comes first
/// (`story.bin`, `story.tokenizer.model`). Hugging Face's `tokenizer.json` knows added tokens that the
/// `tokenizer.model` beside it does not.
fn candidates(path: &Path, json_first: bool) -> Vec<PathBuf> {
    let mut names = NAMES;
    if json_first {
        names.swap(0, 1);
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let is_file = path.is_file();
    let folder = if is_file { path.parent() } else { Some(&*path) };
    let own = names.iter().filter(|_| is_file).map(|name| path.with_extension(name));
    let folders = folder.into_iter().chain(folder.and_then(Path::parent));
    let common = folders.flat_map(|folder| names.iter().map(|name| folder.join(name)));
    own.chain(common).collect()
}

/// Reads a tokenizer's file of any form, or the one inside a GGUF model; in a folder, the file with a usual name.
fn read(path: &Path, vocab_size: Option<usize>) -> Result<Found, HubError> {
    let origin = path.display().to_string();
    if path.is_dir() {
        let looked = NAMES.map(|name| path.join(name));
        return match looked.iter().find(|file| file.is_file()) {
            Some(file) => read(file, vocab_size),
            None => Err(missing(origin, &looked)),
        };
    }
    let bytes = read_bytes(path)?;
    if bytes.starts_with(&puna_formats::gguf::MAGIC) {
        let checkpoint = puna_formats::open(path)?;
        return match &checkpoint.vocab {
            Some(vocab) => from_gguf(vocab, origin),
            None => {
                let message = "this model file holds no vocabulary".to_owned();
                Err(HubError::Vocabulary { file: origin, message })
            }
        };
    }
    let tokenizer = match path.extension().and_then(|e| e.to_str()) {
        Some("bin") => match vocab_size {
            Some(n) => Tokenizer::from_llama2c(&bytes, n),
            None => return Err(HubError::UnknownSize { file: origin }),
        },
        _ if bytes.trim_ascii_start().starts_with(b"{") => {
            let config = path.with_file_name("tokenizer_config.json");
            let config = if config.exists() { Some(read_bytes(&config)?) } else { None };
            Tokenizer::from_hf_json(&bytes, config.as_deref())
        }
        _ => Tokenizer::from_sentencepiece(&bytes),
    };
    found(tokenizer, origin)
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, HubError> {
    let error = |source| HubError::Io { path: path.to_path_buf(), source };
    let mut file = fs::File::open(path).map_err(error)?;
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(error)?;
    // A GGUF model is opened by its name, however large.
    if magic == puna_formats::gguf::MAGIC {
        return Ok(magic);
    }
    let len = file.metadata().map_err(error)?.len();
    if len > MAX_FILE_BYTES {
        let message =
            format!("expected a tokenizer of at most {MAX_FILE_BYTES} bytes, found {len}");
        return Err(HubError::Vocabulary { file: path.display().to_string(), message });
    }
    file.read_to_end(&mut magic).map_err(error)?;
    Ok(magic)
}

fn from_gguf(vocab: &GgufVocab, origin: String) -> Result<Found, HubError> {
    let pieces: Option<Vec<Piece>> = vocab
        .tokens
        .iter()
        .zip(&vocab.scores)
        .zip(&vocab.token_types)
        .map(|((text, &score), &number)| {
            let kind = PieceKind::from_number(u64::try_from(number).ok()?)?;
            Some(Piece { text: text.clone(), score, kind })
        })
        .collect();
    let pieces = pieces.ok_or_else(|| {
        let message = "tokenizer.ggml.token_type: expected types from 1 to 6".to_owned();
        HubError::Vocabulary { file: origin.clone(), message }
    })?;
    let defaults = Settings::default();
    let settings = Settings {
        add_dummy_prefix: vocab.add_space_prefix.unwrap_or(defaults.add_dummy_prefix),
        remove_extra_whitespaces: vocab.remove_extra_whitespaces.unwrap_or(false),
        byte_fallback: pieces.iter().any(|piece| piece.kind == PieceKind::Byte),
        bos_id: vocab.bos_id,
        eos_id: vocab.eos_id,
        pad_id: vocab.pad_id,
        ..defaults
    };
    found(Tokenizer::from_pieces(pieces, settings), origin)
}

fn found(tokenizer: Result<Tokenizer, TokenizerError>, origin: String) -> Result<Found, HubError> {
    match tokenizer {
        Ok(tokenizer) => Ok(Found { tokenizer, origin }),
        Err(source) => Err(HubError::Tokenizer { file: origin, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_beside_the_model_then_above() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("llama-2-7b");
        fs::create_dir(&folder).unwrap();
        let file = folder.join("story.bin");
        fs::write(&file, "").unwrap();
        let tails = |path: &Path, json_first| -> Vec<String> {
            let root = root.path().canonicalize().unwrap();
            let inside = candidates(path, json_first).into_iter();
            inside
                .map(|p| p.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"))
                .collect()
        };
        assert_eq!(
            tails(&folder, true)[..4],
            [
                "llama-2-7b/tokenizer.json",
                "llama-2-7b/tokenizer.model",
                "llama-2-7b/tokenizer.bin",
                "tokenizer.json"
            ]
        );
        let of_file = tails(&file, false);
        assert_eq!(of_file[0], "llama-2-7b/story.tokenizer.model");
        assert_eq!(of_file[3], "llama-2-7b/tokenizer.model");
        assert_eq!(of_file.len(), 9);
    }
}
