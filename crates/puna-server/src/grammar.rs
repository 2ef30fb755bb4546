//! Answers of a given form: a grammar becomes a mask over token ids.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{
    InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenizerEnv,
};
use llguidance::{Matcher, ParserFactory};
use puna_engine::Constraint;
use puna_tokenizer::{PieceKind, Tokenizer};
use serde_json::Value;

use crate::ending::{Closers, Ending};

/// Longest grammar or schema, in bytes.
const MAX_SOURCE_BYTES: usize = 256 << 10;
/// Deepest nesting of brackets in a grammar. (A schema's is limited by the JSON parser.)
const MAX_NESTING: usize = 64;
/// States of a lexer, one or two kilobytes each.
const MAX_LEXER_STATES: usize = 20_000;

/// The form that an answer is to have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    /// JSON of this schema.
    Schema(Value),
    /// A grammar in `llguidance`'s variant of Lark.
    Lark(String),
    /// Text that a regular expression matches as a whole.
    Regex(String),
}

impl Form {
    /// Any JSON object.
    pub(crate) fn any_object() -> Self {
        Self::Schema(serde_json::json!({ "type": "object" }))
    }
}

/// The vocabulary as grammars see it, made once for each model.
pub(crate) struct Grammars {
    factory: ParserFactory,
    closers: Arc<Closers>,
}

impl Grammars {
    /// Of a model whose answers end with one of `stop_ids`.
    pub(crate) fn new(tokenizer: &Tokenizer, stop_ids: &[u32]) -> Result<Self, String> {
        let known = stop_ids.iter().copied().filter(|&id| (id as usize) < tokenizer.vocab_size());
        let stop_ids: Vec<u32> = known.collect();
        let Some(&eos) = stop_ids.first() else {
            return Err("the model has no token that ends an answer".to_owned());
        };
        let words: Vec<Vec<u8>> =
            (0..tokenizer.vocab_size() as u32).map(|id| bytes_of(tokenizer, id)).collect();
        let info = TokRxInfo::new(words.len() as u32, eos);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&stop_ids);
        let env: TokEnv = Arc::new(Env(trie));
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &[])
            .map_err(|error| error.to_string())?;
        *factory.limits_mut() = ParserLimits {
            max_lexer_states: MAX_LEXER_STATES,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        factory.quiet();
        Ok(Self { factory, closers: Arc::new(Closers::new(&words, eos)) })
    }

    /// Compiles a form. With `after_space` the answer may begin with a space that is not part of it, as answers do that
    /// come after a chat template.
    ///
    /// The work that it and each mask may take is bounded by the library's limits.
    pub(crate) fn compile(&self, form: &Form, after_space: bool) -> Result<Grammar, String> {
        let own = match form {
            Form::Schema(schema) => {
                if schema.to_string().len() > MAX_SOURCE_BYTES {
                    return Err(format!("larger than the limit of {MAX_SOURCE_BYTES} bytes"));
                }
                GrammarWithLexer::from_json_schema(spaced(schema.clone()))
            }
            Form::Lark(source) => {
                check_source(source)?;
                GrammarWithLexer::from_lark(source.clone())
            }
            Form::Regex(source) => {
                check_source(source)?;
                GrammarWithLexer::from_regex(source)
            }
        };
        let grammar = if after_space {
            let own = GrammarWithLexer { name: Some(INNER.to_owned()), ..own };
            let outer = GrammarWithLexer::from_lark(format!("start: @{INNER} | \" \" @{INNER}"));
            TopLevelGrammar { grammars: vec![outer, own], max_tokens: None }
        } else {
            TopLevelGrammar::from_grammar(own)
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(error),
            None => Ok(Grammar { matcher, closers: Arc::clone(&self.closers) }),
        }
    }
}

/// The schema, with white space between the parts of its JSON as people write it: one space, or a line that is indented.
/// Without this bound a small model may go on for ever between a name and its value.
pub(crate) fn spaced(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        let spacing = serde_json::json!({ "whitespace_pattern": r"(\x20|\x0A\x20{0,16})" });
        fields.entry("x-guidance").or_insert(spacing);
    }
    schema
}

const INNER: &str = "answer";

fn check_source(source: &str) -> Result<(), String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!("larger than the limit of {MAX_SOURCE_BYTES} bytes"));
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in source.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_NESTING {
        return Err(format!("brackets are nested {deepest} deep, the limit is {MAX_NESTING}"));
    }
    Ok(())
}

/// What a piece adds to the text. Pieces that are no text get a mark that no text has, as `toktrie` wants it.
fn bytes_of(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let Some(piece) = tokenizer.piece(id) else { return Vec::new() };
    match piece.kind {
        PieceKind::Control | PieceKind::Unknown => {
            [&[TokTrie::SPECIAL_TOKEN_MARKER], piece.text.as_bytes()].concat()
        }
        PieceKind::Byte => tokenizer.decode_bytes(&[id]),
        PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused => {
            piece.text.replace('▁', " ").into_bytes()
        }
    }
}

/// The trie, for a library that only ever walks it.
struct Env(TokTrie);

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.0.greedy_tokenize(bytes)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

/// A compiled form.
pub(crate) struct Grammar {
    matcher: Matcher,
    closers: Arc<Closers>,
}

/// Why a grammar could not go on, for whoever waits for the answer.
pub(crate) type Failure = Arc<Mutex<Option<String>>>;

impl Grammar {
    /// An answer of this form and of at most `max_len` tokens, and where its failure will be told.
    pub(crate) fn start(&self, max_len: usize) -> (Box<dyn Constraint>, Failure) {
        let failure = Failure::default();
        let answer = Answer {
            matcher: self.matcher.deep_clone(),
            closers: Arc::clone(&self.closers),
            ending: Ending::new(max_len),
            mask: SimpleVob::new(),
            failure: Arc::clone(&failure),
        };
        (Box::new(answer), failure)
    }
}

/// An answer that is being written.
struct Answer {
    matcher: Matcher,
    closers: Arc<Closers>,
    ending: Ending,
    mask: SimpleVob,
    failure: Failure,
}

impl Answer {
    fn fail(&mut self, why: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| why.to_owned());
        self.mask = SimpleVob::new();
    }
}

impl Constraint for Answer {
    fn allowed(&mut self) -> &[u32] {
        match self.matcher.compute_mask_or_eos() {
            Ok(mask) => {
                self.mask = mask;
                self.ending.narrow(&self.closers, &self.matcher, &mut self.mask);
            }
            Err(error) => self.fail(&error.to_string()),
        }
        self.mask.as_slice()
    }

    fn accept(&mut self, token: u32) {
        self.ending.accept();
        if let Err(error) = self.matcher.consume_token(token) {
            self.fail(&error.to_string());
        }
    }
}
