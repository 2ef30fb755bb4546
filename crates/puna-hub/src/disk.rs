//! Room on a disk, asked for before work that would fill it, and how bytes are told.

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

/// Bytes as people read them, in decimal units: `812 B`, `4.6 GB`.
pub fn bytes_text(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = n as f64;
    let mut idx = 0;
    // 999.95 would print as 1000.0 of the smaller unit.
    while value >= 999.95 && idx + 1 < UNITS.len() {
        value /= 1000.0;
        idx += 1;
    }
    let digits = usize::from(idx > 0 && value < 99.95);
    format!("{value:.digits$} {}", UNITS[idx])
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
    fn sizes_read_well() {
        for (n, expected) in [
            (812, "812 B"),
            (1_056_540, "1.1 MB"),
            (999_960, "1.0 MB"),
            (4_601_000_000, "4.6 GB"),
            (123_400_000, "123 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes_text(n), expected);
        }
    }

    #[test]
    fn what_is_free_passes_and_more_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("not/yet/there.gguf");
        check_free(&file, 1).unwrap();
        check_free(Path::new("not-yet-there.gguf"), 1).unwrap();
        let message = check_free(&file, u64::MAX).unwrap_err().to_string();
        assert!(message.contains("there.gguf: needs 18.4 EB, only "), "{message}");
        assert!(message.ends_with("B are free on its disk"), "{message}");
    }
}
