//! Which files of a repository make up the model that was asked for.

use super::{Listing, PullError, Reference, RemoteFile};
use crate::licence::{MAX_TEXT_BYTES, is_paper};
use crate::near_matches;
use crate::store::{MAX_FILES, check_distinct, check_path};

/// The files of one model of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// What tells this model from others of its repository; `None` if it has only one.
    pub tag: Option<String>,
    /// What it is, for people.
    pub form: String,
    /// What to open, as a path in its folder; empty for the folder itself.
    pub open: String,
    /// Its files.
    pub files: Vec<RemoteFile>,
}

/// A model that a repository offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What to name it by: its type, or its file where the type does not tell.
    pub name: String,
    /// Its first file.
    pub file: String,
    /// Bytes of all its files.
    pub n_bytes: u64,
}

/// Files that a Hugging Face folder is read from, beside its weights.
const HF_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// The same for Meta's form, and for single files.
const OTHER_FILES: [&str; 4] =
    ["params.json", "tokenizer.model", "tokenizer.json", "tokenizer.bin"];

/// Chooses the files that `reference` asks for.
///
/// # Errors
/// No such file or type, no model, or several of which one must be named.
pub fn select(listing: &Listing, reference: &Reference) -> Result<Selection, PullError> {
    let mut selection = match &reference.wanted {
        Some(wanted) => named(listing, reference, wanted)?,
        None => only_model(listing, reference)?,
    };
    let papers = listing.files.iter().filter(|f| comes_along(&f.path) && f.size <= MAX_TEXT_BYTES);
    let papers = papers.filter(|paper| !selection.files.iter().any(|f| f.path == paper.path));
    let papers: Vec<RemoteFile> = papers.cloned().collect();
    selection.files.extend(papers);
    check_files(&selection.files)
        .map_err(|message| PullError::Files { repository: reference.repository(), message })?;
    Ok(selection)
}

/// Refuses files that the store could not keep as one model.
fn check_files(files: &[RemoteFile]) -> Result<(), String> {
    if files.len() > MAX_FILES {
        return Err(format!(
            "expected at most {MAX_FILES} files of a model, found {}",
            files.len()
        ));
    }
    files.iter().try_for_each(|file| check_path(&file.path))?;
    check_distinct(files.iter().map(|file| file.path.as_str()))?;
    let total = files.iter().try_fold(0u64, |total, file| total.checked_add(file.size));
    total.map(drop).ok_or_else(|| "expected files that a disk can hold".to_owned())
}

/// The GGUF models that a repository offers, a split one once.
pub fn choices(listing: &Listing) -> Vec<Choice> {
    let firsts = listing
        .files
        .iter()
        .filter(|f| is_gguf(&f.path) && part_of(&f.path).is_none_or(|(_, n)| n == 1));
    let mut choices: Vec<Choice> = firsts
        .map(|first| Choice {
            name: type_in(&first.path).unwrap_or_else(|| first.path.clone()),
            file: first.path.clone(),
            n_bytes: parts(listing, &first.path).iter().map(|f| f.size).sum(),
        })
        .collect();
    // A type that several files have does not tell them apart.
    let names: Vec<String> = choices.iter().map(|c| c.name.clone()).collect();
    for choice in &mut choices {
        if names.iter().filter(|name| **name == choice.name).count() > 1 {
            choice.name.clone_from(&choice.file);
        }
    }
    choices
}

fn only_model(listing: &Listing, reference: &Reference) -> Result<Selection, PullError> {
    let repository = reference.repository();
    match choices(listing).as_slice() {
        [] => folder(listing).ok_or(PullError::NoModel { repository }),
        [one] => Ok(gguf(listing, &one.file, type_in(&one.file))),
        several => {
            let names = several.iter().map(|c| c.name.clone()).collect();
            Err(PullError::Several { repository, names })
        }
    }
}

fn named(listing: &Listing, reference: &Reference, wanted: &str) -> Result<Selection, PullError> {
    let choices = choices(listing);
    if let Some(choice) = choices.iter().find(|c| c.name.eq_ignore_ascii_case(wanted)) {
        return Ok(gguf(listing, &choice.file, Some(choice.name.clone())));
    }
    let is_wanted = |file: &&RemoteFile| file.path.eq_ignore_ascii_case(wanted);
    if let Some(file) = listing.files.iter().find(is_wanted) {
        return Ok(one_file(listing, &choices, file));
    }
    let of_type: Vec<String> = choices
        .iter()
        .filter(|c| type_in(&c.file).is_some_and(|t| t.eq_ignore_ascii_case(wanted)))
        .map(|c| c.file.clone())
        .collect();
    let repository = reference.repository();
    if !of_type.is_empty() {
        return Err(PullError::Several { repository, names: of_type });
    }
    let names: Vec<String> = choices.into_iter().map(|c| c.name).collect();
    let files = listing.files.iter().map(|f| f.path.as_str());
    let near = near_matches(wanted, names.iter().map(String::as_str).chain(files));
    let near = near.into_iter().take(3).map(str::to_owned).collect();
    let choices = if names.is_empty() { vec!["no GGUF file".to_owned()] } else { names };
    Err(PullError::NoFile { repository, wanted: wanted.to_owned(), near, choices })
}

/// A file that was named: a GGUF model with all its parts, the folder whose index it is, or the file with what it is
/// read together with.
fn one_file(listing: &Listing, choices: &[Choice], file: &RemoteFile) -> Selection {
    if is_gguf(&file.path) {
        let first = parts(listing, &file.path).first().map_or(&file.path, |f| &f.path).clone();
        let choice = choices.iter().find(|c| c.file == first);
        let tag = choice.map_or(&first, |c| &c.name).clone();
        return gguf(listing, &first, Some(tag));
    }
    if file.path.ends_with(".index.json")
        && !file.path.contains('/')
        && let Some(folder) = folder_with(listing, file.path.starts_with("pytorch_model"))
    {
        return folder;
    }
    let beside = HF_FILES.iter().chain(&OTHER_FILES);
    let mut files: Vec<RemoteFile> = vec![file.clone()];
    for name in beside {
        let found = listing.files.iter().find(|f| f.path == *name);
        files.extend(found.filter(|f| !files.iter().any(|own| own.path == f.path)).cloned());
    }
    let open = file.path.clone();
    Selection { tag: Some(open.clone()), form: "file".to_owned(), open, files }
}

fn gguf(listing: &Listing, first: &str, tag: Option<String>) -> Selection {
    let form = type_in(first).map_or("GGUF".to_owned(), |name| format!("GGUF {name}"));
    Selection { tag, form, open: first.to_owned(), files: parts(listing, first) }
}

/// The model that lies in the root of a repository without GGUF files.
fn folder(listing: &Listing) -> Option<Selection> {
    folder_with(listing, false).or_else(|| folder_with(listing, true)).or_else(|| meta(listing))
}

/// A Hugging Face folder with weights in safetensors, or in PyTorch's form.
fn folder_with(listing: &Listing, pytorch: bool) -> Option<Selection> {
    let (start, end, form) = if pytorch {
        ("pytorch_model", ".bin", "Hugging Face, PyTorch")
    } else {
        ("model", ".safetensors", "Hugging Face")
    };
    let index = format!("{start}{end}.index.json");
    let is_weight = |path: &str| path.starts_with(start) && path.ends_with(end);
    let has = |found: &dyn Fn(&str) -> bool| listing.files.iter().any(|f| found(&f.path));
    if !has(&|path| path == "config.json") || !has(&|path| is_weight(path) && !path.contains('/')) {
        return None;
    }
    let wanted = |path: &str| is_weight(path) || path == index || HF_FILES.contains(&path);
    Some(in_root(listing, form, wanted))
}

/// A folder as Meta hands it out.
fn meta(listing: &Listing) -> Option<Selection> {
    let is_weight = |path: &str| path.starts_with("consolidated.") && path.ends_with(".pth");
    let has = |found: &dyn Fn(&str) -> bool| listing.files.iter().any(|f| found(&f.path));
    if !has(&|path| path == "params.json") || !has(&is_weight) {
        return None;
    }
    Some(in_root(listing, "Meta", |path| is_weight(path) || OTHER_FILES.contains(&path)))
}

fn in_root(listing: &Listing, form: &str, wanted: impl Fn(&str) -> bool) -> Selection {
    let files = listing.files.iter().filter(|f| !f.path.contains('/') && wanted(&f.path));
    let files = files.cloned().collect();
    Selection { tag: None, form: form.to_owned(), open: String::new(), files }
}

/// Whether a file comes with every model: what may be done with it, and its card.
fn comes_along(path: &str) -> bool {
    is_paper(path) || path == "README.md"
}

fn is_gguf(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".gguf")
}

/// All parts of the GGUF model that `path` is of, in order.
fn parts(listing: &Listing, path: &str) -> Vec<RemoteFile> {
    let stem = part_of(path).map(|(stem, _)| stem);
    let is_part = |file: &&RemoteFile| match stem {
        Some(stem) => part_of(&file.path).is_some_and(|(other, _)| other == stem),
        None => file.path == path,
    };
    let mut parts: Vec<RemoteFile> = listing.files.iter().filter(is_part).cloned().collect();
    parts.sort_by(|a, b| a.path.cmp(&b.path));
    parts
}

/// For `STEM-00002-of-00003.gguf`: the stem, and 2.
fn part_of(path: &str) -> Option<(&str, u32)> {
    let rest = path.strip_suffix(".gguf")?;
    let (rest, total) = rest.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (digits(total) && digits(number)).then(|| number.parse().ok().map(|n| (stem, n))).flatten()
}

/// The type that a GGUF file's name tells: `Q4_K_M` in `llama-2-7b.Q4_K_M.gguf`, `F16` in `7b-f16.gguf`.
fn type_in(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?.to_ascii_uppercase();
    let name = name.strip_suffix(".GGUF")?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = name
        .char_indices()
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || !name[..at].ends_with(|c: char| c.is_ascii_alphanumeric()));
    let words = starts
        .map(|at| &name[at..])
        .map(|rest| rest.split(|c| !is_word(c)).next().unwrap_or_default());
    let mut types = words.filter(|word| {
        let floats = ["F16", "F32", "BF16", "FP16", "FP32"].contains(word);
        let digits = ["IQ", "TQ", "Q"].iter().find_map(|start| word.strip_prefix(start));
        floats || digits.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    types.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::{Checksum, StatedLicence};
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let checksum = Checksum::Git("0".repeat(40));
        let file = |path: &&str| RemoteFile {
            path: (*path).to_owned(),
            size: 1,
            checksum: checksum.clone(),
        };
        let files = paths.iter().map(file).collect();
        let (left_out, licence) = (Vec::new(), StatedLicence::default());
        Listing { commit: "0".repeat(40), files, left_out, licence }
    }

    /// The chosen files of a repository with `paths` (space after space), and what to open.
    fn check(paths: &str, wanted: Option<&str>, expected: Result<(&str, &str), &str>) {
        let paths: Vec<&str> = paths.split(' ').collect();
        let wanted = wanted.map(str::to_owned);
        let reference =
            Reference { org: "o".into(), name: "n".into(), revision: "main".into(), wanted };
        match (select(&listing(&paths), &reference), expected) {
            (Ok(found), Ok((files, open))) => {
                let found_files: Vec<&str> = found.files.iter().map(|f| &*f.path).collect();
                assert_eq!((&*found_files.join(" "), &*found.open), (files, open));
            }
            (Err(e), Err(part)) => assert!(e.to_string().contains(part), "{e}"),
            (found, _) => panic!("{paths:?} {:?}: {found:?}", reference.wanted),
        }
    }

    #[test]
    fn chooses_the_files_of_a_model() {
        let many = "README.md a.Q4_0.gguf a.Q4_K_M.gguf LICENSE.txt USE_POLICY.md big-Q8_0-00001-of-00002.gguf big-Q8_0-00002-of-00002.gguf";
        check(many, None, Err("o/n has several models; name one, as in o/n:Q4_0"));
        let papers = "README.md LICENSE.txt USE_POLICY.md";
        check(many, Some("q4_k_m"), Ok((&format!("a.Q4_K_M.gguf {papers}"), "a.Q4_K_M.gguf")));
        let split = "big-Q8_0-00001-of-00002.gguf big-Q8_0-00002-of-00002.gguf";
        check(
            many,
            Some("Q8_0"),
            Ok((&format!("{split} {papers}"), "big-Q8_0-00001-of-00002.gguf")),
        );
        check(
            many,
            Some("big-Q8_0-00002-of-00002.gguf"),
            Ok((&format!("{split} {papers}"), "big-Q8_0-00001-of-00002.gguf")),
        );
        check(many, Some("Q4_K"), Err("did you mean Q4_0"));
        check(many, Some("Q6_K_XXL"), Err("no file or type is called \"Q6_K_XXL\""));
        check("model.gguf x.json", None, Ok(("model.gguf", "model.gguf")));
        check("a-q4_0.gguf b-q4_0.gguf", Some("Q4_0"), Err("a-q4_0.gguf"));
    }

    #[test]
    fn chooses_the_files_of_a_folder() {
        let hf = "config.json model.safetensors pytorch_model.bin tokenizer.json sub/model.safetensors training.py";
        check(hf, None, Ok(("config.json model.safetensors tokenizer.json", "")));
        check(
            "config.json pytorch_model-00001-of-00001.bin pytorch_model.bin.index.json",
            None,
            Ok(("config.json pytorch_model-00001-of-00001.bin pytorch_model.bin.index.json", "")),
        );
        check(
            hf,
            Some("pytorch_model.bin"),
            Ok(("pytorch_model.bin config.json tokenizer.json", "pytorch_model.bin")),
        );
        check(
            "params.json consolidated.00.pth tokenizer.model checklist.chk",
            None,
            Ok(("params.json consolidated.00.pth tokenizer.model", "")),
        );
        check(
            "stories15M.bin tokenizer.bin README.md",
            Some("stories15M.bin"),
            Ok(("stories15M.bin tokenizer.bin README.md", "stories15M.bin")),
        );
        check("config.json x.py", None, Err("no model in it"));
        check("../../evil.gguf", None, Err("expected a path inside the repository"));
        check("sub\\a.gguf", None, Err("expected a path inside the repository"));
        let twice = "config.json model.safetensors model.safetensors";
        check(twice, None, Err("o/n: expected files of different names"));
        check("a.gguf LICENSE license", None, Err("found \"license\" twice"));
        let many: Vec<String> = (0..10_000).map(|n| format!("model{n}.safetensors")).collect();
        let many = format!("config.json {}", many.join(" "));
        check(&many, None, Err("expected at most 10000 files of a model, found 10001"));
    }

    #[test]
    fn types_in_names() {
        let cases = [
            ("llama-2-7b.Q4_K_M.gguf", Some("Q4_K_M")),
            ("sub/7b_q8_0-00001-of-00002.gguf", Some("Q8_0")),
            ("ggml-model-f16.gguf", Some("F16")),
            ("x.IQ4_XS.gguf", Some("IQ4_XS")),
            ("seq4_0.gguf", None),
            ("Qwen-7b.gguf", None),
            ("é-Q4_0.gguf", Some("Q4_0")),
        ];
        for (path, expected) in cases {
            assert_eq!(type_in(path).as_deref(), expected, "{path}");
        }
    }
}
