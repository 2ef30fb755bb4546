//! Files of `torch.save`: a dictionary from names to tensors.
//!
//! Since PyTorch 1.6 such a file is a zip archive: `NAME/data.pkl` is a pickle in which each tensor refers to a
//! storage by a key, and `NAME/data/KEY` holds that storage's bytes, uncompressed, so that they can be used
//! where the file is mapped. Before, it was one stream of pickles followed by the storages. Both are read.
//!
//! A pickle is a program. The machine here knows the few instructions and the few names that tensors need,
//! builds plain values and calls nothing: whatever else a file asks for is an error that names it.

mod legacy;
mod machine;
mod object;
mod opcode;
mod storage;
mod zip;

use puna_core::SharedBytes;

use crate::FormatError;
use crate::listed::Listed;
pub use machine::{MAX_OBJECTS, MAX_PICKLE_BYTES};

/// Whether the bytes begin like a file of `torch.save`.
pub(crate) fn is_torch(bytes: &[u8]) -> bool {
    zip::is_zip(bytes) || legacy::is_legacy(bytes)
}

/// Lists the tensors of a file, whose name for messages is `file`.
pub(crate) fn parse(file: &str, bytes: &SharedBytes) -> Result<Vec<Listed>, FormatError> {
    if zip::is_zip(bytes) {
        zip::parse(file, bytes)
    } else if legacy::is_legacy(bytes) {
        legacy::parse(file, bytes)
    } else {
        let found = bytes[..bytes.len().min(8)].escape_ascii();
        Err(FormatError::malformed(file, "beginning", "a file of torch.save", found))
    }
}

/// Checks a file without keeping anything of it.
///
/// # Errors
/// It is no sound file of `torch.save`, or holds anything but tensors.
pub fn check(file: &str, bytes: &SharedBytes) -> Result<(), FormatError> {
    parse(file, bytes).map(drop)
}

/// Runs a bare pickle, for tests of the machine itself.
///
/// # Errors
/// It is not the pickle of a dictionary of tensors.
pub fn check_pickle(file: &str, bytes: &[u8]) -> Result<(), FormatError> {
    let mut machine = machine::Machine::new(file, bytes);
    let top = machine.run()?;
    machine.tensors(top).map(drop)
}
