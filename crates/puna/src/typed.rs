//! Text arguments that may start with `-`, told apart from mistyped options.

use std::ffi::OsString;

use anyhow::bail;
use puna_hub::near_matches;

use crate::failure::Usage;

/// `-n6` as `-n`, `6`: where text may start with `-`, `clap` takes an option with its value attached for text.
pub(crate) fn split_attached(typed: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut only_texts = false;
    let split = |arg: OsString| -> Vec<OsString> {
        only_texts |= arg == "--";
        let number = arg.to_str().and_then(|text| text.strip_prefix("-n")).unwrap_or_default();
        if only_texts || number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return vec![arg];
        }
        vec!["-n".into(), number.into()]
    };
    typed.flat_map(split).collect()
}

/// Refuses those of `texts` that have the shape of an option (`--word`, `--word=value`, `-x`) and were not put after
/// `--`: `clap` takes any unknown option for text where text may start with `-`.
pub(crate) fn reject_unknown_options<'a>(
    subcommand: &str,
    texts: impl IntoIterator<Item = Option<&'a String>>,
) -> anyhow::Result<()> {
    let typed: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let before = typed.split(|arg| arg == "--").next().unwrap_or_default();
    let suspect = |text: &&String| option_name(text).is_some() && before.contains(text);
    match texts.into_iter().flatten().find(suspect) {
        Some(text) => bail!(Usage(unknown_option(subcommand, text))),
        None => Ok(()),
    }
}

/// The `--word` or `-x` that `text` consists of, up to a `=`.
fn option_name(text: &str) -> Option<&str> {
    let (name, _) = text.split_once('=').unwrap_or((text, ""));
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let long = name.strip_prefix("--").is_some_and(is_word);
    let short = name.strip_prefix('-').is_some_and(|rest| rest.len() == 1 && is_word(rest));
    (long || short).then_some(name)
}

fn unknown_option(subcommand: &str, typed: &str) -> String {
    let name = option_name(typed).unwrap_or(typed);
    let command = crate::args::command();
    let options: Vec<String> = command
        .find_subcommand(subcommand)
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
        .collect();
    let near = near_matches(name, options.iter().map(String::as_str));
    let mut message = format!("unexpected argument '{name}'");
    if let Some(option) = near.first() {
        message.push_str(&format!("; did you mean '{option}'?"));
    }
    message.push_str(&format!(
        "\n\nTo use it as text, put it last, after --: puna {subcommand} ... -- '{typed}'"
    ));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_numbers_are_split() {
        let split = |args: &[&str]| split_attached(args.iter().map(OsString::from));
        assert_eq!(
            split(&["-n6", "-not", "-n", "--", "-n6"]),
            ["-n", "6", "-not", "-n", "--", "-n6"]
        );
    }

    #[test]
    fn options_are_told_from_text() {
        for option in ["--temprature", "--seed=3", "-x", "--top-q"] {
            assert!(option_name(option).is_some(), "{option}");
        }
        for text in ["- item", "-5", "--", "---", "--- title", "-- x", "-abc", "plain", "-", "--1"]
        {
            assert!(option_name(text).is_none(), "{text}");
        }
        let message = unknown_option("generate", "--temprature=1");
        assert!(message.contains("'--temprature'; did you mean '--temperature'?"), "{message}");
    }
}
