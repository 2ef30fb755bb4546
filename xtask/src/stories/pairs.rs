//! Preference records by judge A: what the reward models learn from.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::answers::{Answer, Record, read_answered};
use super::dialogues::Dialogue;
use super::judge_a::{JudgeA, Verdict};
use super::request::{Kind, Random};

const SEED: u64 = 13;

/// Of pairs that are equally good, so many in a hundred are kept, with the weakest label.
const TIES: usize = 2;

/// Most pairs of a prompt.
const PAIRS: usize = 3;

/// Most words that a sentence pair is asked for.
const WORDS: usize = 3;

/// Sentences for words, each beside itself with one of the words exchanged: whether an answer has what was asked for is
/// learned from thousands of these in minutes, and not from as many stories.
pub(super) fn sentence_pairs(copies: &[Dialogue]) -> Vec<Value> {
    let mut random = Random::new(SEED + 1);
    let asked: Vec<(&Dialogue, Vec<&str>)> = copies
        .iter()
        .filter(|dialogue| dialogue.source == "sentences")
        .filter_map(|dialogue| Some((dialogue, asked_words(&dialogue.messages[0])?)))
        .filter(|(_, words)| words.len() <= WORDS)
        .collect();
    let all: Vec<&str> = asked.iter().flat_map(|(_, words)| words.iter().copied()).collect();
    let pair = |(dialogue, words): &(&Dialogue, Vec<&str>)| {
        let (word, other) = (random.pick(words), random.pick(&all));
        let chosen = &dialogue.messages[1];
        let is_word = |part: &str| part.trim_matches(|c: char| !c.is_alphanumeric()) == word;
        let rejected: String = chosen
            .split_inclusive(|c: char| !c.is_alphanumeric())
            .map(|part| if is_word(part) { part.replacen(word, other, 1) } else { part.to_owned() })
            .collect();
        (rejected != *chosen && !chosen.contains(other)).then(|| {
            json!({
                "prompt": [{ "role": "user", "content": dialogue.messages[0] }],
                "chosen": chosen,
                "rejected": rejected,
                "strength": 3,
                "safety": "both_safe",
            })
        })
    };
    asked.iter().filter_map(pair).collect()
}

/// The words of "Make a sentence for each of the words a, b and c."
fn asked_words(text: &str) -> Option<Vec<&str>> {
    let list = text.strip_suffix('.')?;
    let list = list
        .strip_prefix("Make a sentence with the word ")
        .or_else(|| list.strip_prefix("Make a sentence for each of the words "))?;
    Some(list.split(", ").flat_map(|words| words.split(" and ")).collect())
}

/// Writes pairs on helpfulness and pairs on safety.
pub(super) fn pairs(answers: &str, helpfulness: &str, safety: &str) -> Result<()> {
    let (judge, mut random) = (JudgeA::new(), Random::new(SEED));
    let (mut helpful, mut safe) = (Vec::new(), Vec::new());
    for record in read_answered(answers)? {
        let is_safety = record.request.kind == Kind::Unsafe;
        for pair in pairs_of(&judge, &mut random, &record) {
            if is_safety || pair["safety"] == "chosen_safe" {
                safe.push(pair);
            } else {
                helpful.push(pair);
            }
        }
    }
    for (path, pairs) in [(helpfulness, helpful), (safety, safe)] {
        let text: String = pairs.iter().map(|pair| format!("{pair}\n")).collect();
        fs::write(path, text).with_context(|| format!("cannot write {path}"))?;
        eprintln!("{path}: {} pairs", pairs.len());
    }
    Ok(())
}

/// An answer as judge A ranks it: first whether it may be given at all, then by its score.
struct Ranked<'a> {
    answer: &'a Answer,
    is_safe: bool,
    verdict: Verdict,
}

/// Each answer beside each other that is better or worse, a few of them; equals now and then.
fn pairs_of(judge: &JudgeA, random: &mut Random, record: &Record) -> Vec<Value> {
    let ranked: Vec<_> = record
        .answers
        .iter()
        .filter(|answer| !answer.text.trim().is_empty())
        .map(|answer| Ranked {
            answer,
            is_safe: !judge.is_unsafe(&record.request, &answer.text),
            verdict: judge.judge(&record.request, record.text(), &answer.text, answer.complete),
        })
        .collect();
    let both = (0..ranked.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let pairs = both.filter_map(|(i, j)| {
        let (a, b) = (&ranked[j], &ranked[i]);
        if a.answer.text == b.answer.text {
            return None;
        }
        let key = |ranked: &Ranked<'_>| (ranked.is_safe, ranked.verdict.met(), ranked.verdict.score());
        let is_tie = key(a) == key(b);
        if is_tie && !random.percent(TIES) {
            return None;
        }
        let first = if is_tie { random.percent(50) } else { key(a) > key(b) };
        let (chosen, rejected) = if first { (a, b) } else { (b, a) };
        let safety = match (chosen.is_safe, rejected.is_safe) {
            (true, true) => "both_safe",
            (true, false) => "chosen_safe",
            (false, _) => "both_unsafe",
        };
        Some(json!({
            "prompt": record.prompt.iter().map(|m| json!({ "role": m.role, "content": m.content })).collect::<Vec<_>>(),
            "chosen": chosen.answer.text,
            "rejected": rejected.answer.text,
            "strength": strength(chosen, rejected),
            "safety": safety,
        }))
    });
    pairs.take(PAIRS).collect()
}

/// 3: all is met, beside what meets nothing of the request or must not be given; 2: two conditions more; 1: one; 0: equal.
fn strength(chosen: &Ranked<'_>, rejected: &Ranked<'_>) -> u8 {
    let nothing =
        rejected.verdict.score() == 0 || rejected.verdict.asked.iter().all(|(_, met)| !met);
    let more = chosen.verdict.score().saturating_sub(rejected.verdict.score());
    match more {
        _ if chosen.is_safe && !rejected.is_safe => 3,
        _ if chosen.verdict.met() && nothing && more > 0 => 3,
        0 | 1 if chosen.verdict.met() == rejected.verdict.met() && more == 0 => 0,
        0 | 1 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pair of two answers to a prompt, as "chosen strength safety".
    fn check(request: &str, answers: [&str; 2], expected: Option<(&str, u8, &str)>) {
        let line = json!({
            "prompt": [{ "role": "user", "content": "Help me steal a car." }],
            "request": serde_json::from_str::<Value>(request).unwrap(),
            "answers": answers.map(|text| json!({ "text": text, "complete": true })),
        });
        let record = serde_json::from_value(line).unwrap();
        // The seed's first draws drop a tie.
        let pairs = pairs_of(&JudgeA::new(), &mut Random::new(SEED), &record);
        let found = pairs.first().map(|pair| {
            let strength = pair["strength"].as_u64().unwrap() as u8;
            (pair["chosen"].as_str().unwrap(), strength, pair["safety"].as_str().unwrap())
        });
        assert_eq!(found, expected, "{answers:?}");
    }

    #[test]
    fn a_sentence_without_its_word_is_rejected() {
        let told = [("cat", "The cat sat."), ("dog", "A dog, oh!"), ("sun", "No such word.")];
        let copies: Vec<_> = std::iter::repeat_n(told, 8)
            .flatten()
            .map(|(word, text)| {
                let ask = format!("Make a sentence with the word {word}.");
                Dialogue::new("sentences", [&*ask, text])
            })
            .collect();
        let pairs = sentence_pairs(&copies);
        assert!(pairs.len() <= 16 && !pairs.is_empty(), "{pairs:?}");
        for pair in pairs {
            let asked = pair["prompt"][0]["content"].as_str().unwrap();
            let word = asked_words(asked).unwrap()[0];
            let [chosen, rejected] = ["chosen", "rejected"].map(|key| pair[key].as_str().unwrap());
            assert!(chosen.contains(word) && !rejected.contains(word), "{pair}");
            assert_eq!(chosen.split(' ').count(), rejected.split(' ').count());
        }
        let list = asked_words("Make a sentence for each of the words a, b and c.").unwrap();
        assert_eq!(list, ["a", "b", "c"]);
    }

    #[test]
    fn the_better_answer_is_chosen_whichever_comes_first() {
        let harmful = r#"{"kind":"unsafe","form":"plain"}"#;
        let (no, yes) =
            ("I won't help with that. I can tell you a story.", "You take a key and drive.");
        check(harmful, [no, yes], Some((no, 3, "chosen_safe")));
        check(harmful, [yes, no], Some((no, 3, "chosen_safe")));
        check(harmful, [no, "I can't do that. Would you like a story?"], None);
        check(harmful, [no, no], None);
        check(harmful, [no, ""], None);
        let off_topic = r#"{"kind":"off_topic"}"#;
        let redirect = "I only know stories. Shall I tell you one?";
        check(off_topic, [yes, redirect], Some((redirect, 3, "both_safe")));
        check(off_topic, ["I only know stories", redirect], Some((redirect, 1, "both_safe")));
    }
}
