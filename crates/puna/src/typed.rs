//! Text arguments that may start with `-`, told apart from mistyped options.

use anyhow::bail;
use puna_hub::near_matches;

use crate::failure::Usage;

/// Refuses those of `texts` that have the shape of an option (`--word`, `--word=value`, `-x`) and were not put after
/// `--`: `clap` takes any unknown option for text where text may start with `-`.
pub(crate) fn reject_unknown_options(subcommand: &str, texts: &[String]) -> anyhow::Result<()> {
    let typed: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let before = typed.split(|arg| arg == "--").next().unwrap_or_default();
    let suspect = texts.iter().find(|text| option_name(text).is_some() && before.contains(text));
    let Some(suspect) = suspect else { return Ok(()) };
    bail!(Usage(unknown_option(subcommand, suspect)))
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
        "\n\nTo use it as text, put -- before it: puna {subcommand} -- '{typed}'"
    ));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

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
