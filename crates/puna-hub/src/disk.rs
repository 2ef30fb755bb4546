//! Room on a disk, asked for before work that would fill it.

use std::path::Path;

use crate::HubError;

/// Refuses to write `needed` bytes below `path`, which need not exist yet, where fewer are free for this user.
///
/// # Errors
/// [`HubError::NoSpace`], or a disk that does not say what is free.
pub fn check_free(path: &Path, needed: u64) -> Result<(), HubError> {
    let there = nearest_existing(path);
    let io_error = |source| HubError::Io { path: there.to_path_buf(), source };
    let free = fs4::available_space(there).map_err(io_error)?;
    if needed > free {
        return Err(HubError::NoSpace { path: path.to_path_buf(), needed, free });
    }
    Ok(())
}

/// `path`, or the nearest folder above it that is there; it lies on the same disk.
fn nearest_existing(path: &Path) -> &Path {
    let is_named = |folder: &&Path| !folder.as_os_str().is_empty();
    path.ancestors().filter(is_named).find(|folder| folder.exists()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_passes_and_more_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not/yet/there.gguf");
        check_free(&file, 1).unwrap();
        check_free(Path::new("not-yet-there.gguf"), 1).unwrap();
        let message = check_free(&file, u64::MAX).unwrap_err().to_string();
        assert!(message.contains("there.gguf: needs 18446744073709.6 MB, only "), "{message}");
        assert!(message.ends_with(" MB are free on its disk"), "{message}");
    }
}
