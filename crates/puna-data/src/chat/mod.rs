//! Records of alignment out of files: dialogues to learn from, pairs of answers with the better one named, prompts to
//! answer. `docs/data-forms.md` shows every form.
//!
//! A file is JSONL, a JSON array or Parquet, packed or not; its records have one form, which is stated or taken from
//! the first. What is wrong with a record has a kind and a place, and either ends the work or is counted
//! ([`OnProblem`]).

mod dialogue;
mod parquet;
mod preference;
mod problem;
mod rows;

use std::path::Path;

use serde_json::{Map, Value};

use crate::DataError;
pub use dialogue::{ChatForm, ChatRecord, PromptRecord};
pub use preference::{PreferenceForm, PreferenceRecord, RequiredLabels, SafetyLabel};
use problem::Fault;
pub use problem::{Found, OnProblem, ProblemKind, Problems};
use rows::Rows;

/// Reads dialogues, each of which ends with the assistant. `form`: that of every record, if the first need not say.
///
/// # Errors
/// A file that cannot be read or has no known form; with [`OnProblem::Refuse`] the first record that is at fault.
pub fn read_chat(
    path: &Path,
    form: Option<ChatForm>,
    on_problem: OnProblem,
) -> Result<(Vec<ChatRecord>, Problems), DataError> {
    let name = path.display().to_string();
    let parse = |form: ChatForm, number, object: &Map<String, Value>| {
        ChatRecord::parse(form, &name, number, object)
    };
    read(Rows::open(path)?, form, ChatForm::of, ChatForm::KNOWN, on_problem, parse)
}

/// The dialogues of JSONL or of a JSON array that is in memory, as [`read_chat`] reads a file of this name.
///
/// # Errors
/// As [`read_chat`].
pub fn parse_chat(
    name: &str,
    bytes: &[u8],
    form: Option<ChatForm>,
    on_problem: OnProblem,
) -> Result<(Vec<ChatRecord>, Problems), DataError> {
    let parse = |form: ChatForm, number, object: &Map<String, Value>| {
        ChatRecord::parse(form, name, number, object)
    };
    let rows = Rows::of_bytes(name, bytes)?;
    read(rows, form, ChatForm::of, ChatForm::KNOWN, on_problem, parse)
}

/// Reads prompts, dialogues that end with the user.
///
/// # Errors
/// As [`read_chat`].
pub fn read_prompts(
    path: &Path,
    on_problem: OnProblem,
) -> Result<(Vec<PromptRecord>, Problems), DataError> {
    let name = path.display().to_string();
    let form = |object: &Map<String, Value>| object.contains_key("prompt").then_some(());
    let parse =
        |(), number, object: &Map<String, Value>| PromptRecord::parse(&name, number, object);
    read(Rows::open(path)?, None, form, "a field \"prompt\"", on_problem, parse)
}

/// Reads pairs of answers to one prompt. A label that `required` asks for must be there.
///
/// # Errors
/// As [`read_chat`].
pub fn read_preferences(
    path: &Path,
    form: Option<PreferenceForm>,
    required: RequiredLabels,
    on_problem: OnProblem,
) -> Result<(Vec<PreferenceRecord>, Problems), DataError> {
    let parse = |form: PreferenceForm, number, object: &Map<String, Value>| {
        PreferenceRecord::parse(form, required, number, object)
    };
    let rows = Rows::open(path)?;
    read(rows, form, PreferenceForm::of, PreferenceForm::KNOWN, on_problem, parse)
}

/// The pairs of JSONL or of a JSON array that is in memory, as [`read_preferences`] reads a file of this name.
///
/// # Errors
/// As [`read_chat`].
pub fn parse_preferences(
    name: &str,
    bytes: &[u8],
    form: Option<PreferenceForm>,
    required: RequiredLabels,
    on_problem: OnProblem,
) -> Result<(Vec<PreferenceRecord>, Problems), DataError> {
    let parse = |form: PreferenceForm, number, object: &Map<String, Value>| {
        PreferenceRecord::parse(form, required, number, object)
    };
    let rows = Rows::of_bytes(name, bytes)?;
    read(rows, form, PreferenceForm::of, PreferenceForm::KNOWN, on_problem, parse)
}

/// Every record of `rows` that `parse` makes something of. `form_of` finds the form of an object, `known` tells what it
/// looks for.
fn read<F: Copy, T>(
    mut rows: Rows,
    mut form: Option<F>,
    form_of: impl Fn(&Map<String, Value>) -> Option<F>,
    known: &str,
    on_problem: OnProblem,
    parse: impl Fn(F, u64, &Map<String, Value>) -> Result<T, Fault>,
) -> Result<(Vec<T>, Problems), DataError> {
    let (mut records, mut problems) = (Vec::new(), Problems::default());
    while let Some(row) = rows.next()? {
        let fault = match row.object {
            Ok(object) => {
                let found = form.or_else(|| form_of(&object));
                let Some(found) = found else {
                    let mut fields: Vec<&str> = object.keys().map(String::as_str).collect();
                    fields.sort_unstable();
                    fields.truncate(20);
                    return Err(DataError::input(&row.place, known, fields.join(", ")));
                };
                form = Some(found);
                match parse(found, row.place.number(), &object) {
                    Ok(record) => {
                        records.push(record);
                        continue;
                    }
                    Err(fault) => fault,
                }
            }
            Err(fault) => fault,
        };
        let error = DataError::input(&row.place, &fault.expected, &fault.found);
        match on_problem {
            OnProblem::Refuse => return Err(error),
            OnProblem::Skip => problems.add(fault.kind, error),
        }
    }
    Ok((records, problems))
}
