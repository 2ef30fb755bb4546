//! What the fuzz targets of `puna-hub` do with an input. The crate's own tests include this file to replay the seeds.
#![allow(dead_code, reason = "each user takes one function or all")]

use std::collections::HashSet;

use puna_hub::pull::{Listing, Reference, choices, select};
use puna_hub::store::Manifest;

/// What a hub says about a repository. Whatever is chosen of it stays in its folder.
pub(crate) fn listing(data: &[u8]) -> bool {
    let Ok(listing) = Listing::parse(data) else { return false };
    assert!(listing.files.iter().all(|file| stays_inside(&file.path)));
    let wanted = choices(&listing).into_iter().map(|choice| Some(choice.name));
    for wanted in wanted.chain([None, Some("Q4_0".to_owned())]) {
        let mut reference = Reference::parse("org/name").expect("a repository's name");
        reference.wanted = wanted;
        if let Ok(selection) = select(&listing, &reference) {
            assert!(selection.files.iter().all(|file| stays_inside(&file.path)));
            assert!(are_distinct(selection.files.iter().map(|file| &*file.path)));
        }
    }
    true
}

/// The description of a pulled model.
pub(crate) fn manifest(data: &[u8]) -> bool {
    let Ok(manifest) = Manifest::parse(data) else { return false };
    assert!(manifest.files.iter().all(|file| stays_inside(&file.path)));
    assert!(are_distinct(manifest.files.iter().map(|file| &*file.path)));
    assert!(manifest.open.is_empty() || stays_inside(&manifest.open));
    // The sum was checked.
    manifest.n_bytes() < u64::MAX
}

/// Whether no two paths are one file's, case aside.
fn are_distinct<'a>(paths: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = HashSet::new();
    paths.map(str::to_lowercase).all(|path| seen.insert(path))
}

fn stays_inside(path: &str) -> bool {
    let part_is_name =
        |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
    path.split('/').all(part_is_name)
}
