//! Licences of models: what a repository states, what was accepted and when, what a model's files say.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use puna_formats::Checkpoint;
use puna_formats::gguf::Value;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::llama2::{is_llama2_link, is_llama2_name, is_llama2_text};
use crate::place::{Place, locate};
use crate::pull::{Reference, StatedLicence};
use crate::store::{Store, StoreError, check_path, hex, now};
use crate::{HubError, OpenOptions, shown};

pub use crate::llama2::LLAMA2_SPECIAL_TERMS;

/// Largest licence text that is read.
pub const MAX_TEXT_BYTES: u64 = 1 << 20;

/// How the names of licences, notices and use policies begin, in lower case.
const PAPER_STARTS: [&str; 6] =
    ["license", "licence", "copying", "notice", "use_policy", "use-policy"];

/// Endings of files that hold no text for people: weights, archives, code and data. What else follows a `.` may belong
/// to a licence's name: `LICENSE.MIT`, `LICENSE.llama2`.
const OTHER_ENDINGS: &str = "gguf ggml safetensors bin pth pt ckpt h5 msgpack onnx pkl pickle npy npz tflite model \
                             zip gz tgz tar xz 7z json jsonl yaml yml toml csv parquet py ipynb js sh rs";

/// In front of a file's name, the key under which a GGUF file holds its text.
pub(crate) const FILE_KEY: &str = "puna.file.";

/// The terms a repository puts its model under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What its card states.
    pub stated: StatedLicence,
    /// Its licence, notice and policy files.
    pub papers: Vec<Paper>,
}

/// A file about what may be done with a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paper {
    /// Its path in the repository.
    pub path: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Its text, with line ends and tabs as the only control characters, so that it can be shown.
    pub text: String,
}

/// A licence that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Its identifier, where one was stated.
    pub id: Option<String>,
    /// [`Terms::sha256`] of what was accepted.
    pub sha256: String,
    /// When, UTC.
    pub accepted: String,
}

/// The record of an acceptance.
#[derive(Serialize, Deserialize)]
struct Record {
    repository: String,
    licence: Acceptance,
    /// Path and SHA-256 of each file that was shown.
    papers: Vec<(String, String)>,
}

impl Terms {
    /// The licence's identifier: as stated, or as its text is known.
    pub fn id(&self) -> Option<&str> {
        let stated = self.stated.id.as_deref().filter(|id| !id.eq_ignore_ascii_case("other"));
        let named = stated.or(self.stated.name.as_deref());
        named.or_else(|| self.is_llama2().then_some("llama2")).or(self.stated.id.as_deref())
    }

    /// Whether it is the Llama 2 Community License Agreement: by its identifier, its name, where its text is, or its
    /// text.
    pub fn is_llama2(&self) -> bool {
        let StatedLicence { id, name, link } = &self.stated;
        [id, name].into_iter().flatten().any(|name| is_llama2_name(name))
            || link.as_deref().is_some_and(is_llama2_link)
            || self.papers.iter().any(|paper| is_llama2_text(&paper.text))
    }

    /// SHA-256 of what is stated and shown: lines `id`, `name` and `link`, then for each paper a line as `sha256sum`
    /// prints it.
    pub fn sha256(&self) -> String {
        let StatedLicence { id, name, link } = &self.stated;
        let mut text = String::new();
        for (key, value) in [("id", id), ("name", name), ("link", link)] {
            text.push_str(&format!("{key} {}\n", value.as_deref().unwrap_or_default()));
        }
        for paper in &self.papers {
            text.push_str(&format!("{}  {}\n", paper.sha256, paper.path));
        }
        hex(&Sha256::digest(text))
    }

    /// When these very terms were accepted for this repository before.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn accepted(
        &self,
        store: &Store,
        reference: &Reference,
    ) -> Result<Option<Acceptance>, HubError> {
        let path = store.licence_path(&reference.org, &reference.name, &self.sha256());
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|source| HubError::Io { path: path.clone(), source })?,
        };
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|e| StoreError::Manifest { path, message: e.to_string() })?;
        Ok(Some(record.licence).filter(|licence| licence.sha256 == self.sha256()))
    }

    /// Records that they were accepted now.
    ///
    /// # Errors
    /// A record that cannot be written.
    pub fn accept(&self, store: &Store, reference: &Reference) -> Result<Acceptance, HubError> {
        let id = self.id().map(str::to_owned);
        let licence = Acceptance { id, sha256: self.sha256(), accepted: now() };
        let papers = self.papers.iter().map(|p| (p.path.clone(), p.sha256.clone())).collect();
        let record = Record { repository: reference.repository(), licence, papers };
        let bytes = serde_json::to_vec_pretty(&record).expect("strings are JSON");
        let sha256 = &record.licence.sha256;
        store.write(&store.licence_path(&reference.org, &reference.name, sha256), &bytes)?;
        Ok(record.licence)
    }
}

impl Paper {
    /// Reads a licence file.
    pub(crate) fn read(path: &Path, name: &str) -> io::Result<Self> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_TEXT_BYTES).read_to_end(&mut bytes)?;
        Ok(Self::new(name, &bytes))
    }

    /// The licence file `name` with these bytes.
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        let text = shown::lines(&String::from_utf8_lossy(bytes));
        Self { path: name.to_owned(), sha256: hex(&Sha256::digest(bytes)), text }
    }
}

/// Whether a file of this name says what may be done with a model: a licence, a notice or a use policy. Files of
/// weights, code or data are none, whatever they are called; nor is a name that could leave its folder.
pub fn is_paper(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let ending = lower.rsplit_once('.').map_or("", |(_, ending)| ending);
    PAPER_STARTS.iter().any(|start| lower.starts_with(start))
        && OTHER_ENDINGS.split(' ').all(|other| other != ending)
        && !name.contains('/')
        && check_path(name).is_ok()
}

/// The licence of a model, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licence {
    /// Its identifier.
    pub id: Option<String>,
    /// SHA-256 of its text, or of all that was accepted.
    pub sha256: Option<String>,
    /// When it was accepted, UTC.
    pub accepted: Option<String>,
    /// Where this is known from.
    pub source: String,
}

/// The licence of a model: of a pulled one as it was accepted, of others as their files say; `None` if they do not.
///
/// # Errors
/// No such model.
pub fn licence_of(
    model: &str,
    checkpoint: &Checkpoint,
    options: &OpenOptions,
) -> Result<Option<Licence>, HubError> {
    Ok(of_place(locate(model, options)?, checkpoint))
}

/// The licence of the model at `place`; adapters are under that of the model they were made from.
fn of_place(place: Place, checkpoint: &Checkpoint) -> Option<Licence> {
    match place {
        Place::Adapters { base, .. } => of_place(*base, checkpoint),
        Place::Pulled { manifest, .. } => {
            let Acceptance { id, sha256, accepted } = manifest.licence;
            let source = "accepted when it was pulled".to_owned();
            Some(Licence { id, sha256: Some(sha256), accepted: Some(accepted), source })
        }
        Place::BuiltIn(model) => stated_in(checkpoint).or_else(|| {
            let (id, source) = model.licence?;
            let (id, source) = (Some(id.to_owned()), source.to_owned());
            Some(Licence { id, sha256: None, accepted: None, source })
        }),
        Place::Path(path) => {
            stated_in(checkpoint).or_else(|| embedded_in(checkpoint)).or_else(|| beside(&path))
        }
    }
}

/// What the metadata of a GGUF file state.
fn stated_in(checkpoint: &Checkpoint) -> Option<Licence> {
    let key = "general.license";
    let (_, id) = checkpoint.metadata.iter().find(|(k, v)| k == key && !v.is_empty())?;
    let (id, source) = (Some(id.trim_matches('"').to_owned()), key.to_owned());
    Some(Licence { id, sha256: None, accepted: None, source })
}

/// What the first licence file inside a GGUF file says.
fn embedded_in(checkpoint: &Checkpoint) -> Option<Licence> {
    let texts = checkpoint.gguf_metadata.iter().filter_map(|(key, value)| match value {
        Value::String(text) => Some((key.strip_prefix(FILE_KEY)?, text)),
        _ => None,
    });
    let (name, text) = texts.filter(|(name, _)| is_licence(name)).min_by_key(|(name, _)| *name)?;
    Some(Licence::of(Paper::new(name, text.as_bytes()), format!("{FILE_KEY}{name}")))
}

/// What the first licence file in the model's folder says.
fn beside(path: &Path) -> Option<Licence> {
    let folder = if path.is_dir() { path } else { path.parent()? };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let names =
        fs::read_dir(folder).ok()?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let name = names.filter(|name| is_licence(name) && folder.join(name).is_file()).min()?;
    let path = folder.join(&name);
    Some(Licence::of(Paper::read(&path, &name).ok()?, path.display().to_string()))
}

impl Licence {
    /// What is known from a licence's text.
    fn of(paper: Paper, source: String) -> Self {
        let id = is_llama2_text(&paper.text).then(|| "llama2".to_owned());
        Self { id, sha256: Some(paper.sha256), accepted: None, source }
    }
}

/// Whether a file of this name is a licence, rather than a notice or a policy.
fn is_licence(name: &str) -> bool {
    is_paper(name) && name.to_ascii_lowercase().starts_with("licen")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(id: Option<&str>, text: &str) -> Terms {
        let stated = StatedLicence { id: id.map(str::to_owned), ..StatedLicence::default() };
        let sha256 = hex(&Sha256::digest(text));
        let paper = Paper { path: "LICENSE".to_owned(), sha256, text: text.to_owned() };
        Terms { stated, papers: vec![paper] }
    }

    #[test]
    fn papers_are_told_from_weights_and_code() {
        for name in [
            "LICENSE",
            "LICENSE.txt",
            "LICENSE.llama2",
            "LICENSE.MIT",
            "Licence-2.0.md",
            "COPYING",
            "Notice",
            "USE_POLICY.md",
            "use-policy.md",
        ] {
            assert!(is_paper(name), "{name}");
        }
        for name in [
            "notice-7b.Q4_0.gguf",
            "license.json",
            "LICENSES.PY",
            "license.safetensors",
            "README.md",
            "unlicensed",
            "sub/LICENSE",
            "LICENSE\\x",
            "NOTICE\0",
            "LICENSE\x1b[2J",
            "",
        ] {
            assert!(!is_paper(name), "{name:?}");
        }
    }

    #[test]
    fn llama_2_is_known_by_its_card_or_its_text() {
        let text =
            "LLAMA 2 COMMUNITY\n LICENSE AGREEMENT\nLlama 2 Version Release Date: July 18, 2023";
        for (terms, expected) in [
            (terms(Some("llama2"), ""), Some("llama2")),
            (terms(None, text), Some("llama2")),
            (terms(Some("other"), text), Some("llama2")),
        ] {
            assert_eq!((terms.is_llama2(), terms.id()), (true, expected));
        }
        for (name, link) in [("Llama-2", ""), ("", "https://ai.meta.com/llama/license/")] {
            let [id, name, link] = ["other", name, link].map(|text| Some(text.to_owned()));
            let terms = Terms { stated: StatedLicence { id, name, link }, papers: Vec::new() };
            assert!(terms.is_llama2(), "{:?}", terms.stated);
        }
        let mit = terms(Some("mit"), "MIT License");
        assert_eq!((mit.is_llama2(), mit.id()), (false, Some("mit")));
        assert_eq!(terms(None, "some text").id(), None);
    }

    #[test]
    fn terms_are_accepted_once_and_anew_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let reference = Reference::parse("o/n").unwrap();
        let first = terms(Some("mit"), "one");
        assert_eq!(first.accepted(&store, &reference).unwrap(), None);
        let acceptance = first.accept(&store, &reference).unwrap();
        assert_eq!(first.accepted(&store, &reference).unwrap(), Some(acceptance));
        assert_eq!(terms(Some("mit"), "two").accepted(&store, &reference).unwrap(), None);
        assert_eq!(terms(None, "one").accepted(&store, &reference).unwrap(), None);
        assert_eq!(first.accepted(&store, &Reference::parse("o/m").unwrap()).unwrap(), None);
    }

    #[test]
    fn a_models_own_files_tell_its_licence() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("hf");
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(puna_testkit::testdata("models/mha/hf")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
        let options = OpenOptions::default();
        let licence = |model: &str| {
            let checkpoint = crate::open_checkpoint(model, &options).unwrap();
            licence_of(model, &checkpoint, &options).unwrap()
        };
        let model = folder.to_str().unwrap();
        assert_eq!(licence(model), None);
        fs::write(folder.join("LICENSE.txt"), "LLAMA 2 COMMUNITY LICENSE AGREEMENT").unwrap();
        let found = licence(model).unwrap();
        assert_eq!((found.id.as_deref(), found.accepted), (Some("llama2"), None));
        assert!(found.source.ends_with("LICENSE.txt") && found.sha256.is_some());
        assert_eq!(licence("stories260K").unwrap().id.as_deref(), Some("MIT"));
        // Inside a GGUF file.
        let mut checkpoint = crate::open_checkpoint(model, &options).unwrap();
        for (name, text) in [("NOTICE", "Llama 2 is"), ("LICENSE.txt", "some terms")] {
            let value = Value::String(text.to_owned());
            checkpoint.gguf_metadata.push((format!("puna.file.{name}"), value));
        }
        let found = licence_of(model, &checkpoint, &options).unwrap().unwrap();
        assert_eq!((&*found.source, found.id), ("puna.file.LICENSE.txt", None));
        assert_eq!(found.sha256, Some(hex(&Sha256::digest("some terms"))));
    }

    #[test]
    fn the_text_that_is_shown_controls_no_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LICENSE");
        fs::write(&path, b"a\x1b[2Jb\r\n\tc\x07\xff").unwrap();
        assert_eq!(Paper::read(&path, "LICENSE").unwrap().text, "a[2Jb\n\tc\u{fffd}");
    }
}
