//! Builds small corpora in a folder of their own.

#![allow(dead_code, unreachable_pub, reason = "shared by several test programs, each using a part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use puna_core::Rng;
use puna_data::{Config, Corpus, DataError, Job, Manifest};

/// A folder with texts in it, and corpora built of them.
pub struct Desk(tempfile::TempDir);

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file; what its name ends in says how it is packed.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, packed(name, bytes.as_ref())).unwrap();
        path
    }

    /// Builds in a new folder called `out`.
    pub fn build(&self, out: &str, config: &str) -> Result<Manifest, DataError> {
        self.build_with(out, config, 2)
    }

    pub fn build_with(
        &self,
        out: &str,
        config: &str,
        n_threads: usize,
    ) -> Result<Manifest, DataError> {
        let name = self.path("config.toml").display().to_string();
        let config = Config::parse(&name, config)?;
        let out = self.path(out);
        fs::create_dir(&out).unwrap();
        let job = Job { config: &config, texts: self.0.path(), tokenizer: &tokenizer(), n_threads };
        puna_data::build(&job, &out, &mut |_, _| true)
    }

    pub fn open(&self, out: &str) -> Corpus {
        Corpus::open(&self.path(out)).unwrap()
    }

    /// The message of a build that must fail, with the desk's own folder cut off.
    #[track_caller]
    pub fn refused(&self, config: &str) -> String {
        let out = format!("refused-{}", fs::read_dir(self.0.path()).unwrap().count());
        let message = self.build(&out, config).expect_err("it is refused").to_string();
        assert!(!self.path(&out).join("manifest.json").exists(), "a manifest of a failed build");
        message.replace(&format!("{}{}", self.0.path().display(), std::path::MAIN_SEPARATOR), "")
    }
}

pub fn tokenizer() -> PathBuf {
    puna_testkit::workspace_root().join("models/stories260K.tokenizer.model")
}

/// Every file of a folder with its bytes.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

fn packed(name: &str, bytes: &[u8]) -> Vec<u8> {
    if name.ends_with(".zst") {
        return zstd::encode_all(bytes, 1).unwrap();
    }
    if name.ends_with(".gz") {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        return out.finish().unwrap();
    }
    bytes.to_vec()
}

/// Documents of a few paragraphs, all different.
pub fn stories(n: usize, seed: u64) -> Vec<String> {
    const WORDS: [&str; 16] = [
        "the", "little", "bear", "went", "to", "a", "river", "and", "saw", "Zoë", "fish", "who",
        "sang", "of", "home", "again",
    ];
    let story = |i: usize| {
        let mut rng = Rng::new(seed, i as u64);
        let mut story = format!("Story {seed}-{i}");
        for word in 0..40 + rng.next_u32() as usize % 400 {
            story.push_str(if word % 60 == 0 { "\n\n" } else { " " });
            story.push_str(WORDS[rng.next_u32() as usize % WORDS.len()]);
        }
        story
    };
    (0..n).map(story).collect()
}

/// Documents as plain text.
pub fn as_text(documents: &[String]) -> String {
    documents.join("\n<|end|>\n")
}

/// A configuration of one source, `a`, of this file, with more lines at its top and in the source.
pub fn config(top: &str, path: &str, source: &str) -> String {
    let format = if path.contains(".jsonl") {
        "format = \"jsonl\""
    } else if path.contains(".parquet") {
        "format = \"parquet\""
    } else {
        "format = \"text\"\nmarker = \"<|end|>\""
    };
    format!(
        "{top}\n[[source]]\nname = \"a\"\npaths = [\"{path}\"]\n{format}\nweight = 1\n{RIGHTS}\n{source}\n"
    )
}

pub const RIGHTS: &str = "origin = \"made up\"\nlicence = \"none\"";

/// All ids of a split of a source, by way of its files.
pub fn ids(folder: &Path, side: &str, source: &str) -> Vec<u32> {
    let files = files(folder);
    let stem = format!("{side}.{source}.");
    let shards = files.iter().filter(|(name, _)| name.starts_with(&stem));
    let ids = shards.flat_map(|(_, bytes)| bytes[80..].chunks_exact(2));
    ids.map(|id| u32::from(u16::from_le_bytes([id[0], id[1]]))).collect()
}

/// The documents of a split, decoded.
pub fn decoded(corpus: &Corpus, side: &str, source: &str) -> Vec<String> {
    let ids = ids(corpus.folder(), side, source);
    let documents = ids.split(|&id| id == 1).skip(1);
    let text = |ids: &[u32]| {
        assert_eq!(ids.last(), Some(&2), "a document ends with EOS");
        corpus.tokenizer().decode(ids)
    };
    documents.map(text).collect()
}
