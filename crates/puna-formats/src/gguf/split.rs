//! Which tensors go into which part of a split model, and what the parts are called: as llama.cpp splits.

use std::path::{Path, PathBuf};

/// Parts of one split model; llama.cpp's names leave five digits.
pub(super) const MAX_PARTS: usize = 99_999;

/// Splits llama.cpp's name for a part, `NAME-00001-of-00003.gguf`, into the name, the number and the count.
pub(super) fn split_name(name: &str) -> Option<(&str, usize, usize)> {
    let number = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    };
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    Some((stem, number(no)?, number(count)?))
}

/// The paths of all parts of a model called `stem` in the folder of `path`.
pub(super) fn part_paths(path: &Path, stem: &str, n_parts: usize) -> Vec<PathBuf> {
    (1..=n_parts)
        .map(|no| path.with_file_name(format!("{stem}-{no:05}-of-{n_parts:05}.gguf")))
        .collect()
}

/// Cuts tensors of these sizes into parts of at most `max_bytes`, in order; a larger tensor has a part to itself.
/// Returns the number of tensors in each part.
pub(crate) fn part_lens(sizes: impl Iterator<Item = u64>, max_bytes: u64) -> Vec<usize> {
    let mut lens = vec![0];
    let mut part_bytes = 0u64;
    for size in sizes {
        let last = lens.len() - 1;
        let with_this = part_bytes.saturating_add(size);
        if with_this <= max_bytes || lens[last] == 0 {
            lens[last] += 1;
            part_bytes = with_this;
        } else {
            lens.push(1);
            part_bytes = size;
        }
    }
    lens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_filled_in_order() {
        let lens = |max_bytes| part_lens([3, 3, 10, 1, 1].into_iter(), max_bytes);
        assert_eq!(lens(u64::MAX), [5]);
        assert_eq!(lens(6), [2, 1, 2]);
        assert_eq!(lens(1), [1, 1, 1, 1, 1]);
        assert_eq!(part_lens(std::iter::empty(), 1), [0]);
    }

    #[test]
    fn names_read_back() {
        let paths = part_paths(Path::new("a/m.gguf"), "m", 2);
        assert_eq!(paths[1], Path::new("a/m-00002-of-00002.gguf"));
        assert_eq!(split_name("m-00002-of-00002.gguf"), Some(("m", 2, 2)));
        assert_eq!(split_name("m-2-of-00002.gguf"), None);
    }
}
