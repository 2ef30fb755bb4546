//! The commands of a conversation: lines that start with `/`.

use std::path::PathBuf;

use puna_hub::near_matches;

/// A line that is not for the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Reset,
    /// With a text: the new instructions. Without: show them.
    System(Option<String>),
    Save(PathBuf),
    Load(PathBuf),
    Stats,
    Quit,
}

/// What `/help` prints.
pub(super) const HELP: &str = "\
/help          this list
/reset         start a new conversation
/system TEXT   set the instructions; without TEXT show them
/save FILE     write the conversation as JSON
/load FILE     go on with a saved conversation
/stats         tokens and speed
/quit          leave (or Ctrl-D)

Alt-Enter, or \\ at the end of a line, starts a new line. Ctrl-C stops an answer.
To send a text that starts with /, put a space before it.";

const NAMES: [&str; 7] = ["/help", "/reset", "/system", "/save", "/load", "/stats", "/quit"];

/// Reads a line: `None` if it is for the model.
pub(super) fn parse(line: &str) -> Option<Result<Command, String>> {
    if !line.starts_with('/') {
        return None;
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let path = || match rest {
        "" => Err(format!("{name} needs a file name")),
        path => Ok(PathBuf::from(path)),
    };
    Some(match name {
        "/help" => Ok(Command::Help),
        "/reset" => Ok(Command::Reset),
        "/system" => Ok(Command::System((!rest.is_empty()).then(|| rest.to_owned()))),
        "/save" => path().map(Command::Save),
        "/load" => path().map(Command::Load),
        "/stats" => Ok(Command::Stats),
        "/quit" => Ok(Command::Quit),
        _ => Err(match near_matches(name, NAMES).first() {
            Some(near) => format!("no command {name}; did you mean {near}?"),
            None => format!("no command {name}; /help lists them"),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(parse("hello /help"), None);
        assert_eq!(parse(" /help"), None);
        assert_eq!(
            parse("/system  Be brief. "),
            Some(Ok(Command::System(Some("Be brief.".into()))))
        );
        assert_eq!(parse("/system"), Some(Ok(Command::System(None))));
        assert_eq!(parse("/save a b.json"), Some(Ok(Command::Save("a b.json".into()))));
        assert!(parse("/save").unwrap().unwrap_err().contains("file name"));
        assert!(parse("/rest").unwrap().unwrap_err().contains("did you mean /reset?"));
        for name in NAMES {
            assert!(parse(&format!("{name} x")).unwrap().is_ok(), "{name}");
            assert!(HELP.contains(name), "{name}");
        }
    }
}
