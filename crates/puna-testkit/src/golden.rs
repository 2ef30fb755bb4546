//! Golden arrays: a reader for the safetensors files that the scripts in `testdata/scripts` write.
//!
//! Layout: a little-endian u64, the length of a JSON header; the header, which maps each name to
//! `{"dtype", "shape", "data_offsets": [begin, end]}`; the data, to which the offsets refer.
//! `__metadata__` holds strings. Anything unexpected panics: these are our own committed files.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{shared_data, workspace_root};

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// What a model answers when the most likely token is taken every time.
#[derive(Deserialize)]
pub struct GreedyCase {
    /// The model's file, relative to the workspace; a bare name lies in the shared data's `weights`.
    pub file: String,
    /// The prompt, BOS first.
    pub prompt_ids: Vec<u32>,
    /// The tokens after it.
    pub tokens: Vec<u32>,
}

impl GreedyCase {
    /// All cases of a JSON file that `stories_golden.py` or `llama_cpp_golden.py` wrote.
    ///
    /// # Panics
    /// When the file cannot be read or is malformed.
    #[must_use]
    pub fn read_all(path: impl AsRef<Path>) -> Vec<Self> {
        let name = path.as_ref().display().to_string();
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Where the file lies on this machine; nothing when it is not part of the repository and the
    /// shared data is absent.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        if self.file.contains('/') {
            return Some(workspace_root().join(&self.file));
        }
        Some(shared_data()?.join("weights").join(&self.file))
    }
}

/// One golden file, read whole.
pub struct Golden {
    name: String,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
    data: Vec<u8>,
}

impl Golden {
    /// Reads a safetensors file.
    ///
    /// # Panics
    /// When the file cannot be read or is malformed.
    #[must_use]
    pub fn open(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (length, rest) = bytes.split_first_chunk::<8>().expect("a header length");
        let length = usize::try_from(u64::from_le_bytes(*length)).expect("a header length");
        let (header, data) = rest.split_at(length);
        let mut header: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(header).unwrap_or_else(|e| panic!("{name}: {e}"));
        let metadata = header.remove("__metadata__").map_or_else(BTreeMap::new, |value| {
            serde_json::from_value(value).unwrap_or_else(|e| panic!("{name}: metadata: {e}"))
        });
        let entries = header
            .into_iter()
            .map(|(key, value)| {
                let entry = serde_json::from_value(value);
                let entry = entry.unwrap_or_else(|e| panic!("{name}: {key}: {e}"));
                (key, entry)
            })
            .collect();
        Self { name, entries, metadata, data: data.to_vec() }
    }

    /// The names of all arrays, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A string of the file's metadata.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn metadata(&self, key: &str) -> &str {
        self.metadata.get(key).unwrap_or_else(|| panic!("{}: no metadata {key}", self.name))
    }

    /// The shape of an array, outermost dimension first.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.entry(name).shape
    }

    /// An f32 array, row-major.
    ///
    /// # Panics
    /// When there is none of that name, or it holds another type.
    #[must_use]
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.elements(name, "F32", f32::from_le_bytes)
    }

    /// An i32 array as the unsigned numbers it holds, for token ids.
    ///
    /// # Panics
    /// When there is none of that name, it holds another type, or a number is negative.
    #[must_use]
    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.elements(name, "I32", |b| u32::try_from(i32::from_le_bytes(b)).expect("an id"))
    }

    /// The bytes of a u8 array.
    ///
    /// # Panics
    /// When there is none of that name, or it holds another type.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.elements(name, "U8", |[byte]: [u8; 1]| byte)
    }

    fn entry(&self, name: &str) -> &Entry {
        self.entries.get(name).unwrap_or_else(|| panic!("{}: no array {name}", self.name))
    }

    fn elements<const N: usize, T>(
        &self,
        name: &str,
        dtype: &str,
        decode: fn([u8; N]) -> T,
    ) -> Vec<T> {
        let entry = self.entry(name);
        assert_eq!(entry.dtype, dtype, "{}: {name}: type", self.name);
        let (begin, end) = entry.data_offsets;
        let (chunks, rest) = self.data[begin..end].as_chunks::<N>();
        assert!(rest.is_empty(), "{}: {name}: a part of an element", self.name);
        let count: usize = entry.shape.iter().product();
        assert_eq!(chunks.len(), count, "{}: {name}: elements", self.name);
        chunks.iter().map(|&chunk| decode(chunk)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, header: &str, data: &[u8]) -> Golden {
        let path = std::env::temp_dir().join(format!("puna-golden-{}-{name}", std::process::id()));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        std::fs::write(&path, bytes).unwrap();
        let golden = Golden::open(&path);
        std::fs::remove_file(&path).unwrap();
        golden
    }

    #[test]
    fn arrays_and_metadata_come_back() {
        let header = r#"{"__metadata__":{"by":"hand"},
            "x":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
            "ids":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}}"#;
        let mut data = Vec::new();
        data.extend(1.5f32.to_le_bytes());
        data.extend((-2f32).to_le_bytes());
        data.extend(7i32.to_le_bytes());
        let golden = written("whole", header, &data);
        assert_eq!(golden.names().collect::<Vec<_>>(), ["ids", "x"]);
        assert_eq!(golden.metadata("by"), "hand");
        assert_eq!(golden.shape("x"), [1, 2]);
        assert_eq!(golden.f32("x"), [1.5, -2.0]);
        assert_eq!(golden.ids("ids"), [7]);
    }

    #[test]
    #[should_panic(expected = "type")]
    fn another_type_is_a_failure() {
        let header = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let _ = written("type", header, &[0; 4]).ids("x");
    }
}
