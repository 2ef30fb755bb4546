//! What a repository has, as the hub describes it: `GET /api/models/ORG/NAME/revision/REVISION?blobs=true`.

use serde::Deserialize;
use serde_json::Value;

use crate::shown;
use crate::store::{check_path, is_hex};

/// Most files of a repository.
const MAX_FILES: usize = 100_000;

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// Its files, in the hub's order. Their paths stay in their folder on any system.
    pub files: Vec<RemoteFile>,
    /// What is wrong with the paths of files that were left out.
    pub left_out: Vec<String>,
    /// The licence that its card states.
    pub licence: StatedLicence,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path, with `/`.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Its checksum.
    pub checksum: Checksum,
}

/// The checksum by which the hub knows a file, in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Of a large file.
    Sha256(String),
    /// Of a small one: git's name for it, SHA-1 over a header and its bytes.
    Git(String),
}

/// What a repository's card says about its licence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatedLicence {
    /// The identifier: `llama2`, `apache-2.0`, `other`.
    pub id: Option<String>,
    /// The name, where the identifier is `other`.
    pub name: Option<String>,
    /// Where its text is.
    pub link: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    sha: String,
    siblings: Vec<WireFile>,
    #[serde(default, rename = "cardData")]
    card: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFile {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<WireLfs>,
}

#[derive(Deserialize)]
struct WireLfs {
    size: u64,
    #[serde(alias = "oid")]
    sha256: String,
}

impl Listing {
    /// Reads the hub's answer.
    ///
    /// # Errors
    /// What is wrong with it. Files with bad paths are no error: they are left out.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::read(bytes).map_err(|message| shown::line(&message))
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if !is_hex(&wire.sha, 40) {
            return Err(format!("sha: expected 40 hexadecimal digits, found {:?}", wire.sha));
        }
        if wire.siblings.len() > MAX_FILES {
            return Err(format!(
                "expected at most {MAX_FILES} files, found {}",
                wire.siblings.len()
            ));
        }
        let (mut files, mut left_out) = (Vec::new(), Vec::new());
        for file in wire.siblings {
            let file = RemoteFile::from_wire(file)?;
            match check_path(&file.path) {
                Ok(()) => files.push(file),
                Err(message) => left_out.push(shown::line(&message)),
            }
        }
        let licence = wire.card.as_ref().map(StatedLicence::from_card).unwrap_or_default();
        Ok(Self { commit: wire.sha, files, left_out, licence })
    }
}

impl RemoteFile {
    fn from_wire(wire: WireFile) -> Result<Self, String> {
        let path = wire.rfilename;
        let (size, checksum) = match (wire.lfs, wire.size, wire.blob_id) {
            (Some(lfs), ..) if is_hex(&lfs.sha256, 64) => (lfs.size, Checksum::Sha256(lfs.sha256)),
            (None, Some(size), Some(id)) if is_hex(&id, 40) => (size, Checksum::Git(id)),
            _ => return Err(format!("{path:?}: expected a size and a checksum")),
        };
        // Offsets are signed on some systems.
        if i64::try_from(size).is_err() {
            return Err(format!("{path:?}: expected a size in bytes, found {size}"));
        }
        Ok(Self { path, size, checksum })
    }
}

impl Checksum {
    /// Its digits.
    pub(super) fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) => digits,
        }
    }
}

impl StatedLicence {
    fn from_card(card: &Value) -> Self {
        let text = |key: &str| {
            let value = match &card[key] {
                Value::Array(values) => values.first()?,
                value => value,
            };
            value.as_str().map(shown::line).filter(|text| !text.is_empty())
        };
        Self { id: text("license"), name: text("license_name"), link: text("license_link") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LFS: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const SHA1: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn reads_large_and_small_files_and_the_licence() {
        let text = format!(
            r#"{{"sha":"{SHA1}","gated":"manual","cardData":{{"license":["llama2"]}},"siblings":[
                {{"rfilename":"a.gguf","size":7,"blobId":"{SHA1}",
                  "lfs":{{"sha256":"{LFS}","size":7,"pointerSize":130}}}},
                {{"rfilename":"README.md","size":3,"blobId":"{SHA1}"}}]}}"#
        );
        let listing = Listing::parse(text.as_bytes()).unwrap();
        assert_eq!(listing.licence.id.as_deref(), Some("llama2"));
        assert_eq!(listing.files[0].checksum, Checksum::Sha256(LFS.to_owned()));
        assert_eq!(
            (listing.files[1].size, &listing.files[1].checksum),
            (3, &Checksum::Git(SHA1.to_owned()))
        );
    }

    #[test]
    fn nothing_of_it_controls_a_terminal() {
        let path = "a\\u001b[2J.gguf";
        let long = "x".repeat(1000);
        let text = format!(
            r#"{{"sha":"{SHA1}","cardData":{{"license":"other","license_name":"a\u001b]0;b\u0007",
                "license_link":"{long}"}},"siblings":[{{"rfilename":"{path}","size":3,"blobId":"{SHA1}"}},
                {{"rfilename":"b.gguf","size":3,"blobId":"{SHA1}"}}]}}"#
        );
        let listing = Listing::parse(text.as_bytes()).unwrap();
        assert_eq!(listing.licence.name.as_deref(), Some("a]0;b"));
        assert!(listing.licence.link.unwrap().len() < 500);
        let paths: Vec<&str> = listing.files.iter().map(|file| &*file.path).collect();
        assert_eq!(paths, ["b.gguf"]);
        assert_eq!(listing.left_out.len(), 1);
        assert!(!listing.left_out[0].contains('\x1b'), "{:?}", listing.left_out);
    }

    #[test]
    fn says_what_is_wrong() {
        let check = |text: &str, expected: &str| {
            let message = Listing::parse(text.as_bytes()).unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        check("", "EOF");
        check(r#"{"sha":"x","siblings":[]}"#, "40 hexadecimal digits");
        let file = |file: &str| format!(r#"{{"sha":"{SHA1}","siblings":[{file}]}}"#);
        check(&file(r#"{"rfilename":"a"}"#), "\"a\": expected a size and a checksum");
        check(&file(r#"{"rfilename":"a","size":-1}"#), "invalid value");
        check(
            &file(&format!(r#"{{"rfilename":"a","size":18446744073709551615,"blobId":"{SHA1}"}}"#)),
            "expected a size in bytes",
        );
    }
}
