//! Dialogues as prompts and for training: the Llama 2 chat form, and templates that come with a model.
//!
//! Text from a user must not be able to leave its place. So no message may contain a special tag or the text of a
//! control piece; such a dialogue is refused, as Meta's own code does for the tags.

mod jinja;
mod training;

use crate::{Tokenizer, TokenizerError};
pub use jinja::JinjaTemplate;
pub use training::{TrainingDialogue, render_training};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions for the whole dialogue; at most one such message, the first.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name used in templates and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One turn of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// A dialogue that cannot be made a prompt, or a template that does not work.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// A message contains what only the program may write.
    #[error("message {index} ({role}): the special tag {tag:?} is not allowed inside a message", role = role.as_str())]
    SpecialTag {
        /// Position in the dialogue.
        index: usize,
        /// Who says it.
        role: Role,
        /// The tag or control piece found.
        tag: String,
    },
    /// The roles are not: perhaps one system message, then user and assistant in turn, ending with the user (for
    /// training with the assistant).
    #[error("message {index}: expected role {expected}, found {found}")]
    Roles {
        /// Position in the dialogue.
        index: usize,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The vocabulary has no BOS or no EOS piece.
    #[error("the tokenizer has no {0} piece, which the chat form needs")]
    NoSpecialPiece(&'static str),
    /// The model's template does not compile.
    #[error("the model's chat template does not compile: {0}")]
    Template(String),
    /// The model's template fails on this dialogue.
    #[error("the model's chat template fails: {0}")]
    Render(String),
    /// With these messages the template writes control pieces that it does not write by itself.
    #[error(
        "the model's chat template and the messages together make control pieces; such a dialogue is refused"
    )]
    Forged,
}

const B_INST: &str = "[INST]";
const E_INST: &str = "[/INST]";
const B_SYS: &str = "<<SYS>>\n";
const E_SYS: &str = "\n<</SYS>>\n\n";
/// The tags that Meta's `generation.py` refuses inside messages.
const SPECIAL_TAGS: [&str; 4] = [B_INST, E_INST, "<<SYS>>", "<</SYS>>"];

/// How a dialogue becomes a prompt.
#[derive(Debug)]
pub enum ChatTemplate {
    /// The form that Llama 2 Chat was trained on (Meta, `llama/generation.py`).
    Llama2,
    /// A Jinja template from the model's files.
    Jinja(Box<JinjaTemplate>),
}

impl ChatTemplate {
    /// Compiles a Jinja template as found in `tokenizer_config.json` (`chat_template`) or in a GGUF
    /// (`tokenizer.chat_template`). `bos` and `eos` are the texts of those pieces, `<s>` and `</s>`.
    ///
    /// # Errors
    /// [`ChatError::Template`] says where the source is wrong.
    pub fn from_jinja(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        JinjaTemplate::new(source, bos, eos).map(Box::new).map(ChatTemplate::Jinja)
    }

    /// The ids after which the model answers: BOS first, the answer's opening last.
    ///
    /// A template that writes no BOS gets one put before, since Llama models always saw one.
    ///
    /// # Errors
    /// [`ChatError`]: special tags inside messages, roles out of turn, a template that fails or runs too long.
    pub fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>, ChatError> {
        match self {
            ChatTemplate::Llama2 => {
                refuse_tags(tokenizer, messages, &SPECIAL_TAGS)?;
                render_llama2(tokenizer, messages)
            }
            ChatTemplate::Jinja(template) => {
                // Llama 2's tags are special in a template that uses them, and plain text in another.
                let tags: Vec<&str> =
                    SPECIAL_TAGS.into_iter().filter(|tag| template.source_contains(tag)).collect();
                refuse_tags(tokenizer, messages, &tags)?;
                template.render(tokenizer, messages)
            }
        }
    }
}

fn refuse_tags(
    tokenizer: &Tokenizer,
    messages: &[Message],
    tags: &[&str],
) -> Result<(), ChatError> {
    for (index, Message { role, content }) in messages.iter().enumerate() {
        let tag = tags.iter().copied().find(|tag| content.contains(tag));
        let control = || tokenizer.find_control(content).map(|piece| piece.text.as_str());
        if let Some(tag) = tag.or_else(control) {
            return Err(ChatError::SpecialTag { index, role: *role, tag: tag.to_owned() });
        }
    }
    Ok(())
}

/// `<s>[INST] user [/INST] assistant </s><s>[INST] user [/INST]`, each pair of turns a text of its own with BOS and
/// EOS; the system message goes into the first user turn between its tags.
fn render_llama2(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
    let (bos, eos) = special_ids(tokenizer)?;
    let (system, turns) = without_system(messages);
    check_roles(messages, Role::User)?;
    let mut ids = Vec::new();
    for (i, pair) in turns.chunks(2).enumerate() {
        let mut text = llama2_prompt(system.filter(|_| i == 0), &pair[0].content);
        if let Some(answer) = pair.get(1) {
            text += &format!(" {} ", strip(&answer.content));
        }
        ids.push(bos);
        tokenizer.encode_into(&text, &mut ids);
        ids.extend((pair.len() == 2).then_some(eos));
    }
    Ok(ids)
}

/// BOS and EOS.
fn special_ids(tokenizer: &Tokenizer) -> Result<(u32, u32), ChatError> {
    let bos = tokenizer.bos_id().ok_or(ChatError::NoSpecialPiece("BOS"))?;
    let eos = tokenizer.eos_id().ok_or(ChatError::NoSpecialPiece("EOS"))?;
    Ok((bos, eos))
}

/// The text of the system message, if there is one, and the turns after it.
fn without_system(messages: &[Message]) -> (Option<&str>, &[Message]) {
    match messages {
        [Message { role: Role::System, content }, turns @ ..] => (Some(content), turns),
        turns => (None, turns),
    }
}

/// What is before an answer: `[INST] user [/INST]`.
fn llama2_prompt(system: Option<&str>, user: &str) -> String {
    let system = system.map_or(String::new(), |s| format!("{B_SYS}{s}{E_SYS}"));
    let user = format!("{system}{user}");
    format!("{B_INST} {} {E_INST}", strip(&user))
}

/// Perhaps one system message, then user and assistant in turn, beginning with the user and ending with `last`.
///
/// # Errors
/// [`ChatError::Roles`] names the first message that is another's.
pub fn check_roles(messages: &[Message], last: Role) -> Result<(), ChatError> {
    let (_, turns) = without_system(messages);
    let offset = messages.len() - turns.len();
    for (i, message) in turns.iter().enumerate() {
        let expected = if i % 2 == 0 { Role::User } else { Role::Assistant };
        if message.role != expected {
            let (expected, found) = (expected.as_str(), message.role.as_str());
            return Err(ChatError::Roles { index: offset + i, expected, found });
        }
    }
    if turns.last().is_none_or(|turn| turn.role != last) {
        let expected = if turns.len().is_multiple_of(2) { Role::User } else { Role::Assistant };
        let index = messages.len();
        return Err(ChatError::Roles { index, expected: expected.as_str(), found: "the end" });
    }
    Ok(())
}

/// Python's `str.strip`: white space, and the separators U+001C to U+001F.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// Reads a `tokenizer_config.json`.
pub(crate) fn parse_config(config_json: &[u8]) -> Result<serde_json::Value, TokenizerError> {
    serde_json::from_slice(config_json)
        .map_err(|source| TokenizerError::Json { file: "tokenizer_config.json", source })
}

/// The chat template in a `tokenizer_config.json`, if there is one. Of several named ones, `default` or else the first.
///
/// # Errors
/// [`TokenizerError::Json`] if the file is not JSON.
pub fn template_in_config(config_json: &[u8]) -> Result<Option<String>, TokenizerError> {
    let config = parse_config(config_json)?;
    let template = match &config["chat_template"] {
        serde_json::Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default").or(named.first());
            default.map_or(&serde_json::Value::Null, |entry| &entry["template"])
        }
        other => other,
    };
    Ok(template.as_str().map(str::to_owned))
}
