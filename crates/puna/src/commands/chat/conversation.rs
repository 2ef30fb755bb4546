//! A conversation: its turns, and how the next answer comes about.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use puna_engine::{FinishReason, Request, Sampling};
use puna_tokenizer::chat::{ChatError, Message, Role};
use serde_json::{Value, json};

use crate::interrupt::Interrupt;
use crate::runtime::{Answer, Runtime};
use crate::units;

/// Largest saved conversation that is read.
const MAX_FILE_BYTES: u64 = 1 << 26;

/// Of the context, one part in so many is kept for an answer at least.
const ROOM: usize = 4;

/// A model and what has been said.
pub(super) struct Conversation {
    runtime: Runtime,
    sampling: Sampling,
    max_new_tokens: Option<usize>,
    system: Option<String>,
    /// User and assistant in turn, the assistant last.
    turns: Vec<Message>,
    /// How many of them, the oldest, the model is not told any more.
    n_left_out: usize,
    /// Tokens that the conversation took up with its last answer; not known of a conversation just loaded.
    n_used: Option<usize>,
    last_stats: Option<String>,
}

impl Conversation {
    /// An empty conversation.
    pub(super) fn new(
        runtime: Runtime,
        sampling: Sampling,
        max_new_tokens: Option<usize>,
        system: Option<String>,
    ) -> Self {
        Self {
            runtime,
            sampling,
            max_new_tokens,
            system,
            turns: Vec::new(),
            n_left_out: 0,
            n_used: Some(0),
            last_stats: None,
        }
    }

    /// Positions of the model's context.
    pub(super) fn ctx(&self) -> usize {
        self.runtime.ctx
    }

    /// The model's name.
    pub(super) fn model(&self) -> &str {
        &self.runtime.name
    }

    /// Adds a user turn and has it answered. `on_text` gets the answer as it comes. If there is no answer, the
    /// conversation stays as it was.
    ///
    /// The whole conversation is the prompt; what of it was computed for earlier turns is still in the engine's cache. Where
    /// the context has no room for an answer, the oldest turns are left out, and that is said.
    pub(super) fn ask(
        &mut self,
        text: &str,
        interrupt: &Interrupt,
        mut on_text: impl FnMut(&str) -> io::Result<()>,
    ) -> anyhow::Result<Answer> {
        let question = Message::new(Role::User, text);
        let prompt = self.fitting_prompt(&question)?;
        let n_prompt = prompt.len();
        let request = Request {
            prompt,
            max_new_tokens: self.max_new_tokens,
            sampling: self.sampling.clone(),
            stop_ids: self.runtime.stop_ids.clone(),
            n_logprobs: None,
        };
        interrupt.clear();
        let mut at_start = true;
        let answer = self.runtime.answer(request, interrupt, |part| {
            // The answer follows "[/INST]" after a space that is not part of it.
            let part = if at_start { part.trim_start() } else { part };
            at_start &= part.is_empty();
            on_text(part)
        })?;
        self.n_used = Some(n_prompt + answer.tokens.len());
        self.last_stats = Some(answer.stats_line());
        let said = answer.text.trim();
        if answer.reason != FinishReason::Cancelled || !said.is_empty() {
            self.turns.extend([question, Message::new(Role::Assistant, said)]);
        }
        Ok(answer)
    }

    /// The prompt with as many of the last turns as leave room for an answer.
    fn fitting_prompt(&mut self, question: &Message) -> anyhow::Result<Vec<u32>> {
        let ctx = self.ctx();
        let room = self.max_new_tokens.unwrap_or(usize::MAX).clamp(1, (ctx / ROOM).max(1));
        let mut prompt = self.prompt(question)?;
        if prompt.len() + room > ctx && self.n_left_out < self.turns.len() {
            // Half of the context at once: what is left stays in the engine's cache for the turns to come.
            while prompt.len() > ctx / 2 && self.n_left_out < self.turns.len() {
                self.n_left_out += 2;
                prompt = self.prompt(question)?;
            }
            let left_out = units::plural(self.n_left_out / 2, "turn");
            note!(
                "the context of {ctx} tokens is full: the first {left_out} left out from here on"
            );
        }
        if prompt.len() >= ctx {
            bail!(
                "the message would take {} and leave no room for an answer: {} too many for a context of {ctx}. \
                 A larger --ctx makes room, if the model has it",
                units::plural(prompt.len(), "token"),
                prompt.len() + 1 - ctx,
            );
        }
        Ok(prompt)
    }

    fn prompt(&self, question: &Message) -> anyhow::Result<Vec<u32>> {
        let system = self.system.iter().map(|text| Message::new(Role::System, text.as_str()));
        let messages: Vec<Message> = system
            .chain(self.turns[self.n_left_out..].iter().cloned())
            .chain([question.clone()])
            .collect();
        let rendered = self.runtime.template.render(&self.runtime.tokenizer, &messages);
        rendered.map_err(|error| match &error {
            ChatError::SpecialTag { role: Role::Assistant, .. } => anyhow::Error::new(error)
                .context("the model wrote what only the program may write; /reset starts a new conversation"),
            ChatError::SpecialTag { tag, .. } => {
                anyhow!("the special tag {tag:?} is not allowed inside a message or the instructions")
            }
            _ => error.into(),
        })
    }

    /// Forgets all turns; the instructions stay.
    pub(super) fn reset(&mut self) {
        self.turns.clear();
        self.n_left_out = 0;
        (self.n_used, self.last_stats) = (Some(0), None);
    }

    /// The instructions.
    pub(super) fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Sets the instructions; they count for the whole conversation, also for turns already made.
    pub(super) fn set_system(&mut self, text: String) {
        self.system = Some(text);
    }

    /// Tokens used, the speed of the last answer, and what the program takes.
    pub(super) fn stats(&self) -> String {
        let mut stats = units::plural(self.turns.len() / 2, "turn");
        if let Some(n_used) = self.n_used {
            stats.push_str(&format!(", {n_used} of {} tokens", self.ctx()));
        }
        if let Some(last) = &self.last_stats {
            stats.push_str(&format!("\nlast answer: {last}"));
        }
        format!("{stats}\n{}", self.runtime.load_line())
    }

    /// Writes the conversation as `{"messages": [{"role": ..., "content": ...}, ...]}`.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let system = self.system.iter().map(|text| ("system", text.as_str()));
        let turns = self.turns.iter().map(|m| (m.role.as_str(), m.content.as_str()));
        let messages: Vec<Value> = system
            .chain(turns)
            .map(|(role, content)| json!({ "role": role, "content": content }))
            .collect();
        let text = format!("{:#}\n", json!({ "messages": messages }));
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Goes on with a saved conversation in place of this one. Returns the number of its turns.
    pub(super) fn load(&mut self, path: &Path) -> anyhow::Result<usize> {
        let file = || path.display().to_string();
        let size = fs::metadata(path).with_context(file)?.len();
        if size > MAX_FILE_BYTES {
            bail!("{}: expected at most {MAX_FILE_BYTES} bytes, found {size}", file());
        }
        let text = fs::read_to_string(path).with_context(file)?;
        let (system, turns) = parse_saved(&text).with_context(file)?;
        (self.system, self.turns) = (system, turns);
        self.n_left_out = 0;
        (self.n_used, self.last_stats) = (None, None);
        Ok(self.turns.len() / 2)
    }
}

fn parse_saved(text: &str) -> anyhow::Result<(Option<String>, Vec<Message>)> {
    let value: Value = serde_json::from_str(text)?;
    let list = value["messages"].as_array().context("expected {\"messages\": [...]}")?;
    let mut system = None;
    let mut turns = Vec::new();
    for (idx, entry) in list.iter().enumerate() {
        let (role, content) = (entry["role"].as_str(), entry["content"].as_str());
        let content =
            content.with_context(|| format!("message {idx}: expected a text \"content\""))?;
        let expected = if turns.len() % 2 == 0 { Role::User } else { Role::Assistant };
        match role {
            Some("system") if idx == 0 => system = Some(content.to_owned()),
            Some(role) if role == expected.as_str() => turns.push(Message::new(expected, content)),
            role => {
                let found = role.unwrap_or("none");
                bail!("message {idx}: expected role {}, found {found}", expected.as_str())
            }
        }
    }
    if turns.len() % 2 == 1 {
        bail!("expected an answer to the last user message");
    }
    Ok((system, turns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_conversations_are_checked() {
        let turn = |role: &str| json!({ "role": role, "content": "x" });
        let parse = |roles: &[&str]| {
            let messages: Vec<Value> = roles.iter().map(|r| turn(r)).collect();
            parse_saved(&json!({ "messages": messages }).to_string())
        };
        let (system, turns) = parse(&["system", "user", "assistant"]).unwrap();
        assert_eq!((system.as_deref(), turns.len()), (Some("x"), 2));
        for (roles, expected) in [
            (&["assistant"][..], "expected role user, found assistant"),
            (&["user", "system"], "expected role assistant, found system"),
            (&["user"], "expected an answer"),
        ] {
            let message = parse(roles).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(parse_saved("[]").is_err() && parse_saved("{").is_err());
    }
}
