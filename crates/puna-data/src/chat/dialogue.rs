//! Dialogues: lists of messages by several names, and instructions with their answers.

use puna_tokenizer::chat::{ChatError, Message, Role, check_roles};
use serde_json::{Map, Value};

use super::rows::kind_of;
use super::{Fault, ProblemKind};

/// How a file writes dialogues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatForm {
    /// `{"messages": [{"role", "content"}]}`.
    Messages,
    /// `{"conversations": [{"from", "value"}]}`, where the user is `human` and the assistant `gpt`.
    ShareGpt,
    /// `{"instruction", "input", "output"}`; what there is of the first two makes the user's message.
    Alpaca,
}

/// A dialogue that ends with the assistant; no answer is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatRecord {
    /// Perhaps a system message, then user and assistant in turn.
    pub messages: Vec<Message>,
    /// The line, element or row of the file, counted from 1.
    pub line: u64,
    /// What the record calls its source, else the file.
    pub source: String,
}

/// A dialogue that ends with the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptRecord {
    /// Perhaps a system message, then user and assistant in turn.
    pub messages: Vec<Message>,
    /// Whether the prompt is one that calls for safety, where the record says so.
    pub is_safety: Option<bool>,
    /// The line, element or row of the file, counted from 1.
    pub line: u64,
    /// What the record calls its source, else the file.
    pub source: String,
}

impl ChatForm {
    pub(super) const KNOWN: &str =
        "a field \"messages\", \"conversations\", or \"instruction\" and \"output\"";

    pub(super) fn of(object: &Map<String, Value>) -> Option<Self> {
        let has = |field| object.contains_key(field);
        if has("messages") {
            Some(Self::Messages)
        } else if has("conversations") {
            Some(Self::ShareGpt)
        } else {
            (has("instruction") && has("output")).then_some(Self::Alpaca)
        }
    }
}

impl ChatRecord {
    pub(super) fn parse(
        form: ChatForm,
        file: &str,
        line: u64,
        object: &Map<String, Value>,
    ) -> Result<Self, Fault> {
        let messages = match form {
            ChatForm::Messages => messages(object, "messages")?,
            ChatForm::ShareGpt => messages(object, "conversations")?,
            ChatForm::Alpaca => {
                let (instruction, input) =
                    (text(object, "instruction")?, optional(object, "input")?);
                let parts = [instruction.trim(), input.unwrap_or_default().trim()];
                let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                let answer = text(object, "output")?;
                vec![
                    Message::new(Role::User, parts.join("\n\n")),
                    Message::new(Role::Assistant, answer),
                ]
            }
        };
        check(&messages, Role::Assistant)?;
        Ok(Self { messages, line, source: source(object, file)? })
    }
}

impl PromptRecord {
    pub(super) fn parse(file: &str, line: u64, object: &Map<String, Value>) -> Result<Self, Fault> {
        let messages = prompt(object)?;
        let is_safety = match object.get("is_safety") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(is_safety)) => Some(*is_safety),
            Some(other) => {
                let expected = "true or false in the field \"is_safety\"";
                return Err(Fault::new(ProblemKind::BadLabel, expected, kind_of(other)));
            }
        };
        Ok(Self { messages, is_safety, line, source: source(object, file)? })
    }
}

/// The field `prompt`: a dialogue that ends with the user, or the user's one message.
pub(super) fn prompt(object: &Map<String, Value>) -> Result<Vec<Message>, Fault> {
    let messages = match object.get("prompt") {
        Some(Value::String(text)) => vec![Message::new(Role::User, text)],
        _ => messages(object, "prompt")?,
    };
    check(&messages, Role::User)?;
    Ok(messages)
}

/// Roles in their order, and nothing that the model would be asked or taught without a word in it.
pub(super) fn check(messages: &[Message], last: Role) -> Result<(), Fault> {
    check_roles(messages, last).map_err(|error| match error {
        ChatError::Roles { index, expected, found } => {
            let expected = format!("role {expected} for message {}", index + 1);
            Fault::new(ProblemKind::RoleOrder, expected, found)
        }
        other => Fault::new(ProblemKind::RoleOrder, "a dialogue", other),
    })?;
    for (i, message) in messages.iter().enumerate() {
        let kind = match message.role {
            Role::System => continue,
            Role::User => ProblemKind::EmptyPrompt,
            Role::Assistant => ProblemKind::EmptyAnswer,
        };
        if message.content.trim().is_empty() {
            let expected = format!("text in message {} ({})", i + 1, message.role.as_str());
            return Err(Fault::new(kind, expected, "none"));
        }
    }
    Ok(())
}

/// A list of messages, each with `role` or `from` and `content` or `value`.
fn messages(object: &Map<String, Value>, field: &str) -> Result<Vec<Message>, Fault> {
    let expected = || format!("an array of messages in the field {field:?}");
    let list = match object.get(field) {
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Fault::new(ProblemKind::Field, expected(), kind_of(other))),
        None => return Err(Fault::new(ProblemKind::Field, expected(), "no such field")),
    };
    list.iter().enumerate().map(|(i, value)| message(i + 1, value)).collect()
}

fn message(number: usize, value: &Value) -> Result<Message, Fault> {
    let place = format!("message {number}");
    let Value::Object(object) = value else {
        return Err(Fault::new(
            ProblemKind::Field,
            format!("an object as {place}"),
            kind_of(value),
        ));
    };
    let string = |names: [&str; 2]| match names.iter().find_map(|name| object.get(*name)) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => {
            let expected = format!("a string as {:?} of {place}", names[0]);
            Err(Fault::new(ProblemKind::NotText, expected, kind_of(other)))
        }
        None => {
            let expected = format!("{:?} or {:?} in {place}", names[0], names[1]);
            Err(Fault::new(ProblemKind::Field, expected, "neither"))
        }
    };
    let role = match string(["role", "from"])?.as_str() {
        "system" => Role::System,
        "user" | "human" => Role::User,
        "assistant" | "gpt" => Role::Assistant,
        other => {
            let expected = format!("system, user (human) or assistant (gpt) as role of {place}");
            return Err(Fault::new(ProblemKind::UnknownRole, expected, format!("{other:?}")));
        }
    };
    Ok(Message::new(role, string(["content", "value"])?))
}

/// A field that must be a string.
pub(super) fn text<'a>(object: &'a Map<String, Value>, field: &str) -> Result<&'a str, Fault> {
    let missing = || {
        Fault::new(ProblemKind::Field, format!("a string in the field {field:?}"), "no such field")
    };
    optional(object, field)?.ok_or_else(missing)
}

/// A field that is a string, null or absent.
fn optional<'a>(object: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Fault> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            let expected = format!("a string in the field {field:?}");
            Err(Fault::new(ProblemKind::NotText, expected, kind_of(other)))
        }
    }
}

fn source(object: &Map<String, Value>, file: &str) -> Result<String, Fault> {
    Ok(optional(object, "source")?.unwrap_or(file).to_owned())
}
