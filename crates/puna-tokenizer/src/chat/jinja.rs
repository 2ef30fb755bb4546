//! Chat templates written in Jinja, as Hugging Face's tools run them.
//!
//! A template mixes control pieces of its own (`bos_token`, `</s>`) with text from messages, and the result is one
//! string. Two rules keep the two apart. Messages that contain a control piece's text are refused before
//! rendering. And the dialogue is rendered a second time with every character that occurs in control pieces replaced
//! in the messages: if that gives other control pieces, then message and template made one together, such as a
//! template's `<` before a message's `s>`, and the dialogue is refused.

use super::{ChatError, Message};
use crate::Tokenizer;
use crate::vocab::PieceKind;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::collections::HashSet;

/// Steps that rendering may take, plus [`FUEL_PER_BYTE`] for each byte of message. Real templates take a few dozen
/// steps a message. One step pays for at most 64 bytes made, so this bounds memory as well.
const FUEL: u64 = 400_000;
const FUEL_PER_BYTE: u64 = 8;
/// Longest template accepted, in bytes. Real ones have at most some ten thousand.
const MAX_SOURCE: usize = 1 << 20;
const NAME: &str = "chat_template";

/// A compiled template.
#[derive(Debug)]
pub struct JinjaTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

impl JinjaTemplate {
    pub(super) fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE {
            return Err(ChatError::Template(format!(
                "it has {} bytes, the limit is {MAX_SOURCE}",
                source.len()
            )));
        }
        let mut environment = Environment::new();
        // As `transformers` sets up Jinja.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| ChatError::Template(describe(&e)))?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let compiled = environment.add_template_owned(NAME, source.to_owned());
        compiled.map_err(|e| ChatError::Template(describe(&e)))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            bos: bos.to_owned(),
            eos: eos.to_owned(),
        })
    }

    pub(super) fn source_contains(&self, text: &str) -> bool {
        self.source.contains(text)
    }

    pub(super) fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>, ChatError> {
        let mut ids = tokenizer.encode_with_specials(&self.text(messages)?);
        let masked = tokenizer.encode_with_specials(&self.text(&mask(tokenizer, messages))?);
        let controls = |ids: &[u32]| {
            ids.iter().copied().filter(|&id| is_control(tokenizer, id)).collect::<Vec<_>>()
        };
        if controls(&ids) != controls(&masked) {
            return Err(ChatError::Forged);
        }
        if let Some(bos) = tokenizer.bos_id().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    fn text(&self, messages: &[Message]) -> Result<String, ChatError> {
        let bytes: usize = messages.iter().map(|m| m.content.len()).sum();
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(FUEL.saturating_add(FUEL_PER_BYTE.saturating_mul(bytes as u64))));
        let message =
            |m: &Message| context! { role => m.role.as_str(), content => m.content.as_str() };
        let template =
            environment.get_template(NAME).map_err(|e| ChatError::Render(describe(&e)))?;
        let rendered = template.render(context! {
            messages => messages.iter().map(message).collect::<Vec<_>>(),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => true,
        });
        rendered.map_err(|e| ChatError::Render(describe(&e)))
    }
}

fn is_control(tokenizer: &Tokenizer, id: u32) -> bool {
    tokenizer.piece(id).is_some_and(|piece| piece.kind == PieceKind::Control)
}

/// The messages with every character of control pieces replaced by one that is in none.
fn mask(tokenizer: &Tokenizer, messages: &[Message]) -> Vec<Message> {
    let controls = tokenizer.pieces().iter().filter(|p| p.kind == PieceKind::Control);
    let used: HashSet<char> = controls.flat_map(|p| p.text.chars()).collect();
    // Control pieces are too few and too short to use up Unicode; were they not, the first of these would do no harm.
    let free = ('A'..=char::MAX).find(|c| c.is_alphanumeric() && !used.contains(c)).unwrap_or('A');
    let replace = |text: &str| {
        text.chars().map(|c| if used.contains(&c) { free } else { c }).collect::<String>()
    };
    messages.iter().map(|m| Message::new(m.role, replace(&m.content))).collect()
}

/// The error with the line it came from.
fn describe(error: &Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    format!("{line}{}", error.detail().map_or_else(|| error.to_string(), str::to_owned))
}
