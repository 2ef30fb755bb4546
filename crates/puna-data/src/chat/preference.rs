//! Pairs of answers, of which a person or a program prefers one.

use puna_tokenizer::chat::{Message, Role};
use serde_json::{Map, Value};

use super::dialogue::{check, prompt, text};
use super::rows::kind_of;
use super::{Fault, ProblemKind};

/// How a file writes pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreferenceForm {
    /// `{"prompt", "chosen", "rejected", "strength"?, "safety"?}`, the answers as texts.
    Records,
    /// `{"chosen", "rejected"}`, both whole dialogues in one text, as Anthropic publishes them: turns begin with
    /// `\n\nHuman:` and `\n\nAssistant:`, and all but the last answer are the same.
    Transcripts,
}

/// Which of a pair's answers are safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SafetyLabel {
    /// The chosen one alone.
    ChosenSafe,
    /// Both.
    BothSafe,
    /// Neither.
    BothUnsafe,
}

impl SafetyLabel {
    const NAMES: &str = "\"chosen_safe\", \"both_safe\" or \"both_unsafe\"";

    /// Whether the chosen answer is safe.
    #[must_use]
    pub fn chosen_safe(self) -> bool {
        self != Self::BothUnsafe
    }

    /// Whether the rejected one is.
    #[must_use]
    pub fn rejected_safe(self) -> bool {
        self == Self::BothSafe
    }
}

/// Labels that every pair must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RequiredLabels {
    /// How much better the chosen answer is.
    pub strength: bool,
    /// Which answers are safe.
    pub safety: bool,
}

/// Two answers to a prompt; they are not empty and not equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreferenceRecord {
    /// A dialogue that ends with the user.
    pub prompt: Vec<Message>,
    /// The better answer.
    pub chosen: String,
    /// The other.
    pub rejected: String,
    /// How much better it is: 0 negligibly or unsure, 1 slightly, 2 better, 3 significantly.
    pub strength: Option<u8>,
    /// Which of them are safe.
    pub safety: Option<SafetyLabel>,
    /// The line, element or row of the file, counted from 1.
    pub line: u64,
}

impl PreferenceForm {
    pub(super) const KNOWN: &str = "fields \"chosen\" and \"rejected\", perhaps \"prompt\"";

    pub(super) fn of(object: &Map<String, Value>) -> Option<Self> {
        let has = |field| object.contains_key(field);
        let form = if has("prompt") { Self::Records } else { Self::Transcripts };
        (has("chosen") && has("rejected")).then_some(form)
    }
}

impl PreferenceRecord {
    pub(super) fn parse(
        form: PreferenceForm,
        required: RequiredLabels,
        line: u64,
        object: &Map<String, Value>,
    ) -> Result<Self, Fault> {
        let (chosen, rejected) = (text(object, "chosen")?, text(object, "rejected")?);
        let (prompt, chosen, rejected) = match form {
            PreferenceForm::Records => (prompt(object)?, chosen.to_owned(), rejected.to_owned()),
            PreferenceForm::Transcripts => last_answers(chosen, rejected)?,
        };
        for (name, answer) in [("chosen", &chosen), ("rejected", &rejected)] {
            if answer.trim().is_empty() {
                let expected = format!("text as the {name} answer");
                return Err(Fault::new(ProblemKind::EmptyAnswer, expected, "none"));
            }
        }
        if chosen.trim() == rejected.trim() {
            let expected = "two answers that differ";
            return Err(Fault::new(ProblemKind::EqualAnswers, expected, "the same text twice"));
        }
        let (strength, safety) = (strength(object)?, safety(object)?);
        for (name, is_missing) in [
            ("strength", required.strength && strength.is_none()),
            ("safety", required.safety && safety.is_none()),
        ] {
            if is_missing {
                let expected = format!("a label in the field {name:?}");
                return Err(Fault::new(ProblemKind::MissingLabel, expected, "none"));
            }
        }
        Ok(Self { prompt, chosen, rejected, strength, safety, line })
    }
}

fn strength(object: &Map<String, Value>) -> Result<Option<u8>, Fault> {
    let found = match object.get("strength") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(strength @ 0..=3) => return Ok(Some(strength as u8)),
            _ => number.to_string(),
        },
        Some(other) => kind_of(other).to_owned(),
    };
    let expected = "a whole number, 0 to 3, in the field \"strength\"";
    Err(Fault::new(ProblemKind::BadLabel, expected, found))
}

fn safety(object: &Map<String, Value>) -> Result<Option<SafetyLabel>, Fault> {
    let (kind, found) = match object.get("safety") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(label)) => match label.as_str() {
            "chosen_safe" => return Ok(Some(SafetyLabel::ChosenSafe)),
            "both_safe" => return Ok(Some(SafetyLabel::BothSafe)),
            "both_unsafe" => return Ok(Some(SafetyLabel::BothUnsafe)),
            "rejected_safe" => (ProblemKind::UnsafeChosen, format!("{label:?}")),
            _ => (ProblemKind::BadLabel, format!("{label:?}")),
        },
        Some(other) => (ProblemKind::BadLabel, kind_of(other).to_owned()),
    };
    let expected = format!("{} in the field \"safety\"", SafetyLabel::NAMES);
    Err(Fault::new(kind, expected, found))
}

/// What two transcripts share, and the last answer of each.
fn last_answers(chosen: &str, rejected: &str) -> Result<(Vec<Message>, String, String), Fault> {
    let (mut prompt, mut other) = (turns(chosen)?, turns(rejected)?);
    let answers = (prompt.pop(), other.pop());
    if prompt != other {
        let n_shared = prompt.iter().zip(&other).take_while(|(a, b)| a == b).count();
        let expected = "transcripts that differ in their last answer alone";
        let found = format!("a difference in message {}", n_shared + 1);
        return Err(Fault::new(ProblemKind::DifferentPrompts, expected, found));
    }
    check(&prompt, Role::User)?;
    let text = |answer: Option<Message>| answer.map(|message| message.content).unwrap_or_default();
    Ok((prompt, text(answers.0), text(answers.1)))
}

/// The turns of a transcript, each without the space around it. The last is the assistant's.
fn turns(transcript: &str) -> Result<Vec<Message>, Fault> {
    const MARKERS: [(&str, Role); 2] =
        [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];
    let fault = |expected, found| Err(Fault::new(ProblemKind::RoleOrder, expected, found));
    let next = |text: &str| {
        let found =
            MARKERS.iter().filter_map(|&(marker, role)| Some((text.find(marker)?, marker, role)));
        found.min_by_key(|&(at, ..)| at)
    };
    let Some((0, ..)) = next(transcript) else {
        return fault("a transcript that begins with \"\\n\\nHuman:\"", "another text");
    };
    let (mut messages, mut rest) = (Vec::new(), transcript);
    while let Some((_, marker, role)) = next(rest) {
        rest = &rest[marker.len()..];
        let end = next(rest).map_or(rest.len(), |(at, ..)| at);
        messages.push(Message::new(role, rest[..end].trim()));
        rest = &rest[end..];
    }
    if messages.last().is_none_or(|message| message.role != Role::Assistant) {
        return fault("a transcript that ends with the assistant", "one that ends with the human");
    }
    Ok(messages)
}
