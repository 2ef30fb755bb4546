//! `tools` and `tool_choice`: functions that the model may ask its caller to call.
//!
//! Llama 2 was trained on no form for this, so it has one given: the functions stand in the system message, a call is the
//! JSON object `{"name": ..., "arguments": ...}`, and a grammar sees to it that an answer which begins like one is one, of
//! a function that exists and with arguments of its schema. Anything else is an ordinary answer.

use puna_tokenizer::chat::{Message, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::Asked;
use crate::grammar::{Form, spaced};

/// Most functions of a request.
const MAX_FUNCTIONS: usize = 64;
/// Longest name of one.
const MAX_NAME_CHARS: usize = 64;

#[derive(Debug, Deserialize)]
struct Request {
    tools: Option<Vec<Tool>>,
    tool_choice: Option<ToolChoice>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Tool {
    Function { function: Function },
}

/// A function that may be called.
#[derive(Clone, Debug, Deserialize)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"none\", \"auto\", \"required\" or a function")]
enum ToolChoice {
    Word(Word),
    Function { function: Named },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    None,
    Auto,
    Required,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// A call as an earlier answer had it.
#[derive(Debug, Deserialize)]
pub(super) struct Call {
    function: CalledFunction,
}

#[derive(Debug, Deserialize)]
struct CalledFunction {
    name: String,
    arguments: String,
}

impl Call {
    /// As the model wrote it.
    pub(super) fn text(&self) -> String {
        let arguments = serde_json::from_str(&self.function.arguments)
            .unwrap_or_else(|_| Value::String(self.function.arguments.clone()));
        json!({ "name": self.function.name, "arguments": arguments }).to_string()
    }
}

/// The functions that the model may call now.
#[derive(Debug)]
pub(super) struct Tools {
    functions: Vec<Function>,
    /// It has to call one.
    is_required: bool,
}

impl Tools {
    /// Those of a request, if there are any to be called.
    pub(super) fn read(asked: &Asked) -> Result<Option<Self>, ApiError> {
        let request: Request = asked.fields()?;
        let tools = request.tools.unwrap_or_default();
        let mut functions: Vec<Function> =
            tools.into_iter().map(|Tool::Function { function }| function).collect();
        if functions.len() > MAX_FUNCTIONS {
            let message = format!("expected at most {MAX_FUNCTIONS}, found {}", functions.len());
            return Err(ApiError::field("tools", message));
        }
        for (idx, Function { name, .. }) in functions.iter().enumerate() {
            let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            if !fits || name.is_empty() || name.len() > MAX_NAME_CHARS {
                let message =
                    format!("expected a name of 1 to {MAX_NAME_CHARS} letters, digits, _, - and .");
                return Err(ApiError::field(format!("tools[{idx}].function.name"), message));
            }
        }
        let is_required = match request.tool_choice {
            Some(ToolChoice::Word(Word::None)) => return Ok(None),
            Some(ToolChoice::Word(Word::Required)) if functions.is_empty() => {
                return Err(ApiError::field("tool_choice", "there are no tools"));
            }
            Some(ToolChoice::Word(word)) => word == Word::Required,
            Some(ToolChoice::Function { function }) => {
                functions.retain(|known| known.name == function.name);
                if functions.is_empty() {
                    let message = format!("no tool is called {:?}", function.name);
                    return Err(ApiError::field("tool_choice", message));
                }
                true
            }
            None => false,
        };
        Ok((!functions.is_empty()).then_some(Self { functions, is_required }))
    }

    /// Tells the model of the functions, in the system message.
    pub(super) fn introduce(&self, messages: &mut Vec<Message>) {
        let list: Vec<Value> = self
            .functions
            .iter()
            .map(|f| json!({ "name": f.name, "description": f.description, "parameters": f.parameters }))
            .collect();
        let text = format!(
            "These functions can be called: {}\nTo call one, answer with nothing but a JSON object of its name and its \
             arguments: {{\"name\": ..., \"arguments\": {{...}}}}",
            Value::from(list)
        );
        match messages.first_mut() {
            Some(first) if first.role == Role::System => {
                first.content.push_str("\n\n");
                first.content.push_str(&text);
            }
            _ => messages.insert(0, Message::new(Role::System, text)),
        }
    }

    /// A call; or, where none is required, a text that begins otherwise.
    pub(super) fn form(&self) -> Form {
        let call = |f: &Function| {
            let arguments = f.parameters.clone().unwrap_or_else(|| json!({ "type": "object" }));
            json!({
                "type": "object",
                "properties": { "name": { "const": f.name }, "arguments": arguments },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        };
        let calls: Vec<Value> = self.functions.iter().map(call).collect();
        let schema = spaced(json!({ "anyOf": calls }));
        if self.is_required {
            return Form::Schema(schema);
        }
        Form::Lark(format!("start: call | text\ncall: %json {schema}\ntext: /[^{{\\s](.|\\n)*/"))
    }

    /// The call that an answer is, as `tool_calls` has it.
    pub(super) fn call(text: &str, id: &str) -> Option<Value> {
        let value: Value = serde_json::from_str(text).ok()?;
        let name = value.get("name")?.as_str()?;
        let arguments = value.get("arguments")?.to_string();
        Some(json!([{
            "index": 0, "id": id, "type": "function",
            "function": { "name": name, "arguments": arguments },
        }]))
    }
}

/// Whether an answer that begins so may be a call.
pub(super) fn may_be_call(text: &str) -> bool {
    text.trim_start().starts_with('{')
}
