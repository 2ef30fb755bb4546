//! What a log tells, in the order in which it is drawn. Fields are not known beforehand: whatever is a number is a curve.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::RecipeError;
use crate::run::log::{self, LOG};

/// One line of a log, of any recipe.
#[derive(Deserialize)]
struct Logged {
    step: u64,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    samples: Vec<String>,
    #[serde(default)]
    fault: Option<String>,
    #[serde(default)]
    events: Vec<String>,
    #[serde(flatten)]
    fields: BTreeMap<String, Value>,
}

/// A log as its curves, events and texts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct History {
    /// The first and the last step.
    pub steps: (u64, u64),
    /// Tokens trained on; zero where no step tells.
    pub tokens: u64,
    /// Seconds of its steps, from tokens and speeds.
    pub secs: f64,
    /// A group a field.
    pub groups: BTreeMap<String, Group>,
    /// What happened on the way.
    pub events: Vec<Event>,
    /// Steps with the texts that the model wrote after them.
    pub samples: Vec<(u64, Vec<String>)>,
    /// Whether the end of the log was cut off.
    pub is_cut: bool,
}

/// The curves of a field by name: of a single number one without a name, of several, such as one a source, each its own.
pub(super) type Group = BTreeMap<String, Vec<Point>>;

/// A step and a finite number.
pub(super) type Point = (u64, f64);

/// Something that happened at a step.
#[derive(Debug, PartialEq)]
pub(super) struct Event {
    /// The step that tells it.
    pub step: u64,
    /// Whether the step was left out; else it is about the run.
    pub is_fault: bool,
    /// In words.
    pub text: String,
}

impl History {
    /// Reads the log of a run.
    ///
    /// # Errors
    /// There is none, it has no step, or a line is none.
    pub(super) fn read(folder: &Path) -> Result<Self, RecipeError> {
        if !folder.join(LOG).is_file() {
            let expected = format!("a folder with {LOG}");
            return Err(RecipeError::run(folder, "run", expected, "none: no step was made yet"));
        }
        let (lines, is_cut) = log::read_lines::<Logged>(folder)?;
        let mut history = Self { is_cut, ..Self::default() };
        let lines = history.without_made_again(lines);
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
            return Err(RecipeError::run(&folder.join(LOG), "steps", "at least one", "none"));
        };
        history.steps = (first.step, last.step);
        lines.into_iter().for_each(|line| history.add(line));
        history.events.sort_by_key(|event| event.step);
        Ok(history)
    }

    /// Where steps are there twice, because the run was cut off or went back, the later ones count.
    fn without_made_again(&mut self, lines: Vec<Logged>) -> Vec<Logged> {
        let mut kept: Vec<Logged> = Vec::with_capacity(lines.len());
        for line in lines {
            let first_stale = kept.partition_point(|earlier| earlier.step < line.step);
            if let Some(last) = kept.last().filter(|last| last.step >= line.step) {
                let text = format!(
                    "steps {} to {} were there before: the later ones are shown",
                    line.step, last.step
                );
                self.events.push(Event { step: line.step, is_fault: false, text });
            }
            // What happened to the run did happen.
            for stale in kept.drain(first_stale..) {
                self.add_events(line.step, stale.events);
            }
            kept.push(line);
        }
        kept
    }

    fn add_events(&mut self, step: u64, events: Vec<String>) {
        let events = events.into_iter().map(|text| Event { step, is_fault: false, text });
        self.events.extend(events);
    }

    fn add(&mut self, line: Logged) {
        let Logged { step, tokens, samples, fault, events, fields } = line;
        self.add_events(step, events);
        // A step that was left out has no numbers, only zeros in their places.
        if let Some(text) = fault {
            self.events.push(Event { step, is_fault: true, text });
            return;
        }
        let n_new = tokens.saturating_sub(self.tokens) as f64;
        let speed = fields.get("tokens_per_sec").and_then(Value::as_f64);
        self.secs += speed.filter(|&speed| speed > 0.0).map_or(0.0, |speed| n_new / speed);
        self.tokens = self.tokens.max(tokens);
        if !samples.is_empty() {
            self.samples.push((step, samples));
        }
        for (key, value) in fields {
            for (name, number) in numbers(&value) {
                let group = self.groups.entry(key.clone()).or_default();
                group.entry(name.to_owned()).or_default().push((step, number));
            }
        }
    }
}

/// The numbers of a field: itself, those of an object, or pairs of a name and a number.
fn numbers(value: &Value) -> Vec<(&str, f64)> {
    match value {
        Value::Number(n) => n.as_f64().map(|n| ("", n)).into_iter().collect(),
        Value::Object(fields) => {
            fields.iter().filter_map(|(name, n)| Some((name.as_str(), n.as_f64()?))).collect()
        }
        Value::Array(items) => items.iter().filter_map(pair).collect(),
        _ => Vec::new(),
    }
}

fn pair(item: &Value) -> Option<(&str, f64)> {
    match item.as_array()?.as_slice() {
        [Value::String(name), number] => Some((name, number.as_f64()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(log: &str) -> Result<History, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOG), log).unwrap();
        History::read(folder.path()).map_err(|e| e.to_string())
    }

    fn told(history: &History) -> Vec<(u64, bool, &str)> {
        history.events.iter().map(|e| (e.step, e.is_fault, e.text.as_str())).collect()
    }

    #[test]
    fn whatever_is_a_number_is_a_curve() {
        let log = r#"{"step":1,"tokens":100,"loss":2.5,"tokens_per_sec":50,"name":"x","reward":{"b":1,"a":2}}
{"step":2,"tokens":200,"loss":null,"tokens_per_sec":25,"bits_per_byte":[["tales",1.5],["wiki",2]],"samples":["so"]}
"#;
        let history = read(log).unwrap();
        assert_eq!((history.steps, history.tokens, history.secs), ((1, 2), 200, 6.0));
        let keys: Vec<&str> = history.groups.keys().map(String::as_str).collect();
        assert_eq!(keys, ["bits_per_byte", "loss", "reward", "tokens_per_sec"]);
        assert_eq!(history.groups["loss"][""], [(1, 2.5)]);
        assert_eq!(history.groups["bits_per_byte"]["wiki"], [(2, 2.0)]);
        assert_eq!(history.groups["reward"]["a"], [(1, 2.0)]);
        assert_eq!(history.samples, [(2, vec!["so".to_owned()])]);
        assert!(history.events.is_empty() && !history.is_cut);
    }

    #[test]
    fn steps_made_again_count_once_and_their_events_stay() {
        let log = r#"{"step":1,"loss":1}
{"step":2,"loss":2}
{"step":3,"loss":3,"events":["went on"]}
{"step":4,"loss":4}
{"step":2,"loss":20}
{"step":3,"loss":30}
"#;
        let history = read(log).unwrap();
        assert_eq!(history.groups["loss"][""], [(1, 1.0), (2, 20.0), (3, 30.0)]);
        let again = "steps 2 to 4 were there before: the later ones are shown";
        assert_eq!(told(&history), [(2, false, again), (2, false, "went on")]);
    }

    #[test]
    fn steps_that_were_left_out_are_events_without_numbers() {
        let log = r#"{"step":1,"tokens":8,"lr":0.1}
{"step":2,"tokens":0,"lr":0.0,"fault":"a spike","events":["back to step 1"]}
"#;
        let history = read(log).unwrap();
        assert_eq!(history.groups["lr"][""], [(1, 0.1)]);
        assert_eq!((history.steps.1, history.tokens), (2, 8));
        assert_eq!(told(&history), [(2, false, "back to step 1"), (2, true, "a spike")]);
    }

    #[test]
    fn a_log_is_read_up_to_where_it_was_cut() {
        let whole = "{\"step\":1,\"loss\":2.5}\n";
        let history = read(&format!("{whole}{{\"step\":2,\"lo")).unwrap();
        assert!(history.is_cut && history.steps == (1, 1));
        for (log, expected) in [
            ("", "log.jsonl: steps: expected at least one, found none"),
            ("{\"step\":1", "log.jsonl: steps: expected at least one, found none"),
            ("{\"step\":1}\nnothing\n", "log.jsonl: line 2: expected a step"),
            ("{\"loss\":1}\n", "log.jsonl: line 1: expected a step, found missing field `step`"),
        ] {
            let message = read(log).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
