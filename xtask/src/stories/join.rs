//! Answers of several files to the same prompts in one: of models of several seeds, or the best of many by their scores.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Writes the records of the first file with the answers of all, of each file either all of a prompt or, of its first
/// `best_of`, the one with the highest score among those that came to their end.
pub(super) fn join(out: &str, best_of: Option<usize>, files: &[&str]) -> Result<()> {
    let mut joined: Vec<Value> = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let records: Vec<Value> = lines
            .enumerate()
            .map(|(i, line)| {
                serde_json::from_str(line).with_context(|| format!("{file}: record {}", i + 1))
            })
            .collect::<Result<_>>()?;
        let first = joined.is_empty();
        if !first && records.len() != joined.len() {
            bail!("{file}: expected {} records, found {}", joined.len(), records.len());
        }
        for (i, mut record) in records.into_iter().enumerate() {
            let at = || format!("{file}: record {}", i + 1);
            let Value::Array(answers) = record["answers"].take() else {
                bail!("{}: expected a list of answers", at());
            };
            let answers = match best_of {
                Some(n) => vec![best(&answers[..n.min(answers.len())]).with_context(at)?.clone()],
                None => answers,
            };
            if first {
                record["answers"] = answers.into();
                joined.push(record);
                continue;
            }
            let others = &mut joined[i];
            if others["prompt"] != record["prompt"] {
                bail!(
                    "{}: expected the prompt {}, found {}",
                    at(),
                    others["prompt"],
                    record["prompt"]
                );
            }
            others["answers"].as_array_mut().expect("put there above").extend(answers);
        }
    }
    let text: String = joined.iter().map(|record| format!("{record}\n")).collect();
    fs::write(out, text).with_context(|| format!("cannot write {out}"))
}

/// The best by score; one that was cut off only if all were.
fn best(answers: &[Value]) -> Result<&Value> {
    let mut best: Option<(bool, f64, &Value)> = None;
    for answer in answers {
        let score = answer["score"].as_f64().context("expected answers with a `score`")?;
        let complete = answer["complete"].as_bool().context("expected `complete`")?;
        if best.is_none_or(|(c, s, _)| (complete, score) > (c, s)) {
            best = Some((complete, score, answer));
        }
    }
    best.map(|(.., answer)| answer).context("expected at least one answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_each_file_is_joined_by_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let answer = |text: &str, complete: bool, score: f64| serde_json::json!({ "text": text, "complete": complete, "score": score });
        let line = |prompt: &str, answers: &[Value]| {
            serde_json::json!({ "prompt": prompt, "answers": answers }).to_string()
        };
        let cut = answer("cut", false, 0.9);
        fs::write(
            path("a"),
            line("p", &[answer("a", true, 0.1), cut.clone(), answer("b", true, 0.3)]),
        )
        .unwrap();
        fs::write(path("b"), line("p", &[cut, answer("c", true, 0.2)])).unwrap();
        fs::write(path("other"), line("q", &[answer("d", true, 0.2)])).unwrap();
        let joined = |best_of, files: &[&str]| {
            let files: Vec<String> = files.iter().map(|file| path(file)).collect();
            join(&path("out"), best_of, &files.iter().map(String::as_str).collect::<Vec<_>>())?;
            let record: Value = serde_json::from_str(&fs::read_to_string(path("out"))?)?;
            let texts = record["answers"].as_array().unwrap().iter();
            anyhow::Ok(texts.map(|a| a["text"].as_str().unwrap()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(joined(None, &["a", "b"]).unwrap(), "a cut b cut c");
        assert_eq!(joined(Some(1), &["a", "b"]).unwrap(), "a cut");
        assert_eq!(joined(Some(2), &["a", "b"]).unwrap(), "a c");
        assert_eq!(joined(Some(8), &["a"]).unwrap(), "b");
        assert!(
            joined(None, &["a", "other"]).unwrap_err().to_string().contains("expected the prompt")
        );
    }
}
