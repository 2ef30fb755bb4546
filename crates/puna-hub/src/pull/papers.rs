//! The files that say what may be done with a model. They are fetched into memory: before they are accepted nothing of
//! the model is kept.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::http::{self, Failure};
use super::{Checksum, Hub, Listing, PullError, Reference, RemoteFile, Selection, Watch};
use crate::HubError;
use crate::licence::{MAX_TEXT_BYTES, Paper, Terms, is_paper};
use crate::store::hex;

/// Most such files of a model.
const MAX_PAPERS: usize = 32;

/// Most bytes of all of them; Llama 2's have below 20 kB.
const MAX_BYTES: u64 = 4 << 20;

impl Hub {
    /// Fetches the files that say what may be done with the model.
    ///
    /// # Errors
    /// More of them than anybody reads; no network, no access, wrong sizes or checksums; [`HubError::Stopped`].
    pub fn terms(
        &self,
        reference: &Reference,
        listing: &Listing,
        selection: &Selection,
        watch: Watch<'_>,
    ) -> Result<Terms, HubError> {
        let is_text = |file: &&RemoteFile| is_paper(&file.path) && file.size <= MAX_TEXT_BYTES;
        let files: Vec<&RemoteFile> = selection.files.iter().filter(is_text).collect();
        let n_bytes = files.iter().map(|file| file.size).sum::<u64>();
        if files.len() > MAX_PAPERS || n_bytes > MAX_BYTES {
            let found = format!("{} files of {n_bytes} bytes", files.len());
            let message = format!(
                "licences and notices: expected at most {MAX_PAPERS} files of {MAX_BYTES} bytes, found {found}"
            );
            return Err(PullError::Files { repository: reference.repository(), message }.into());
        }
        let papers = files.iter().map(|file| self.paper(reference, listing, file, watch));
        let papers = papers.collect::<Result<_, _>>()?;
        Ok(Terms { stated: listing.licence.clone(), papers })
    }

    fn paper(
        &self,
        reference: &Reference,
        listing: &Listing,
        file: &RemoteFile,
        watch: Watch<'_>,
    ) -> Result<Paper, HubError> {
        let url = self.url_of(reference, listing, file);
        let bytes = self.with_retries(watch, || {
            let response = self.client.get(&url, None)?;
            let mut response = self.successful(reference, &url, response)?;
            // One byte more shows that it is longer.
            let body = response.body_mut().with_config().limit(MAX_TEXT_BYTES + 1);
            let bytes = body.read_to_vec().map_err(|e| http::failure(&url, &e))?;
            match bytes.len() as u64 {
                n if n < file.size => {
                    Err(Failure::passing(&url, "the connection was closed early"))
                }
                n if n > file.size => Err(Failure::lasting(PullError::Size {
                    file: file.path.clone(),
                    expected: file.size,
                    found: n.to_string(),
                })),
                _ => Ok(bytes),
            }
        })?;
        check_sum(file, &bytes)?;
        Ok(Paper::new(&file.path, &bytes))
    }
}

/// Refuses bytes that are not the ones the hub promised.
fn check_sum(file: &RemoteFile, bytes: &[u8]) -> Result<(), PullError> {
    let found = match file.checksum {
        Checksum::Sha256(_) => hex(&Sha256::digest(bytes)),
        Checksum::Git(_) => {
            let header = format!("blob {}\0", bytes.len());
            hex(&Sha1::new().chain_update(header).chain_update(bytes).finalize())
        }
    };
    let expected = file.checksum.digits();
    if found == expected {
        return Ok(());
    }
    Err(PullError::Checksum { file: file.path.clone(), expected: expected.to_owned(), found })
}
